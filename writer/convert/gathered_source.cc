// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/gathered_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "format/text.h"
#include "image/ordered_queue.h"

namespace fkdb {

Result<void> GatheredSource::Ready(const ImageLabels& shape, uint64_t bytes_a_row) {
  shape_ = shape;
  counts_.assign(data_.size(), 0);
  for (Rows& rows : groups_) {
    rows.crops.reserve(rows.ordinals.size());
    for (const uint32_t ordinal : rows.ordinals) {
      if (ordinal == kNobody) {
        rows.crops.push_back(0);
        continue;
      }
      if (counts_[ordinal] == kMaxCropsPerImage) {
        return Fail(ErrorCode::kUnsupported, fmt::format("image '{}': more than {} crops", Printable(data_.keys()[ordinal]), kMaxCropsPerImage));
      }
      rows.crops.push_back(static_cast<uint16_t>(counts_[ordinal]++));
    }
  }
  for (uint64_t i = 0; i < count_; ++i) {
    if (counts_[i] == 0) unlabelled_.Add(Printable(data_.keys()[i]));
  }
  most_crops_ = *std::max_element(counts_.begin(), counts_.begin() + static_cast<ptrdiff_t>(count_));
  const bool sparse = shape.form != LabelForm::kAll && shape.form != LabelForm::kLogits;
  const uint64_t bytes = uint64_t{shape.num_values} * (sparse ? 8 : 4) + sizeof(FractionBox) + sizeof(std::vector<CropOp>) + bytes_a_row;
  window_ = std::max<uint64_t>(1, memory_bytes_ / (bytes * std::max(1u, most_crops_)));
  return {};
}

Result<void> GatheredSource::OnThreads(const std::function<Result<void>()>& work) const {
  Result<void> outcome;
  std::mutex mutex;
  std::vector<std::jthread> threads;
  const auto body = [&] {
    auto done = Guarded(work);
    const std::lock_guard lock(mutex);
    if (!done && outcome) outcome = std::move(done);
  };
  auto started = StartThreads(threads_, body, &threads);
  threads.clear();  // joins
  FKDB_TRY(started);
  return outcome;
}

Result<void> GatheredSource::Prepare(uint64_t first, uint64_t end) {
  if (first == first_ && end == first_ + ready_.size()) return {};
  first_ = first;
  ready_.assign(end - first, shape_);
  const size_t width = shape_.num_values;
  for (uint64_t i = first; i < end; ++i) {
    ImageLabels& labels = ready_[i - first];
    const size_t crops = counts_[i];
    labels.half_boxes = labels.half_values = true;  // until one is not
    labels.pixel_boxes.resize(shape_.pixel_boxes.empty() ? 0 : crops);
    labels.fraction_boxes.resize(shape_.pixel_boxes.empty() ? crops : 0);
    labels.flips.resize(crops);
    labels.ops.resize(crops);
    labels.values.resize(shape_.form == LabelForm::kClass ? 0 : crops * width);
    labels.indices.resize(shape_.form == LabelForm::kAll || shape_.form == LabelForm::kLogits ? 0 : crops * width);
  }
  std::atomic<size_t> next = 0;
  auto done = OnThreads([&]() -> Result<void> {
    for (size_t group = next++; group < groups_.size(); group = next++) {
      const Rows& rows = groups_[group];
      const auto wants = [&](size_t row) { return rows.ordinals[row] >= first && rows.ordinals[row] < end; };
      const auto put = [&](size_t row, const Row& r) {
        ImageLabels& labels = ready_[rows.ordinals[row] - first];
        const size_t crop = rows.crops[row];  // nobody else's
        if (r.pixel_box) {
          labels.pixel_boxes[crop] = *r.pixel_box;
        } else {
          labels.fraction_boxes[crop] = r.fraction_box;
        }
        labels.flips[crop] = r.flip;
        labels.ops[crop] = r.ops;
        std::copy(r.values.begin(), r.values.end(), labels.values.begin() + static_cast<ptrdiff_t>(crop * width));
        std::copy(r.indices.begin(), r.indices.end(), labels.indices.begin() + static_cast<ptrdiff_t>(crop * width));
        if (r.half_box && r.half_values) return;
        const std::lock_guard lock(mutex_);
        labels.half_boxes &= r.half_box;
        labels.half_values &= r.half_values;
      };
      FKDB_TRY(ReadRows(group, wants, put));
    }
    return {};
  });
  if (!done) ready_.clear();
  return done;
}

Result<ImageLabels> GatheredSource::Load(uint64_t ordinal) const {
  if (ordinal < first_ || ordinal - first_ >= ready_.size()) return Fail(ErrorCode::kInvalidArgument, "labels that were not prepared");
  if (counts_[ordinal] == 0) return Fail(ErrorCode::kNotFound, fmt::format("{}: no labels of it", PathOf(ordinal)));
  ImageLabels labels = ready_[ordinal - first_];
  if (std::all_of(labels.ops.begin(), labels.ops.end(), [](const auto& ops) { return ops.empty(); })) labels.ops.clear();
  return labels;
}

}  // namespace fkdb
