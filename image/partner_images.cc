// SPDX-License-Identifier: Apache-2.0
#include "image/partner_images.h"

#include <fmt/format.h>

#include "format/hash.h"
#include "format/text.h"

namespace fkdb {

Result<void> PartnerImages::Load(uint64_t key_hash, const PixelBox& box, Image* image) const {
  std::call_once(hashed_, [&] {
    ordinals_.reserve(data_.size());
    for (uint64_t i = 0; i < data_.size(); ++i) ordinals_.emplace(Hash64(data_.keys()[i]), i);
  });
  const auto found = ordinals_.find(key_hash);
  if (found == ordinals_.end()) {
    return Fail(ErrorCode::kNotFound, fmt::format("the image that is mixed into it, of key hash {:016x}, is not in data set '{}'", key_hash, data_.name()));
  }
  const auto region = [&](uint32_t width, uint32_t height) -> Result<PixelBox> {
    const bool inside = box.height > 0 && box.width > 0 && uint64_t{box.top} + box.height <= height && uint64_t{box.left} + box.width <= width;
    if (inside) return box;
    return Fail(ErrorCode::kMismatch, fmt::format("the image that is mixed into it, '{}', is {} x {} pixels now: its crop [{}, {}, {}, {}] is not inside",
                                                  Printable(data_.keys()[found->second]), width, height, box.top, box.left, box.height, box.width));
  };
  return data_.LoadRegion(found->second, region, image);
}

}  // namespace fkdb
