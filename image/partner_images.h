// SPDX-License-Identifier: Apache-2.0
// The images that are mixed into others (mixup, cutmix): found by the hashes of their keys, which is how crops name them.
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "format/box.h"
#include "format/result.h"
#include "image/data_set.h"
#include "image/image.h"

namespace fkdb {

// Thread-safe. Keys are hashed when the first partner is asked for.
class PartnerImages {
 public:
  // Borrows `data`.
  explicit PartnerImages(const DataSet& data) : data_(data) {}

  // Only `box` of it is sure to be in `image`, whose memory is used again. Errors: NotFound (no such image), Mismatch (a box
  // that is not inside it: its size has changed), those of DataSet::LoadRegion.
  Result<void> Load(uint64_t key_hash, const PixelBox& box, Image* image) const;

 private:
  const DataSet& data_;
  mutable std::once_flag hashed_;
  mutable std::unordered_map<uint64_t, uint64_t> ordinals_;
};

}  // namespace fkdb
