// SPDX-License-Identifier: Apache-2.0
#include "trainer/label_loss.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>

#include "cuda/gpu_ops.h"
#include "cuda/label_ops.h"
#include "trainer/device.h"

namespace fkdb {
namespace {

template <class Number>
void Compute(const at::Tensor& logits, const SparseLabels& labels, const LossArguments& arguments, float* losses,
             at::Tensor* gradient) {
  const auto* z = static_cast<const Number*>(logits.const_data_ptr());
  auto* g = static_cast<Number*>(gradient->data_ptr());
  const int64_t rows = logits.size(0);
  if (logits.is_cuda()) {
    const c10::DeviceGuard guard(logits.device());
    const auto done = gpu::SoftCrossEntropy(labels, rows, arguments, z, losses, g, CurrentStream(logits.device()));
    TORCH_CHECK(done, done.error().message);
    return;
  }
  at::parallel_for(0, rows, /*grain_size=*/16, [&](int64_t begin, int64_t end) {
    SoftCrossEntropy(labels, begin, end, arguments, z, losses, g);
  });
}

}  // namespace

LossAndGradient LabelLoss(const at::Tensor& logits, const SparseLabels& labels, float temperature, float tau, float weight,
                          const MixedRows* mixed) {
  TORCH_CHECK(logits.dim() == 2 && logits.size(1) == labels.num_classes && logits.is_contiguous(), "logits of ", logits.sizes(),
              " for labels of ", labels.num_classes, " classes");
  const int64_t rows = logits.size(0);
  const at::Tensor losses = at::empty({rows}, logits.options().dtype(at::kFloat));
  LossAndGradient made = {{}, at::empty_like(logits)};
  LossArguments arguments;
  arguments.temperature = temperature;
  arguments.tau = tau;
  arguments.gradient_scale = weight / static_cast<float>(rows);
  if (mixed != nullptr) {
    TORCH_CHECK(mixed->partners.numel() == rows && mixed->lambdas.numel() == rows && mixed->partners.device() == logits.device(), "mixed rows");
    arguments.partners = reinterpret_cast<const uint32_t*>(mixed->partners.const_data_ptr<int32_t>());
    arguments.lambdas = mixed->lambdas.const_data_ptr<float>();
  }
  auto* of_rows = losses.data_ptr<float>();
  switch (logits.scalar_type()) {
    case at::kFloat:
      Compute<float>(logits, labels, arguments, of_rows, &made.gradient);
      break;
    case at::kHalf:
      Compute<Half>(logits, labels, arguments, of_rows, &made.gradient);
      break;
    case at::kBFloat16:
      Compute<Bf16>(logits, labels, arguments, of_rows, &made.gradient);
      break;
    default:
      TORCH_CHECK(false, "logits of ", logits.scalar_type(), ": expected float32, float16 or bfloat16");
  }
  made.loss = losses.mean();
  return made;
}

at::Tensor DenseLabels(const SparseLabels& labels, int64_t rows, float tau, c10::Device device, const MixedRows* mixed) {
  at::Tensor dense = at::empty({rows, static_cast<int64_t>(labels.num_classes)}, at::TensorOptions(device).dtype(at::kFloat));
  if (device.is_cuda()) {
    const c10::DeviceGuard guard(device);
    const auto done = gpu::RecoverDense(labels, rows, tau, dense.data_ptr<float>(), CurrentStream(device));
    TORCH_CHECK(done, done.error().message);
  } else {
    RecoverDense(labels, rows, tau, dense.data_ptr<float>());
  }
  if (mixed == nullptr) return dense;
  return at::lerp(dense.index_select(0, mixed->partners), dense, mixed->lambdas.unsqueeze(1));
}

}  // namespace fkdb
