// SPDX-License-Identifier: Apache-2.0
#include "trainer/decoded_regions.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace fkdb {

void DecodedRegions::Clear(size_t images) {
  regions_.assign(images, {});
  used_.clear();
  full_bytes_ = 0;
}

void DecodedRegions::Add(size_t image, const Image& pixels, const PixelBox& box) {
  Region& region = regions_[image];
  region.box = box;
  const size_t row = size_t{box.width} * pixels.channels;
  std::byte* to = Reserve(row * box.height, &region);
  for (uint32_t y = 0; y < box.height; ++y, to += row) {
    std::memcpy(to, pixels.row(box.top + y) + size_t{box.left} * pixels.channels, row);
  }
}

std::byte* DecodedRegions::Reserve(size_t bytes, Region* region) {
  const std::lock_guard lock(mutex_);
  if (used_.empty() || chunks_[used_.size() - 1].size() - used_.back() < bytes) {
    // Of the free chunks the smallest that will do, so that the large ones stay for large regions.
    const auto free = chunks_.begin() + static_cast<ptrdiff_t>(used_.size());
    auto best = chunks_.end();
    for (auto chunk = free; chunk != chunks_.end(); ++chunk) {
      if (chunk->size() >= bytes && (best == chunks_.end() || chunk->size() < best->size())) best = chunk;
    }
    if (best == chunks_.end()) {
      BatchBuffer chunk(memory_);
      chunk.Resize(std::max(bytes, kChunkBytes));
      chunks_.push_back(std::move(chunk));
      best = chunks_.end() - 1;
    }
    std::swap(*best, chunks_[used_.size()]);
    if (!used_.empty()) full_bytes_ += used_.back();
    used_.push_back(0);
  }
  region->at = full_bytes_ + used_.back();
  std::byte* const place = chunks_[used_.size() - 1].data() + used_.back();
  used_.back() += bytes;
  return place;
}

std::vector<std::span<const std::byte>> DecodedRegions::chunks() const {
  std::vector<std::span<const std::byte>> chunks;
  for (size_t i = 0; i < used_.size(); ++i) chunks.emplace_back(chunks_[i].data(), used_[i]);
  return chunks;
}

size_t DecodedRegions::bytes() const { return used_.empty() ? 0 : full_bytes_ + used_.back(); }

}  // namespace fkdb
