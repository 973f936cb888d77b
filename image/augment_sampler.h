// SPDX-License-Identifier: Apache-2.0
// What else is drawn for a crop beyond its box and flip: RandAugment, colour jitter, grayscale, blur, erasing, mixup or cutmix, in
// this order, by torchvision's rules. The outcome is a list of operations (format/crop_op.h), which image/augment.h does.
//
// Like a crop's box (format/crop_sampler.h) it is a function of (seed, stream, index) alone. Each part P of the policy draws from
// CounterRandom(seed of P, stream, index), where the seed of P is the first two words of Philox(seed, P, "augment"): boxes and
// flips are what they were without augmentation, and a part what it was without the others.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "format/augment_policy.h"
#include "format/box.h"
#include "format/crop_op.h"
#include "format/random.h"
#include "format/result.h"

namespace fkdb {

// A mixup or cutmix before its partner has a name. The partner is cropped, resized and flipped, nothing else.
struct Mix {
  OpKind kind;         // kMixup, kCutmix
  uint64_t partner;    // its ordinal
  float lambda;        // this image's share; of cutmix exactly 1 - the box's share of the pixels
  PixelBox box;        // of cutmix: the pixels that show the partner, at least one
  // The partner's box and flip are CropSampler::Sample(crop_seed, stream, index, ..) for its size, with the stream and index
  // of the crop that is mixed: a crop's own draw, not one of the partner's crops.
  uint64_t crop_seed;
};

struct AugmentDraw {
  std::vector<CropOp> ops;
  std::optional<Mix> mix;  // behind all of ops
};

class AugmentSampler {
 public:
  // For crops of height x width. Errors: InvalidArgument (a number out of its range).
  static Result<AugmentSampler> Make(const AugmentPolicy& policy, uint32_t height, uint32_t width);

  const AugmentPolicy& policy() const { return policy_; }

  // `stream` names the image, `index` the crop, as for CropSampler::Sample; `ordinal` is the image's among `num_images`, any
  // other of which may become the partner. A single image is never mixed.
  AugmentDraw Draw(uint64_t seed, uint64_t stream, uint32_t index, uint64_t ordinal, uint64_t num_images) const;

  // RandAugment's 14 operations at the policy's magnitude, signed ones with the positive sign; no operation for "identity".
  struct Choice {
    std::optional<CropOp> positive, negative;  // the same where there is no sign
  };
  const std::array<Choice, 14>& choices() const { return choices_; }

 private:
  void DrawJitter(CounterRandom random, std::vector<CropOp>* ops) const;
  void DrawErase(CounterRandom random, std::vector<CropOp>* ops) const;
  std::optional<Mix> DrawMix(CounterRandom random, uint64_t ordinal, uint64_t num_images) const;

  AugmentPolicy policy_;
  uint32_t height_ = 0, width_ = 0;
  std::array<Choice, 14> choices_;
  std::array<double, 2> log_aspect_{};
};

// Appends what names the mix in a record: the partner's crop and the mix itself.
void AppendMix(const Mix& mix, uint64_t partner_key_hash, const PixelBox& partner_box, bool partner_flip, std::vector<CropOp>* ops);

// Beta(alpha, alpha), alpha from 0.01 to 100: the same bits on every machine.
double DrawSymmetricBeta(double alpha, CounterRandom* random);
// What CutMix pastes: a box of the crop's shape and 1 - lambda of its area around a pixel, as far as it lies inside; 0 x 0 if that is
// no whole pixel.
PixelBox DrawCutmixBox(double lambda, uint32_t height, uint32_t width, CounterRandom* random);

}  // namespace fkdb
