// SPDX-License-Identifier: Apache-2.0
#include "image/crop_inputs.h"

#include <utility>

namespace fkdb {

Result<CropInputs> CropInputs::Make(const InputSpec& spec) {
  if (spec.height == 0 || spec.width == 0) {
    return Fail(ErrorCode::kInvalidArgument, "a network's input needs at least one pixel a side");
  }
  FKDB_ASSIGN(Normalizer normalizer, Normalizer::Make(spec.mean, spec.std));
  return CropInputs(spec, std::move(normalizer));
}

CropInputs::CropInputs(const InputSpec& spec, Normalizer normalizer)
    : resizer_(spec.height, spec.width, spec.interpolation, spec.pass_order),
      normalizer_(std::move(normalizer)),
      augmenter_(spec.height, spec.width, normalizer_.channels()),
      samples_(size_t{normalizer_.channels()} * spec.height * spec.width),
      pixels_(samples_) {}

void CropInputs::Run(const Image& image, std::span<const PixelBox> boxes, std::span<const uint8_t> flips, float* out) {
  for (size_t i = 0; i < boxes.size(); ++i) {
    resizer_.Run(image, boxes[i], flips[i], pixels_.data());
    Normalize(pixels_.data(), 1, out + i * samples_);
  }
}

Result<void> CropInputs::Run(const Image& image, const PixelBox& box, bool flip, std::span<const CropOp> ops, const PartnerImages& partners,
                             float* out) {
  FKDB_TRY(Samples(image, box, flip, ops, partners, pixels_.data()));
  Normalize(pixels_.data(), 1, out);
  return {};
}

Result<void> CropInputs::Samples(const Image& image, const PixelBox& box, bool flip, std::span<const CropOp> ops, const PartnerImages& partners,
                                 uint8_t* out) {
  resizer_.Run(image, box, flip, out);
  if (ops.empty()) return {};
  const auto partner = [&](uint64_t key_hash, const PixelBox& shown, bool mirrored, uint8_t* to) -> Result<void> {
    FKDB_TRY(partners.Load(key_hash, shown, &partner_));
    resizer_.Run(partner_, shown, mirrored, to);
    return {};
  };
  return augmenter_.Apply(ops, partner, out);
}

void CropInputs::Normalize(const uint8_t* pixels, size_t count, float* out) const {
  for (size_t i = 0; i < count; ++i) normalizer_.Run(pixels + i * samples_, samples_ / channels(), out + i * samples_);
}

}  // namespace fkdb
