// SPDX-License-Identifier: Apache-2.0
// The average of label sets of the same crops: what an ensemble of their teachers would have said.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "db/rewrite.h"

namespace fkdb {

struct AverageOptions : RewriteOptions {
  std::vector<double> weights;  // of each input, positive; empty: equal
};

// Of two or more inputs of one spec, images and crops (fkdb-write --boxes-from). Recovered probabilities are averaged, stored
// logits as they are, and kept as the spec says: of full f32 labels exactly what the ensemble gives, of rounded labels and those that
// kept K classes the average of what they kept. Errors: InvalidArgument (numbers), Mismatch (names the two files, and the first difference or the
// image whose crops are not the same), Unsupported (label maps; averages that a manifest cannot tell), those of LabelSet and
// LabelFileWriter.
Result<Manifest> AverageLabelSets(std::span<const std::filesystem::path> inputs, const std::filesystem::path& out,
                                  const AverageOptions& options);

}  // namespace fkdb
