// SPDX-License-Identifier: Apache-2.0
// fkdb-train --eval WEIGHTS: how good weights are, whoever trained them. And the validation flags, which trainings share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "format/result.h"
#include "image/data_set.h"
#include "tools/cli.h"
#include "tools/pixel_flags.h"
#include "trainer/accuracy.h"
#include "trainer/train.h"

namespace fkdb {

struct ValidationFlags {
  std::vector<std::string> val;
  std::optional<uint32_t> resize, crop;

  void AddTo(CLI::App& app);
  // `val` where a comma separates several, unless such a file exists.
  std::vector<std::string> Sets() const;
  // Of a training: at most one; "" without. Errors: InvalidArgument.
  Result<std::string> One() const;
  // Errors: InvalidArgument (a crop larger than the image it is cut out of).
  Result<EvaluationView> View(const DataSet& validation) const;
};

struct EvalFlags {
  std::string weights, real, class_order = "auto";
  bool asked = false;

  // With --eval in it nothing that a training needs is required.
  void AddTo(CLI::App& app);
};

// One line for each validation set. Of `config`, model, device, workers and threads count.
// Errors: InvalidArgument (flags of a training beside it; no validation set), Incomplete (interrupted), Mismatch, and those of loading.
Result<int> RunEval(const CLI::App& app, const EvalFlags& flags, const ValidationFlags& validation, const PixelFlags& pixels,
                    const TrainConfig& config, const CommonFlags& common);

}  // namespace fkdb
