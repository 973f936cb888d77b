// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/label_batch_value.h"

#include <fmt/format.h>

#include <cmath>

namespace fkdb {
namespace {

using Type = PickleValue::Type;

tl::unexpected<Error> Bad(std::string what) { return Fail(ErrorCode::kCorruption, "batch: " + std::move(what)); }

Result<std::vector<std::vector<CropOp>>> ParseListedOps(const PickleValue& rand, uint64_t size) {
  std::vector<std::vector<CropOp>> ops(size);
  if (rand.items().size() > kMaxOpsPerCrop / 4) return Bad(fmt::format("rand: {}", rand.What()));
  for (const PickleValue* op : rand.items()) {
    const auto parts = op->items();
    bool good = op->is_sequence() && parts.size() == 3;
    for (const PickleValue* part : parts) good = good && part->type() == Type::kArray && part->array().Is({size});
    if (!good) return Bad(fmt::format("rand: {}, expected for each operation three arrays ({},)", op->What(), size));
    const std::vector<float> index = parts[0]->array().Floats(), applied = parts[1]->array().Floats(), value = parts[2]->array().Floats();
    for (uint64_t i = 0; i < size; ++i) ops[i].push_back({OpKind::kListed, 0, {index[i], applied[i] != 0 ? 1.0f : 0.0f, value[i]}});
  }
  return ops;
}

}  // namespace

Result<double> NumberOf(const PickleValue& value) {
  if (value.is_number()) return value.real();
  if (value.type() == Type::kArray && value.array().size() == 1) {
    const Array& array = value.array();
    return static_cast<double>(array.Floats()[0]);
  }
  return Bad(fmt::format("{} where a number belongs", value.What()));
}

Result<BatchValue> ParseBatch(const PickleValue& value) {
  auto items = value.items();
  if (!value.is_sequence() || items.size() < 6 || items.size() > 8) {
    return Bad(fmt::format("{}, expected a list of 6 to 8: coords, flip, mix_index, mix_lambda, mix_bbox, output, ..", value.What()));
  }
  if (items[0]->type() != Type::kArray || items[1]->type() != Type::kArray) return Bad(fmt::format("coords, flip: {} and {}", items[0]->What(), items[1]->What()));
  const Array &coords = items[0]->array(), &flip = items[1]->array();
  const uint64_t size = coords.shape().empty() ? 0 : coords.shape()[0];
  if (size == 0 || !coords.Is({size, 4}) || !IsFloat(coords.dtype())) return Bad(fmt::format("coords: {}, expected floats (B, 4)", items[0]->What()));
  if (flip.Is({size, 7})) return Fail(ErrorCode::kUnsupported, "batch: cutout boxes in the place of flips: they fill with a colour, which has no form here");
  if (!flip.Is({size})) return Bad(fmt::format("flip: {}, expected ({},)", items[1]->What(), size));
  BatchValue batch;
  batch.half_boxes = coords.dtype() == DType::kF16;
  const std::vector<float> sides = coords.Floats();
  for (uint64_t i = 0; i < size; ++i) batch.boxes.push_back({sides[4 * i], sides[4 * i + 1], sides[4 * i + 2], sides[4 * i + 3]});
  for (const float f : flip.Floats()) batch.flips.push_back(f != 0);
  items = items.subspan(2);
  if (items[0]->is_sequence()) {
    FKDB_ASSIGN(batch.ops, ParseListedOps(*items[0], size));
    items = items.subspan(1);
  }
  if (items.size() < 4 || items.size() > 5) return Bad(fmt::format("{}: {} parts after the augmentation, expected 4 or 5", value.What(), items.size()));

  if (!items[0]->is_none()) {
    if (items[0]->type() != Type::kArray || !items[0]->array().Is({size})) return Bad(fmt::format("mix_index: {}, expected ({},)", items[0]->What(), size));
    const DType dtype = items[0]->array().dtype();
    if (IsFloat(dtype) || (ItemSize(dtype) == 1 && size > 256)) return Bad(fmt::format("mix_index: {}, which cannot name {} others", items[0]->What(), size));
    FKDB_ASSIGN(const std::vector<int64_t> partners, items[0]->array().Integers());
    for (const int64_t partner : partners) {
      if (partner < 0 || static_cast<uint64_t>(partner) >= size) return Bad(fmt::format("mix_index: {} in a batch of {}", partner, size));
      batch.partners.push_back(static_cast<uint32_t>(partner));
    }
    FKDB_ASSIGN(batch.lambda, NumberOf(*items[1]));
    if (!items[2]->is_none()) {
      batch.corners.emplace();
      const bool array = items[2]->type() == Type::kArray && items[2]->array().Is({4});
      if (!array && (!items[2]->is_sequence() || items[2]->items().size() != 4)) return Bad(fmt::format("mix_bbox: {}, expected four numbers", items[2]->What()));
      for (size_t i = 0; i < 4; ++i) {
        FKDB_ASSIGN((*batch.corners)[i], array ? Result<double>(items[2]->array().Floats()[i]) : NumberOf(*items[2]->items()[i]));
        if (!std::isfinite((*batch.corners)[i])) return Bad("mix_bbox: a number that is not finite");
      }
    }
  }
  const auto is_table = [&](const PickleValue* part) {
    return part->type() == Type::kArray && part->array().shape().size() == 2 && part->array().shape()[0] == size && part->array().shape()[1] > 0;
  };
  if (!is_table(items[3]) || !IsFloat(items[3]->array().dtype())) return Bad(fmt::format("output: {}, expected floats ({}, C)", items[3]->What(), size));
  batch.outputs = items[3]->array();
  if (items.size() == 5) {
    if (!is_table(items[4]) || items[4]->array().shape() != batch.outputs.shape() || IsFloat(items[4]->array().dtype())) {
      return Bad(fmt::format("indices: {}, expected whole numbers {}", items[4]->What(), batch.outputs.Shape()));
    }
    batch.classes = items[4]->array();
  }
  return batch;
}

}  // namespace fkdb
