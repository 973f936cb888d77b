// SPDX-License-Identifier: Apache-2.0
#include "trainer/mixing.h"

#include <ATen/Functions.h>

#include <algorithm>

namespace fkdb {

MixedBatch MixBatch(const BatchMix& mix, const at::Tensor& inputs) {
  const int64_t n = inputs.size(0);
  TORCH_CHECK(static_cast<int64_t>(mix.partners.size()) == n, "a mix of ", mix.partners.size(), " crops for ", n);
  const at::Tensor partners = at::empty({n}, at::kInt);
  std::ranges::copy(mix.partners, partners.data_ptr<int32_t>());
  const at::Tensor there = partners.to(inputs.device()), others = inputs.index_select(0, there);

  MixedBatch mixed;
  if (mix.box.height > 0) {
    mixed.inputs = inputs.clone();
    const auto cut = [&](const at::Tensor& x) { return x.narrow(2, mix.box.top, mix.box.height).narrow(3, mix.box.left, mix.box.width); };
    cut(mixed.inputs).copy_(cut(others));
  } else {
    mixed.inputs = at::lerp(others, inputs, mix.share);
  }
  mixed.rows = {there, at::full({n}, mix.share, inputs.options().dtype(at::kFloat))};
  return mixed;
}

}  // namespace fkdb
