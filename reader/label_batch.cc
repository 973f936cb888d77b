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

namespace {

// Where the next crop of a batch goes.
struct Cursor {
  uint32_t* indices;
  float* values;
  PixelBox* box;
  uint8_t* flip;
};

Result<void> CopyCrops(const Reader& reader, const CropRequest& request, const RecordView& record, Cursor* to) {
  const auto about = [&](Error error) { return Fail(reader.About(request.ordinal, std::move(error))); };
  if (record.skipped()) {
    return about({ErrorCode::kNotFound, fmt::format("it was skipped when labelled ({})", record.skip_reason())});
  }
  for (const uint32_t crop : request.crops) {
    if (crop >= record.num_crops()) {
      return about({ErrorCode::kNotFound, fmt::format("no crop {}: it has {} (counted from 0)", crop, record.num_crops())});
    }
    if (auto read = record.ReadCrop(crop, to->box, to->indices, to->values); !read) return about(std::move(read).error());
    *to->flip++ = record.flip(crop);
    ++to->box;
    to->indices += record.spec().num_indices();
    to->values += record.spec().num_values();
  }
  return {};
}

}  // namespace

Result<void> FillBatch(const Reader& reader, std::span<const CropRequest> requests, LabelBatch* batch) {
  size_t crops = 0;
  for (const CropRequest& request : requests) crops += request.crops.size();
  batch->Resize(reader.spec(), crops);
  Cursor to = {batch->indices().data(), batch->values().data(), batch->boxes().data(), batch->flips().data()};

  // A random image is a chain of waits for memory: the index, the directory entry, the record. The
  // first two are overlapped over a group of images, the records are asked for some images ahead.
  constexpr size_t kGroup = 64, kAhead = 8;
  const LabelSet& labels = reader.label_set();
  LabelSet::Slot slots[kGroup];
  for (size_t first = 0; first < requests.size(); first += kGroup) {
    const auto group = requests.subspan(first, std::min(kGroup, requests.size() - first));
    for (size_t i = 0; i < group.size(); ++i) {
      if (group[i].ordinal >= labels.num_images()) return Fail(labels.RecordBytes(group[i].ordinal).error());
      slots[i] = labels.SlotOf(group[i].ordinal);
    }
    for (size_t i = 0; i < group.size(); ++i) slots[i].file->PrefetchEntry(slots[i].in_file);
    for (size_t i = 0; i < std::min(kAhead, group.size()); ++i) slots[i].file->PrefetchRecord(slots[i].in_file);
    for (size_t i = 0; i < group.size(); ++i) {
      if (const size_t next = i + kAhead; next < group.size()) slots[next].file->PrefetchRecord(slots[next].in_file);
      FKDB_ASSIGN(const RecordView record, reader.Get(group[i].ordinal, slots[i]));
      FKDB_TRY(CopyCrops(reader, group[i], record, &to));
    }
  }
  return {};
}

}  // namespace fkdb
