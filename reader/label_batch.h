// SPDX-License-Identifier: Apache-2.0
// The sparse labels of a batch of crops in one contiguous buffer, ready to be copied to a device:
// nothing C wide is built unless the labels themselves are (full, logits).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "format/box.h"
#include "format/label_spec.h"
#include "format/result.h"
#include "reader/batch_memory.h"
#include "reader/reader.h"

namespace fkdb {

// An image of a batch. Its crops are first_crop .. first_crop + num_crops - 1 of the batch.
struct BatchImage {
  uint64_t ordinal;
  uint32_t width, height;  // in pixels, when it was labelled
  uint32_t first_crop, num_crops;
};

// Labels expanded for the host's arithmetic: of N crops, row-major.
struct LabelArrays {
  std::vector<uint32_t> indices;  // (N, num_indices)
  std::vector<float> values;      // (N, num_values)
};

// N crops of I images. The arrays lie in one buffer, each 64-byte aligned, in this order; the buffer is
// reused by the next Resize and grows only when that needs more. The labels are compact
// (format/compact.h): with K = 5 and `packed` 14 bytes a crop. One that was moved from can only be assigned to.
class LabelBatch {
 public:
  explicit LabelBatch(BatchMemory memory = {}) : buffer_(std::move(memory)) {}

  // For `images` images and `crops` crops with labels of `spec`, without operations.
  void Resize(const LabelSpec& spec, size_t images, size_t crops);

  size_t size() const { return crops_; }
  const LabelSpec& spec() const { return spec_; }
  std::byte* indices() { return buffer_.data() + indices_at_; }                                 // (N, CompactIndexBytes)
  std::byte* values() { return buffer_.data() + values_at_; }                                   // (N, CompactValueBytes)
  std::span<PixelBox> boxes() { return {At<PixelBox>(boxes_at_), crops_}; }                    // (N)
  std::span<uint8_t> flips() { return {At<uint8_t>(flips_at_), crops_}; }                      // (N)
  std::span<BatchImage> images() { return {At<BatchImage>(images_at_), num_images_}; }         // (I)
  const std::byte* indices() const { return const_cast<LabelBatch*>(this)->indices(); }
  const std::byte* values() const { return const_cast<LabelBatch*>(this)->values(); }
  std::span<const PixelBox> boxes() const { return const_cast<LabelBatch*>(this)->boxes(); }
  std::span<const uint8_t> flips() const { return const_cast<LabelBatch*>(this)->flips(); }
  std::span<const BatchImage> images() const { return const_cast<LabelBatch*>(this)->images(); }

  bool has_ops() const { return !op_ends_.empty(); }
  // Crop n's further operations as words (format/crop_op.h); most label sets have none.
  std::span<const uint32_t> ops(size_t n) const {
    if (op_ends_.empty()) return {};
    const size_t first = n > 0 ? op_ends_[n - 1] : 0;
    return std::span(op_words_).subspan(first, op_ends_[n] - first);
  }
  void SetOps(size_t n, std::span<const uint32_t> words);  // n ascending

  // The labels as numbers; `arrays` keeps its memory.
  void Expand(LabelArrays* arrays) const;

  // The whole buffer, operations apart.
  std::span<const std::byte> bytes() const { return {buffer_.data(), buffer_.size()}; }
  // Indices and values alone: the buffer's beginning, all that a device needs that does not crop.
  std::span<const std::byte> label_bytes() const { return {buffer_.data(), boxes_at_}; }

 private:
  template <class T>
  T* At(size_t offset) {
    return reinterpret_cast<T*>(buffer_.data() + offset);
  }

  LabelSpec spec_;
  size_t num_images_ = 0, crops_ = 0;
  size_t indices_at_ = 0, values_at_ = 0, boxes_at_ = 0, flips_at_ = 0, images_at_ = 0;
  BatchBuffer buffer_;
  std::vector<uint32_t> op_ends_;  // (N), or empty where no crop has any
  std::vector<uint32_t> op_words_;
};

// One image's share of a batch.
struct CropRequest {
  uint64_t ordinal;
  std::span<const uint32_t> crops;  // which of its stored crops, any order, repeats allowed
};

// Fills `batch` with the requested crops, in request order, each image's record read once. Every crop
// is validated before it is handed out. Errors: NotFound (no such ordinal or crop; a skipped image),
// Corruption, Unsupported (an operation of a newer version); name file and image.
Result<void> FillBatch(const Reader& reader, std::span<const CropRequest> requests, LabelBatch* batch);

// The same with crops.size() crops of each image, chosen when it is known that there are num_crops:
// `image` counts the ordinals from 0.
using ChooseCrops = std::function<void(size_t image, uint32_t num_crops, std::span<uint32_t> crops)>;
Result<void> FillBatch(const Reader& reader, std::span<const uint64_t> ordinals, uint32_t crops_per_image,
                       const ChooseCrops& choose, LabelBatch* batch);

}  // namespace fkdb
