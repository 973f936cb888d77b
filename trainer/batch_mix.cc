// SPDX-License-Identifier: Apache-2.0
#include "trainer/batch_mix.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "image/augment_sampler.h"

namespace fkdb {

Result<void> CheckMixing(const MixingConfig& c) {
  const auto bad = [](std::string what) { return Fail(ErrorCode::kInvalidArgument, std::move(what)); };
  const auto share = [](double value) { return value >= 0 && value <= 1; };
  for (const double alpha : {c.mixup_alpha, c.cutmix_alpha}) {
    if (alpha != 0 && !(alpha >= 0.01 && alpha <= 100)) return bad(fmt::format("mixup or cutmix {}: expected an alpha of 0.01 to 100, or 0", alpha));
  }
  if (!share(c.probability) || !share(c.switch_probability)) {
    return bad(fmt::format("mix probability {}, mix switch {}: expected 0 to 1", c.probability, c.switch_probability));
  }
  return {};
}

std::optional<BatchMix> DrawBatchMix(const MixingConfig& config, size_t n, uint32_t height, uint32_t width, CounterRandom random) {
  if (config.empty() || random.NextUniform(0, 1) >= config.probability) return std::nullopt;
  const bool both = config.mixup_alpha > 0 && config.cutmix_alpha > 0;
  const bool cutmix = both ? random.NextUniform(0, 1) < config.switch_probability : config.cutmix_alpha > 0;
  BatchMix mix = {{}, DrawSymmetricBeta(cutmix ? config.cutmix_alpha : config.mixup_alpha, &random), {}};
  const uint64_t second = random.NextWord(), first = random.NextWord();
  const Permutation permutation(n, first, second);
  mix.partners.resize(n);
  for (size_t i = 0; i < n; ++i) mix.partners[i] = static_cast<uint32_t>(permutation(i));
  if (cutmix) {
    mix.box = DrawCutmixBox(mix.share, height, width, &random);
    if (mix.box.height == 0) return std::nullopt;
    mix.share = 1 - static_cast<double>(uint64_t{mix.box.height} * mix.box.width) / static_cast<double>(uint64_t{height} * width);
  }
  return mix;
}

void MixInputs(const BatchMix& mix, uint32_t channels, uint32_t height, uint32_t width, std::span<float> inputs) {
  const size_t plane = size_t{height} * width, samples = channels * plane;
  const auto own = static_cast<float>(mix.share), rest = static_cast<float>(1 - mix.share);
  const auto blend = [&](float* to, const float* partner) {
    if (mix.box.height == 0) {
      for (size_t i = 0; i < samples; ++i) to[i] = own * to[i] + rest * partner[i];
      return;
    }
    for (uint32_t c = 0; c < channels; ++c) {
      for (uint32_t y = mix.box.top; y < mix.box.top + mix.box.height; ++y) {
        const size_t row = c * plane + size_t{y} * width + mix.box.left;
        std::copy_n(partner + row, mix.box.width, to + row);
      }
    }
  };
  // Along the permutation's cycles, so that a partner is still what it was: but for the first crop of a cycle, which is kept.
  std::vector<bool> done(mix.partners.size());
  std::vector<float> first;
  for (size_t begin = 0; begin < mix.partners.size(); ++begin) {
    if (done[begin]) continue;
    first.assign(inputs.data() + begin * samples, inputs.data() + (begin + 1) * samples);
    for (size_t n = begin; !done[n]; n = mix.partners[n]) {
      done[n] = true;
      blend(inputs.data() + n * samples, mix.partners[n] == begin ? first.data() : inputs.data() + mix.partners[n] * samples);
    }
  }
}

}  // namespace fkdb
