// SPDX-License-Identifier: Apache-2.0
// The decoded regions of a batch's images, on their way to a device that crops them. No Torch in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "format/box.h"
#include "image/image.h"
#include "reader/batch_memory.h"

namespace fkdb {

// They lie in chunks, which are used again: a region's place is known before it is known how many more there will be.
class DecodedRegions {
 public:
  // An image's part: rows of box.width * channels samples, without gaps.
  struct Region {
    size_t at = 0;  // in the chunks, as if these lay one behind the other
    PixelBox box;   // of the image
  };
  static constexpr size_t kChunkBytes = size_t{4} << 20;  // a larger region has a chunk of its own

  explicit DecodedRegions(BatchMemory memory = {}) : memory_(std::move(memory)) {}

  // For a batch of `images` images: forgets those of the last one.
  void Clear(size_t images);
  // Copies what `box` is of an image. One thread an image at a time. Throws std::bad_alloc.
  void Add(size_t image, const Image& pixels, const PixelBox& box);

  // All of them must have been added.
  std::span<const Region> regions() const { return regions_; }
  std::vector<std::span<const std::byte>> chunks() const;
  size_t bytes() const;

 private:
  // Where that many bytes are to go. Sets region.at.
  std::byte* Reserve(size_t bytes, Region* region);

  BatchMemory memory_;
  std::mutex mutex_;
  std::vector<BatchBuffer> chunks_;
  std::vector<size_t> used_;  // bytes of each of the first chunks; the others are free
  size_t full_bytes_ = 0;     // of all chunks in use but the last
  std::vector<Region> regions_;
};

}  // namespace fkdb
