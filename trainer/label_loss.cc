// SPDX-License-Identifier: Apache-2.0
#include "trainer/label_loss.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

namespace fkdb {
namespace {

class LabelLossFunction : public torch::autograd::Function<LabelLossFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& logits,
                               const SparseLabels* labels, double temperature, double tau) {
    // The kernels for other devices are cuda/'s to come: until then labels meet logits on the host.
    const bool bf16 = logits.scalar_type() == torch::kBFloat16;
    const torch::Tensor z = logits.detach().to(torch::kCPU, bf16 ? torch::kBFloat16 : torch::kFloat32).contiguous();
    const int64_t rows = z.size(0);
    torch::Tensor losses = torch::empty({rows}, torch::kFloat32);
    torch::Tensor gradient = torch::empty_like(z);
    LossArguments arguments;
    arguments.temperature = static_cast<float>(temperature);
    arguments.tau = static_cast<float>(tau);
    arguments.gradient_scale = 1.0f / static_cast<float>(rows);
    at::parallel_for(0, rows, /*grain_size=*/16, [&](int64_t begin, int64_t end) {
      if (bf16) {
        SoftCrossEntropyBf16(*labels, begin, end, arguments, static_cast<const uint16_t*>(z.const_data_ptr()),
                             losses.data_ptr<float>(), static_cast<uint16_t*>(gradient.data_ptr()));
      } else {
        SoftCrossEntropy(*labels, begin, end, arguments, z.const_data_ptr<float>(), losses.data_ptr<float>(),
                         gradient.data_ptr<float>());
      }
    });
    context->save_for_backward({gradient.to(logits.options())});
    return losses.mean().to(logits.device());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& outputs) {
    return {context->get_saved_variables()[0] * outputs[0], {}, {}, {}};
  }
};

}  // namespace

at::Tensor LabelLoss(const at::Tensor& logits, const SparseLabels& labels, float temperature, float tau) {
  TORCH_CHECK(logits.dim() == 2 && logits.size(1) == labels.num_classes, "logits of ", logits.sizes(),
              " for labels of ", labels.num_classes, " classes");
  return LabelLossFunction::apply(logits, &labels, double{temperature}, double{tau});
}

}  // namespace fkdb
