// SPDX-License-Identifier: Apache-2.0
// One batch of batch_files.h, parsed: views of a pickle's arrays.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "format/box.h"
#include "format/crop_op.h"
#include "format/result.h"
#include "writer/convert/pickle.h"

namespace fkdb {

struct BatchValue {
  std::vector<FractionBox> boxes;          // (B)
  bool half_boxes = false;
  std::vector<uint8_t> flips;              // (B)
  std::vector<std::vector<CropOp>> ops;    // (B), or empty
  std::vector<uint32_t> partners;          // (B) in the batch, or empty
  double lambda = 1;
  std::optional<std::array<double, 4>> corners;  // of a cutmix
  Array outputs;                           // (B, C or K)
  std::optional<Array> classes;            // (B, K)

  uint64_t size() const { return flips.size(); }
};

// Errors: Corruption (not such a list; says what differs), Unsupported (cutout boxes in the place of flips).
Result<BatchValue> ParseBatch(const PickleValue& value);

// A number, or an array of one. Errors: Corruption.
Result<double> NumberOf(const PickleValue& value);

}  // namespace fkdb
