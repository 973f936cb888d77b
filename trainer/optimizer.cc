// SPDX-License-Identifier: Apache-2.0
#include "trainer/optimizer.h"

#include <fmt/format.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "trainer/checkpoint.h"
#include "trainer/models.h"

namespace fkdb {
namespace {

using torch::optim::AdamWParamState;
using torch::optim::SGDParamState;

Result<void> Check(const OptimizerConfig& c) {
  const auto bad = [](std::string what) { return Fail(ErrorCode::kInvalidArgument, std::move(what)); };
  const auto share = [](double value) { return value >= 0 && value < 1; };
  if (c.name != "sgd" && c.name != "adamw") return bad(fmt::format("optimizer '{}': expected sgd or adamw", c.name));
  if (!share(c.momentum)) return bad(fmt::format("momentum {}: expected 0 to 1, 1 excluded", c.momentum));
  if (c.nesterov && c.name != "sgd") return bad("Nesterov's way is of sgd");
  if (c.nesterov && c.momentum == 0) return bad("Nesterov's way needs a momentum");
  if (!share(c.beta1) || !share(c.beta2)) return bad(fmt::format("betas {},{}: expected 0 to 1, 1 excluded", c.beta1, c.beta2));
  if (!(c.weight_decay >= 0) || !(c.epsilon >= 0) || !(c.clip_norm >= 0)) {
    return bad(fmt::format("weight decay {}, epsilon {}, clip norm {}: expected 0 or more", c.weight_decay, c.epsilon, c.clip_norm));
  }
  return {};
}

std::unique_ptr<torch::optim::OptimizerOptions> Options(const OptimizerConfig& c, double weight_decay) {
  if (c.name == "adamw") {
    auto options = std::make_unique<torch::optim::AdamWOptions>();
    options->betas({c.beta1, c.beta2}).eps(c.epsilon).weight_decay(weight_decay);
    return options;
  }
  auto options = std::make_unique<torch::optim::SGDOptions>(/*lr=*/0);
  options->momentum(c.momentum).nesterov(c.nesterov).weight_decay(weight_decay);
  return options;
}

}  // namespace

Result<std::unique_ptr<torch::optim::Optimizer>> MakeOptimizer(const torch::nn::Module& model, const OptimizerConfig& config) {
  FKDB_TRY(Check(config));
  std::vector<torch::Tensor> decayed, others;
  std::unordered_set<const void*> named;  // without decay, by their names
  for (const auto& parameter : model.named_parameters()) {
    const std::string last = parameter.key().substr(parameter.key().rfind('.') + 1);
    if (std::ranges::find(config.no_decay, last) != config.no_decay.end()) named.insert(parameter.value().unsafeGetTensorImpl());
  }
  for (const torch::Tensor& parameter : DistinctParameters(model)) {
    if (!parameter.requires_grad()) continue;
    const bool exempt = (!config.decay_vectors && parameter.dim() <= 1) || named.contains(parameter.unsafeGetTensorImpl());
    (exempt ? others : decayed).push_back(parameter);
  }
  std::vector<torch::optim::OptimizerParamGroup> groups;
  if (!decayed.empty()) groups.emplace_back(decayed, Options(config, config.weight_decay));
  if (!others.empty()) groups.emplace_back(others, Options(config, 0));
  if (config.name == "adamw") return std::make_unique<torch::optim::AdamW>(groups);
  return std::make_unique<torch::optim::SGD>(groups, torch::optim::SGDOptions(0));
}

void SetRate(torch::optim::Optimizer* optimizer, double rate) {
  for (auto& group : optimizer->param_groups()) group.options().set_lr(rate);
}

void StoreOptimizer(const torch::nn::Module& model, torch::optim::Optimizer& optimizer, const std::string& prefix, TensorFile* file) {
  for (const auto& p : model.named_parameters()) {
    const auto found = optimizer.state().find(p.value().unsafeGetTensorImpl());
    if (found == optimizer.state().end()) continue;
    if (const auto* sgd = dynamic_cast<const SGDParamState*>(found->second.get())) {
      if (sgd->momentum_buffer().defined()) StoreTensor(sgd->momentum_buffer(), prefix + "momentum." + p.key(), file);
    } else {
      const auto& adamw = static_cast<const AdamWParamState&>(*found->second);
      StoreTensor(adamw.exp_avg(), prefix + "mean." + p.key(), file);
      StoreTensor(adamw.exp_avg_sq(), prefix + "square." + p.key(), file);
      StoreTensor(torch::tensor(adamw.step()), prefix + "step." + p.key(), file);
    }
  }
}

Result<void> LoadOptimizer(const TensorFile& file, const std::string& prefix, const torch::nn::Module& model,
                           torch::optim::Optimizer* optimizer) {
  const bool adamw = dynamic_cast<torch::optim::AdamW*>(optimizer) != nullptr;
  for (const auto& p : model.named_parameters()) {
    const auto load = [&](const char* what, torch::Tensor into) { return LoadTensor(file, prefix + what + p.key(), into); };
    const auto has = [&](const char* what) { return file.tensors.contains(prefix + what + p.key()); };
    auto& state = optimizer->state()[p.value().unsafeGetTensorImpl()];
    if (adamw && has("step.")) {  // a step was taken
      auto loaded = std::make_unique<AdamWParamState>();
      loaded->exp_avg(torch::empty_like(p.value())).exp_avg_sq(torch::empty_like(p.value()));
      torch::Tensor step = torch::zeros({}, torch::kInt64);
      FKDB_TRY(load("mean.", loaded->exp_avg()));
      FKDB_TRY(load("square.", loaded->exp_avg_sq()));
      FKDB_TRY(load("step.", step));
      loaded->step(step.item<int64_t>());
      state = std::move(loaded);
    } else if (!adamw && has("momentum.")) {
      auto loaded = std::make_unique<SGDParamState>();
      loaded->momentum_buffer(torch::empty_like(p.value()));
      FKDB_TRY(load("momentum.", loaded->momentum_buffer()));
      state = std::move(loaded);
    } else {
      optimizer->state().erase(p.value().unsafeGetTensorImpl());
    }
  }
  return {};
}

}  // namespace fkdb
