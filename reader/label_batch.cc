// SPDX-License-Identifier: Apache-2.0
#include "reader/label_batch.h"

#include <fmt/format.h>

#include <algorithm>

#include "format/bits.h"
#include "format/compact.h"

namespace fkdb {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

void LabelBatch::Resize(const LabelSpec& spec, size_t images, size_t crops) {
  num_images_ = crops_ = 0;  // should there be no memory
  op_ends_.clear();
  op_words_.clear();
  size_t used = 0;
  const auto place = [&](size_t bytes) {
    const size_t at = used;
    used += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  };
  indices_at_ = place(crops * CompactIndexBytes(spec));
  values_at_ = place(crops * CompactValueBytes(spec) + kBitPadding);
  boxes_at_ = place(crops * sizeof(PixelBox));
  flips_at_ = place(crops);
  images_at_ = place(images * sizeof(BatchImage));
  buffer_.Resize(used);
  spec_ = spec;
  num_images_ = images;
  crops_ = crops;
}

void LabelBatch::SetOps(size_t n, std::span<const uint32_t> words) {
  op_ends_.resize(n, static_cast<uint32_t>(op_words_.size()));
  op_words_.insert(op_words_.end(), words.begin(), words.end());
  op_ends_.resize(crops_, static_cast<uint32_t>(op_words_.size()));
}

void LabelBatch::Expand(LabelArrays* arrays) const {
  arrays->indices.resize(crops_ * spec_.num_indices());
  arrays->values.resize(crops_ * spec_.num_values());
  ExpandIndices(spec_, indices(), crops_, arrays->indices.data());
  ExpandValues(spec_, values(), crops_, arrays->values.data());
}

namespace {

// Where the next image and the next crop of a batch go.
struct Cursor {
  explicit Cursor(LabelBatch* batch)
      : to(batch), index_bytes(CompactIndexBytes(batch->spec())), value_bytes(CompactValueBytes(batch->spec())) {}

  LabelBatch* to;
  const size_t index_bytes, value_bytes;
  size_t image = 0, crop = 0;
};

Result<void> CopyCrops(const Reader& reader, uint64_t ordinal, const RecordView& record, std::span<const uint32_t> crops,
                       Cursor* at) {
  at->to->images()[at->image++] = {ordinal, record.width(), record.height(), static_cast<uint32_t>(at->crop),
                                   static_cast<uint32_t>(crops.size())};
  for (const uint32_t crop : crops) {
    if (crop >= record.num_crops()) {
      return Fail(reader.About(ordinal, {ErrorCode::kNotFound, fmt::format("no crop {}: it has {} (counted from 0)", crop,
                                                                           record.num_crops())}));
    }
    const size_t n = at->crop++;
    auto read = record.ReadCompactCrop(crop, &at->to->boxes()[n], at->to->indices() + n * at->index_bytes,
                                       at->to->values() + n * at->value_bytes);
    if (!read) return Fail(reader.About(ordinal, std::move(read).error()));
    at->to->flips()[n] = record.flip(crop);
    if (record.has_ops()) at->to->SetOps(n, record.op_words(crop));
  }
  return {};
}

// ordinal(i): of image i. crops(i, record): those to take of it.
template <class Ordinal, class Crops>
Result<void> Fill(const Reader& reader, size_t images, const Ordinal& ordinal, const Crops& crops, LabelBatch* batch) {
  // A random image is a chain of waits for memory: the index, the directory entry, the record. The
  // first two are overlapped over a group of images, the records are asked for some images ahead.
  constexpr size_t kGroup = 64, kAhead = 8;
  const LabelSet& labels = reader.label_set();
  LabelSet::Slot slots[kGroup];
  Cursor at(batch);
  for (size_t first = 0; first < images; first += kGroup) {
    const size_t group = std::min(kGroup, images - first);
    for (size_t i = 0; i < group; ++i) {
      const uint64_t wanted = ordinal(first + i);
      if (wanted >= labels.num_images()) return Fail(labels.RecordBytes(wanted).error());
      slots[i] = labels.SlotOf(wanted);
    }
    for (size_t i = 0; i < group; ++i) slots[i].file->PrefetchEntry(slots[i].in_file);
    for (size_t i = 0; i < std::min(kAhead, group); ++i) slots[i].file->PrefetchRecord(slots[i].in_file);
    for (size_t i = 0; i < group; ++i) {
      if (const size_t next = i + kAhead; next < group) slots[next].file->PrefetchRecord(slots[next].in_file);
      const uint64_t wanted = ordinal(first + i);
      FKDB_ASSIGN(const RecordView record, reader.Get(wanted, slots[i]));
      if (record.skipped()) {
        return Fail(reader.About(wanted, {ErrorCode::kNotFound,
                                          fmt::format("it was skipped when labelled ({})", record.skip_reason())}));
      }
      FKDB_TRY(CopyCrops(reader, wanted, record, crops(first + i, record), &at));
    }
  }
  return {};
}

}  // namespace

Result<void> FillBatch(const Reader& reader, std::span<const CropRequest> requests, LabelBatch* batch) {
  size_t crops = 0;
  for (const CropRequest& request : requests) crops += request.crops.size();
  batch->Resize(reader.spec(), requests.size(), crops);
  return Fill(reader, requests.size(), [&](size_t i) { return requests[i].ordinal; },
              [&](size_t i, const RecordView&) { return requests[i].crops; }, batch);
}

Result<void> FillBatch(const Reader& reader, std::span<const uint64_t> ordinals, uint32_t crops_per_image,
                       const ChooseCrops& choose, LabelBatch* batch) {
  batch->Resize(reader.spec(), ordinals.size(), ordinals.size() * crops_per_image);
  thread_local std::vector<uint32_t> chosen;  // a batch allocates nothing
  chosen.resize(crops_per_image);
  const auto crops = [&](size_t i, const RecordView& record) -> std::span<const uint32_t> {
    choose(i, record.num_crops(), chosen);
    return chosen;
  };
  return Fill(reader, ordinals.size(), [&](size_t i) { return ordinals[i]; }, crops, batch);
}

}  // namespace fkdb
