// SPDX-License-Identifier: Apache-2.0
#include "trainer/discriminator.h"

#include <fmt/format.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <algorithm>

#include "trainer/checkpoint.h"
#include "trainer/optimizer.h"

namespace fkdb {
namespace {

constexpr double kSmallest = 0x1p-24;  // f16's: what a label rounded to 0 may have been

}  // namespace

Result<void> CheckDiscriminator(double rate, const LabelSpec& spec) {
  const auto bad = [](std::string what) { return Fail(ErrorCode::kInvalidArgument, std::move(what)); };
  if (!(rate > 0)) return bad(fmt::format("discriminator's learning rate {}: expected more than 0", rate));
  if (spec.kind == LabelKind::kHard || spec.kind == LabelKind::kMarginalRenorm) {
    return bad(fmt::format("a discriminator needs a probability of every class: labels of kind '{}' give most of them none", Name(spec.kind)));
  }
  return {};
}

Discriminator::Discriminator(uint32_t num_classes, double rate, c10::Device device) {
  const int64_t c = num_classes, second = std::max<int64_t>(8, c / 8), third = std::max<int64_t>(8, c / 64);
  using torch::nn::Linear;
  using torch::nn::ReLU;
  layers_ = torch::nn::Sequential(Linear(c, second), ReLU(), Linear(second, third), ReLU(), Linear(third, 2));
  layers_->to(device);
  optimizer_ = *MakeOptimizer(*layers_, {.name = "sgd", .momentum = 0.9, .weight_decay = 0});
  SetRate(optimizer_.get(), rate);
}

double Discriminator::AddGradient(const torch::Tensor& logits, const torch::Tensor& labels, float weight, torch::Tensor* gradient) {
  const torch::Tensor z = logits.to(torch::kFloat32).detach().requires_grad_();
  const torch::Tensor seen = torch::cat({z, labels.clamp_min(kSmallest).log()});
  const torch::Tensor outputs = layers_->forward(seen - seen.mean(1, /*keepdim=*/true));
  const int64_t n = z.size(0);
  const torch::Tensor targets = torch::zeros_like(outputs);
  targets.narrow(0, 0, n).select(1, 0).fill_(1);
  targets.narrow(0, n, n).select(1, 1).fill_(1);
  const torch::Tensor loss = torch::nn::functional::binary_cross_entropy_with_logits(outputs, targets);
  (loss * weight).backward();
  gradient->add_(z.grad());
  return loss.item<double>();
}

void Discriminator::Step() {
  optimizer_->step();
  optimizer_->zero_grad();
}

void Discriminator::Store(const std::string& prefix, TensorFile* file) const {
  StoreModel(*layers_, prefix + "model.", file);
  StoreOptimizer(*layers_, *optimizer_, prefix + "optimizer.", file);
}

Result<void> Discriminator::Load(const TensorFile& file, const std::string& prefix) {
  FKDB_TRY(LoadModel(file, prefix + "model.", layers_.ptr().get()));
  return LoadOptimizer(file, prefix + "optimizer.", *layers_, optimizer_.get());
}

}  // namespace fkdb
