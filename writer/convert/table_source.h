// SPDX-License-Identifier: Apache-2.0
// Labels from tables (table.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

#include "format/label_spec.h"
#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/label_source.h"
#include "writer/convert/table.h"

namespace fkdb {

struct TableSourceOptions {
  std::optional<LabelKind> kind;       // tells logits from probabilities, and smoothing from the K = 1 of the marginal kinds
  uint64_t memory_bytes = 4ull << 30;  // for labels on their way from rows to images
  int threads = 1;
};

// path: a table, or a folder of those whose names end in `extension`. Borrows the data set. Errors: NotFound (no table), Mismatch
// (tables of different columns), those of `open` with the file's name.
Result<std::unique_ptr<LabelSource>> OpenTables(const std::filesystem::path& path, std::string_view extension, const OpenTable& open,
                                                const LabelledImages& images, const TableSourceOptions& options);

}  // namespace fkdb
