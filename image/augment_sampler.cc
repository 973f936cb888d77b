// SPDX-License-Identifier: Apache-2.0
#include "image/augment_sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include "image/blur.h"
#include "image/trigonometry.h"

namespace fkdb {
namespace {

// Which draws are whose; part of what a seed stands for, never change.
enum class Part : uint64_t { kRandAugment = 0, kJitter = 1, kGrayscale = 2, kBlur = 3, kErase = 4, kMix = 5, kPartnerCrop = 6 };

constexpr uint64_t kTag = 0x0061'7567'6d65'6e74;  // "augment"
constexpr uint32_t kMaxRandAugmentOps = 16, kMagnitudes = 31;

uint64_t SeedOf(uint64_t seed, Part part) {
  const auto words = Philox(seed, static_cast<uint64_t>(part), kTag);
  return words[0] | uint64_t{words[1]} << 32;
}

bool Happens(double probability, CounterRandom* random) { return random->NextUniform(0, 1) < probability; }

// Value `n` of 31 evenly spaced float32 numbers, in the float32 steps of torch.linspace: from the nearer end, by a rounded step.
float Level(float first, float last, uint32_t n) {
  const float step = (last - first) / static_cast<float>(kMagnitudes - 1);
  return n < kMagnitudes / 2 ? static_cast<float>(first + static_cast<double>(step) * n)
                             : static_cast<float>(last - static_cast<double>(step) * (kMagnitudes - 1 - n));
}

CropOp Op(OpKind kind, double value) { return {kind, 0, {static_cast<float>(value)}}; }

std::array<AugmentSampler::Choice, 14> Choices(uint32_t n, uint32_t height, uint32_t width) {
  std::array<AugmentSampler::Choice, 14> choices;  // the first is "identity"
  size_t next = 1;
  const auto add = [&](OpKind kind, double positive, double negative) { choices[next++] = {Op(kind, positive), Op(kind, negative)}; };
  const double slant = Degrees(PortableArcTangent(Level(0, 0.3f, n)));
  add(OpKind::kShearX, slant, -slant);
  add(OpKind::kShearY, slant, -slant);
  const auto far = [&](uint32_t size) { return std::trunc(Level(0, static_cast<float>(150.0 / 331.0 * size), n)); };
  add(OpKind::kTranslateX, far(width), -far(width));
  add(OpKind::kTranslateY, far(height), -far(height));
  const double degrees = Level(0, 30, n), change = Level(0, 0.9f, n);
  add(OpKind::kRotate, degrees, -degrees);
  for (const OpKind kind : {OpKind::kBrightness, OpKind::kSaturation, OpKind::kContrast, OpKind::kSharpness}) add(kind, 1 + change, 1 - change);
  const double bits = 8 - std::nearbyint(n / ((kMagnitudes - 1) / 4.0)), threshold = Level(255, 0, n);
  add(OpKind::kPosterize, bits, bits);
  add(OpKind::kSolarize, threshold, threshold);
  add(OpKind::kAutoContrast, 0, 0);
  add(OpKind::kEqualize, 0, 0);
  return choices;
}

Result<void> Check(const AugmentPolicy& p) {
  const auto fail = [](std::string_view name, auto value, std::string_view expected) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{} {}: expected {}", name, value, expected));
  };
  const auto between = [](double x, double low, double high) { return x >= low && x <= high; };  // false for NaN
  if (p.randaugment_ops > kMaxRandAugmentOps) return fail("randaugment-ops", p.randaugment_ops, fmt::format("0 to {}", kMaxRandAugmentOps));
  if (p.randaugment_magnitude >= kMagnitudes) return fail("randaugment-magnitude", p.randaugment_magnitude, "0 to 30");
  using Named = std::initializer_list<std::pair<std::string_view, double>>;
  for (const auto& [name, value] : Named{{"brightness", p.brightness}, {"contrast", p.contrast}, {"saturation", p.saturation}}) {
    if (!between(value, 0, 100)) return fail(name, value, "0 (off) to 100");
  }
  if (!between(p.hue, 0, 0.5)) return fail("hue", p.hue, "0 (off) to 0.5");
  for (const auto& [name, value] :
       Named{{"jitter-probability", p.jitter_probability}, {"grayscale-probability", p.grayscale_probability},
             {"blur-probability", p.blur_probability}, {"erase-probability", p.erase_probability}, {"mix-probability", p.mix_probability}}) {
    if (!between(value, 0, 1)) return fail(name, value, "0 to 1");
  }
  const auto range = [&](std::string_view name, const std::array<double, 2>& r, double highest) -> Result<void> {
    if (r[0] > 0 && r[0] <= r[1] && r[1] <= highest) return {};
    return fail(name, fmt::format("{},{}", r[0], r[1]), fmt::format("LOW,HIGH with 0 < LOW <= HIGH <= {}", highest));
  };
  FKDB_TRY(range("blur-sigma", p.blur_sigma, kMaxSigma));
  FKDB_TRY(range("erase-area", p.erase_area, 1));
  FKDB_TRY(range("erase-aspect", p.erase_aspect, 1000));
  for (const auto& [name, value] : Named{{"mixup-alpha", p.mixup_alpha}, {"cutmix-alpha", p.cutmix_alpha}}) {
    if (value != 0 && !between(value, 0.01, 100)) return fail(name, value, "0 (off) or 0.01 to 100");
  }
  return {};
}

}  // namespace

Result<AugmentSampler> AugmentSampler::Make(const AugmentPolicy& policy, uint32_t height, uint32_t width) {
  FKDB_TRY(Check(policy));
  AugmentSampler sampler;
  sampler.policy_ = policy;
  sampler.height_ = height;
  sampler.width_ = width;
  sampler.choices_ = Choices(policy.randaugment_magnitude, height, width);
  sampler.log_aspect_ = {PortableLog(policy.erase_aspect[0]), PortableLog(policy.erase_aspect[1])};
  return sampler;
}

AugmentDraw AugmentSampler::Draw(uint64_t seed, uint64_t stream, uint32_t index, uint64_t ordinal, uint64_t num_images) const {
  const auto random_of = [&](Part part) { return CounterRandom(SeedOf(seed, part), stream, index); };
  AugmentDraw draw;
  if (policy_.randaugment_ops > 0) {
    CounterRandom random = random_of(Part::kRandAugment);
    for (uint32_t i = 0; i < policy_.randaugment_ops; ++i) {
      const Choice& choice = choices_[random.NextBelow(choices_.size())];
      const auto& op = random.NextBelow(2) == 0 ? choice.positive : choice.negative;
      if (op) draw.ops.push_back(*op);
    }
  }
  if (policy_.brightness > 0 || policy_.contrast > 0 || policy_.saturation > 0 || policy_.hue > 0) {
    DrawJitter(random_of(Part::kJitter), &draw.ops);
  }
  if (policy_.grayscale_probability > 0) {
    CounterRandom random = random_of(Part::kGrayscale);
    if (Happens(policy_.grayscale_probability, &random)) draw.ops.push_back({OpKind::kGrayscale});
  }
  if (policy_.blur_probability > 0) {
    CounterRandom random = random_of(Part::kBlur);
    if (Happens(policy_.blur_probability, &random)) {
      draw.ops.push_back(Op(OpKind::kBlur, random.NextUniform(policy_.blur_sigma[0], policy_.blur_sigma[1])));
    }
  }
  if (policy_.erase_probability > 0) DrawErase(random_of(Part::kErase), &draw.ops);
  if (policy_.Mixes() && num_images > 1) {
    draw.mix = DrawMix(random_of(Part::kMix), ordinal, num_images);
    if (draw.mix) draw.mix->crop_seed = SeedOf(seed, Part::kPartnerCrop);
  }
  return draw;
}

void AugmentSampler::DrawJitter(CounterRandom random, std::vector<CropOp>* ops) const {
  if (!Happens(policy_.jitter_probability, &random)) return;
  std::array<size_t, 4> order;
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[random.NextBelow(i + 1)]);
  for (const size_t i : order) {
    const OpKind kind = std::array{OpKind::kBrightness, OpKind::kContrast, OpKind::kSaturation, OpKind::kHue}[i];
    const double strength = std::array{policy_.brightness, policy_.contrast, policy_.saturation, policy_.hue}[i];
    if (strength == 0) continue;
    const bool hue = kind == OpKind::kHue;
    ops->push_back(Op(kind, random.NextUniform(hue ? -strength : std::max(0.0, 1 - strength), hue ? strength : 1 + strength)));
  }
}

void AugmentSampler::DrawErase(CounterRandom random, std::vector<CropOp>* ops) const {
  if (!Happens(policy_.erase_probability, &random)) return;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double area = static_cast<double>(height_) * width_ * random.NextUniform(policy_.erase_area[0], policy_.erase_area[1]);
    const double aspect = PortableExp(random.NextUniform(log_aspect_[0], log_aspect_[1]));
    const double h = std::nearbyint(std::sqrt(area * aspect)), w = std::nearbyint(std::sqrt(area / aspect));
    if (h < 1 || w < 1 || h >= height_ || w >= width_) continue;
    const auto top = static_cast<float>(random.NextBelow(height_ - static_cast<uint64_t>(h) + 1));
    const auto left = static_cast<float>(random.NextBelow(width_ - static_cast<uint64_t>(w) + 1));
    ops->push_back({OpKind::kErase, 0, {top, left, static_cast<float>(h), static_cast<float>(w)}});
    return;
  }
}

std::optional<Mix> AugmentSampler::DrawMix(CounterRandom random, uint64_t ordinal, uint64_t num_images) const {
  if (!Happens(policy_.mix_probability, &random)) return std::nullopt;
  const bool both = policy_.mixup_alpha > 0 && policy_.cutmix_alpha > 0;
  const bool cutmix = both ? random.NextBelow(2) == 1 : policy_.cutmix_alpha > 0;
  Mix mix = {cutmix ? OpKind::kCutmix : OpKind::kMixup, random.NextBelow(num_images - 1), 0, {}, 0};
  if (mix.partner >= ordinal) ++mix.partner;
  const double lambda = DrawSymmetricBeta(cutmix ? policy_.cutmix_alpha : policy_.mixup_alpha, &random);
  mix.lambda = static_cast<float>(lambda);
  if (!cutmix) return mix;
  mix.box = DrawCutmixBox(lambda, height_, width_, &random);
  if (mix.box.height == 0) return std::nullopt;
  const double pixels = static_cast<double>(height_) * width_;
  mix.lambda = static_cast<float>((pixels - static_cast<double>(mix.box.height) * mix.box.width) / pixels);
  return mix;
}

void AppendMix(const Mix& mix, uint64_t partner_key_hash, const PixelBox& partner_box, bool partner_flip, std::vector<CropOp>* ops) {
  const auto values = [](const PixelBox& b) {
    return std::array{static_cast<float>(b.top), static_cast<float>(b.left), static_cast<float>(b.height), static_cast<float>(b.width)};
  };
  const auto crop = values(partner_box), box = values(mix.box);
  ops->push_back({OpKind::kPartnerCrop, 0, {crop[0], crop[1], crop[2], crop[3], partner_flip ? 1.0f : 0.0f}});
  if (mix.kind == OpKind::kMixup) {
    ops->push_back({OpKind::kMixup, partner_key_hash, {mix.lambda}});
  } else {
    ops->push_back({OpKind::kCutmix, partner_key_hash, {mix.lambda, box[0], box[1], box[2], box[3]}});
  }
}

PixelBox DrawCutmixBox(double lambda, uint32_t height, uint32_t width, CounterRandom* random) {
  const auto column = static_cast<int64_t>(random->NextBelow(width)), row = static_cast<int64_t>(random->NextBelow(height));
  const double half = 0.5 * std::sqrt(1 - lambda);
  const auto half_width = static_cast<int64_t>(half * width), half_height = static_cast<int64_t>(half * height);
  const int64_t left = std::max<int64_t>(0, column - half_width), right = std::min<int64_t>(width, column + half_width);
  const int64_t top = std::max<int64_t>(0, row - half_height), bottom = std::min<int64_t>(height, row + half_height);
  if (right <= left || bottom <= top) return {};
  const auto pixel = [](int64_t x) { return static_cast<uint32_t>(x); };
  return {pixel(top), pixel(left), pixel(bottom - top), pixel(right - left)};
}

double DrawSymmetricBeta(double alpha, CounterRandom* random) {
  const auto log_uniform = [&] { return PortableLog(1 - random->NextUniform(0, 1)); };  // of a number in (0, 1]
  if (alpha < 1) {
    // Johnk: X / (X + Y) of powers X, Y of uniform numbers whose sum is at most 1; in logarithms, for powers underflow.
    while (true) {
      const double x = log_uniform() / alpha, y = log_uniform() / alpha;
      if (PortableExp(std::max(x, -700.0)) + PortableExp(std::max(y, -700.0)) <= 1) return 1 / (1 + PortableExp(std::clamp(y - x, -700.0, 700.0)));
    }
  }
  // Ulrich: a random direction's cosine, shrunk by sqrt(1 - U^(2 / (2 alpha - 1))), is such a number on [-1, 1].
  double a, b, square;
  do {
    a = random->NextUniform(-1, 1);
    b = random->NextUniform(-1, 1);
    square = a * a + b * b;
  } while (square > 1 || square == 0);
  const double power = PortableExp(std::max(log_uniform() * (2 / (2 * alpha - 1)), -700.0));
  return std::clamp(0.5 * (1 + std::sqrt(std::max(0.0, 1 - power)) * (a / std::sqrt(square))), 0.0, 1.0);
}

}  // namespace fkdb
