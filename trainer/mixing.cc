// SPDX-License-Identifier: Apache-2.0
#include "trainer/mixing.h"

#include <ATen/Functions.h>
#include <fmt/format.h>

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

std::optional<MixedBatch> MixBatch(const MixingConfig& config, const at::Tensor& inputs, CounterRandom random) {
  if (config.empty() || random.NextUniform(0, 1) >= config.probability) return std::nullopt;
  const bool both = config.mixup_alpha > 0 && config.cutmix_alpha > 0;
  const bool cutmix = both ? random.NextUniform(0, 1) < config.switch_probability : config.cutmix_alpha > 0;
  double lambda = DrawSymmetricBeta(cutmix ? config.cutmix_alpha : config.mixup_alpha, &random);

  const int64_t n = inputs.size(0);
  const Permutation permutation(static_cast<uint64_t>(n), random.NextWord(), random.NextWord());
  const at::Tensor partners = at::empty({n}, at::kInt);
  for (int64_t i = 0; i < n; ++i) partners.data_ptr<int32_t>()[i] = static_cast<int32_t>(permutation(static_cast<uint64_t>(i)));
  const at::Tensor there = partners.to(inputs.device()), others = inputs.index_select(0, there);

  MixedBatch mixed;
  if (cutmix) {
    const int64_t height = inputs.size(2), width = inputs.size(3);
    const PixelBox box = DrawCutmixBox(lambda, static_cast<uint32_t>(height), static_cast<uint32_t>(width), &random);
    if (box.height == 0) return std::nullopt;
    mixed.inputs = inputs.clone();
    const auto cut = [&](const at::Tensor& x) { return x.narrow(2, box.top, box.height).narrow(3, box.left, box.width); };
    cut(mixed.inputs).copy_(cut(others));
    lambda = 1 - static_cast<double>(int64_t{box.height} * box.width) / static_cast<double>(height * width);
  } else {
    mixed.inputs = at::lerp(others, inputs, lambda);
  }
  mixed.rows = {there, at::full({n}, lambda, inputs.options().dtype(at::kFloat))};
  return mixed;
}

}  // namespace fkdb
