// SPDX-License-Identifier: Apache-2.0
// The sparse labels of a batch of crops in one contiguous buffer, ready to be copied to a device:
// nothing C wide is built unless the labels themselves are (full, logits).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "format/box.h"
#include "format/label_spec.h"
#include "format/result.h"
#include "reader/reader.h"

namespace fkdb {

// N crops. The arrays lie in one buffer, each 64-byte aligned, in this order; the buffer is reused by
// the next Resize and grows only when N does.
class LabelBatch {
 public:
  // For N = crops of labels of `spec`.
  void Resize(const LabelSpec& spec, size_t crops);

  size_t size() const { return crops_; }
  const LabelSpec& spec() const { return spec_; }
  std::span<float> values() { return {At<float>(values_at_), crops_ * spec_.num_values()}; }        // (N, num_values)
  std::span<uint32_t> indices() { return {At<uint32_t>(indices_at_), crops_ * spec_.num_indices()}; }  // (N, num_indices)
  std::span<PixelBox> boxes() { return {At<PixelBox>(boxes_at_), crops_}; }                         // (N)
  std::span<uint8_t> flips() { return {At<uint8_t>(flips_at_), crops_}; }                           // (N)
  std::span<const float> values() const { return const_cast<LabelBatch*>(this)->values(); }
  std::span<const uint32_t> indices() const { return const_cast<LabelBatch*>(this)->indices(); }
  std::span<const PixelBox> boxes() const { return const_cast<LabelBatch*>(this)->boxes(); }
  std::span<const uint8_t> flips() const { return const_cast<LabelBatch*>(this)->flips(); }

  // The whole buffer.
  std::span<const std::byte> bytes() const { return {buffer_.get(), used_}; }

 private:
  struct AlignedDelete {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  template <class T>
  T* At(size_t offset) {
    return reinterpret_cast<T*>(buffer_.get() + offset);
  }

  LabelSpec spec_;
  size_t crops_ = 0;
  size_t values_at_ = 0, indices_at_ = 0, boxes_at_ = 0, flips_at_ = 0;
  size_t used_ = 0, capacity_ = 0;
  std::unique_ptr<std::byte[], AlignedDelete> buffer_;
};

// One image's share of a batch.
struct CropRequest {
  uint64_t ordinal;
  std::span<const uint32_t> crops;  // which of its stored crops, any order, repeats allowed
};

// Fills `batch` with the requested crops, in request order. Every crop is validated before it is
// handed out. Errors: NotFound (no such ordinal or crop; a skipped image), Corruption; name file
// and image.
Result<void> FillBatch(const Reader& reader, std::span<const CropRequest> requests, LabelBatch* batch);

}  // namespace fkdb
