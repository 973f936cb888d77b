// SPDX-License-Identifier: Apache-2.0
#include "reader/label_batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

namespace fkdb {

void LabelBatch::Resize(const LabelSpec& spec, size_t crops) {
  spec_ = spec;
  crops_ = crops;
  used_ = 0;
  const auto place = [&](size_t bytes) {
    const size_t at = used_;
    used_ += (bytes + 63) / 64 * 64;
    return at;
  };
  values_at_ = place(crops * spec.num_values() * sizeof(float));
  indices_at_ = place(crops * spec.num_indices() * sizeof(uint32_t));
  boxes_at_ = place(crops * sizeof(PixelBox));
  flips_at_ = place(crops);
  if (used_ > capacity_) {
    buffer_.reset(static_cast<std::byte*>(::operator new[](used_, std::align_val_t{64})));
    capacity_ = used_;
  }
}

Result<void> FillBatch(const Reader& reader, std::span<const CropRequest> requests, LabelBatch* batch) {
  size_t crops = 0;
  for (const CropRequest& request : requests) crops += request.crops.size();
  const LabelSpec& spec = reader.spec();
  batch->Resize(spec, crops);
  uint32_t* indices = batch->indices().data();
  float* values = batch->values().data();
  PixelBox* box = batch->boxes().data();
  uint8_t* flip = batch->flips().data();
  // A random image is two waits for memory, directory and record: both are asked for in advance.
  constexpr size_t kAhead = 8;
  const LabelSet& labels = reader.label_set();
  for (size_t i = 0; i < std::min(2 * kAhead, requests.size()); ++i) labels.PrefetchDirectory(requests[i].ordinal);
  for (size_t i = 0; i < std::min(kAhead, requests.size()); ++i) labels.PrefetchRecord(requests[i].ordinal);
  for (size_t i = 0; i < requests.size(); ++i) {
    const CropRequest& request = requests[i];
    if (i + 2 * kAhead < requests.size()) labels.PrefetchDirectory(requests[i + 2 * kAhead].ordinal);
    if (i + kAhead < requests.size()) labels.PrefetchRecord(requests[i + kAhead].ordinal);
    FKDB_ASSIGN(const RecordView record, reader.Get(request.ordinal));
    if (record.skipped()) {
      return Fail(reader.About(request.ordinal, {ErrorCode::kNotFound, fmt::format("it was skipped when labelled ({})",
                                                                                  record.skip_reason())}));
    }
    for (const uint32_t crop : request.crops) {
      if (crop >= record.num_crops()) {
        return Fail(reader.About(request.ordinal, {ErrorCode::kNotFound, fmt::format("no crop {}: it has {} (counted "
                                                                                    "from 0)",
                                                                                    crop, record.num_crops())}));
      }
      if (auto valid = record.ValidateCrop(crop); !valid) {
        return Fail(reader.About(request.ordinal, std::move(valid).error()));
      }
      if (spec.num_indices() > 0) record.CopyIndices(crop, indices);
      if (spec.num_values() > 0) record.CopyValues(crop, values);
      *box++ = record.pixel_box(crop);
      *flip++ = record.flip(crop);
      indices += spec.num_indices();
      values += spec.num_values();
    }
  }
  return {};
}

}  // namespace fkdb
