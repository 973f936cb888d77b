// SPDX-License-Identifier: Apache-2.0
// Labels as a table, a row a crop, for tools that know nothing of fkdb. Columns:
//
//   key      text          the image's key: its path below the images' folder
//   box      4 numbers     top, left, height, width: pixels of the original image if they are whole numbers, its
//                          fractions (top / H, left / W, ..) if they are floats
//   flip     bool          mirrored left to right after crop and resize
//   indices  K integers    classes; absent for `full` and `logits`
//   values   K (or C) floats  their probabilities (or all, or logits); absent for `hard`
//
// Rows come in any order; an image's crops keep theirs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "format/result.h"

namespace fkdb {

// Some rows, R, column by column.
struct TableRows {
  std::vector<std::string> keys;      // (R)
  bool pixel_boxes = true;
  std::vector<int32_t> pixels;        // (R, 4), or
  std::vector<float> fractions;       // (R, 4)
  bool half_boxes = false;            // float16 loses nothing of the fractions
  std::vector<uint8_t> flips;         // (R), 0 or 1
  uint32_t num_indices = 0;           // K; 0: no column
  std::vector<int32_t> indices;       // (R, K)
  uint32_t num_values = 0;            // K or C; 0: no column
  std::vector<float> values;          // (R, K or C)
  bool half_values = false;           // float16 loses nothing of them

  size_t size() const { return keys.size(); }
};

// Immutable; may be used from many threads.
class TableFile {
 public:
  virtual ~TableFile() = default;
  virtual size_t num_groups() const = 0;  // of rows that are read at once
  // Errors: Corruption, Unsupported, IoError; they do not name the file.
  virtual Result<std::vector<std::string>> ReadKeys(size_t group) const = 0;
  virtual Result<TableRows> Read(size_t group) const = 0;
  // Columns that are none of the above.
  virtual std::vector<std::string> other_columns() const = 0;
};
using OpenTable = std::function<Result<std::unique_ptr<TableFile>>(const std::filesystem::path&)>;

// What rows are written to: all of one shape. Finish is called once, at the end; without it nothing is left.
class TableWriter {
 public:
  virtual ~TableWriter() = default;
  virtual Result<void> Append(TableRows rows) = 0;
  virtual Result<void> Finish() = 0;
};

}  // namespace fkdb
