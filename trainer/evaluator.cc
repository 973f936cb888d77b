// SPDX-License-Identifier: Apache-2.0
#include "trainer/evaluator.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <nlohmann/json.hpp>

#include "trainer/device.h"
#include "trainer/evaluate.h"
#include "trainer/initial_weights.h"
#include "trainer/student.h"

namespace fkdb {
namespace {

class TorchEvaluator : public Evaluator {
 public:
  Result<void> Load(const EvaluatorOptions& options) {
    if (options.num_threads > 0) at::set_num_threads(options.num_threads);
    FKDB_ASSIGN(device_, ParseDevice(options.device));
    FKDB_TRY(IsScriptFile(options.model) ? LoadScripted(options) : LoadNamed(options));
    model_->to(device_);
    model_->eval();
    return {};
  }

  Result<std::optional<std::vector<Top5>>> Run(const DataSet& data, std::span<const uint64_t> images, const InputSpec& input,
                                               const EvaluationView& view, int workers, const EvaluatorHooks& hooks) override {
    return Predict(*model_, data, images, input, view, device_, workers, {hooks.stop, hooks.progress});
  }

 private:
  Result<void> LoadScripted(const EvaluatorOptions& options) {
    std::error_code ec;
    const bool own = std::filesystem::equivalent(options.model, options.weights, ec);
    FKDB_ASSIGN(const Student student, MakeStudent({options.model, own ? std::filesystem::path() : options.weights, false},
                                                   {options.channels, options.height, options.width, 0}));
    model_ = student.model;
    model_name_ = student.name;
    model_->eval();
    const torch::NoGradGuard no_grad;
    classes_ = static_cast<uint32_t>(model_->forward(torch::zeros({1, options.channels, options.height, options.width})).size(1));
    if (own) return {};
    FKDB_ASSIGN(const TensorFile file, ReadWeights(options.weights));
    TakeClassNames(file);
    return {};
  }

  Result<void> LoadNamed(const EvaluatorOptions& options) {
    if (!options.model.empty() && !IsModelName(options.model)) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("model '{}' is not known: expected {}, or FILE.pt", options.model, ModelNames()));
    }
    FKDB_ASSIGN(const TensorFile file, ReadWeights(options.weights));
    model_name_ = options.model;
    if (model_name_.empty()) {
      const auto said = file.metadata.find("model");
      if (said == file.metadata.end() || !IsModelName(said->second)) {
        return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: does not say which network's weights it holds: --model is one of {}, or FILE.pt",
                                                             options.weights.string(), ModelNames()));
      }
      model_name_ = said->second;
    }
    const std::string last = std::string(ClassifierOf(model_name_)) + ".weight";
    const auto classifier = file.tensors.find(last);
    if (classifier == file.tensors.end() || classifier->second.shape.empty() || classifier->second.shape[0] < 1) {
      return Fail(ErrorCode::kMismatch, fmt::format("{}: not weights of {}: tensor '{}' is missing", options.weights.string(), model_name_, last));
    }
    classes_ = static_cast<uint32_t>(classifier->second.shape[0]);
    const ModelShape shape = {options.channels, options.height, options.width, classes_};
    FKDB_ASSIGN(const Student student, MakeStudent({model_name_, options.weights, false}, shape));
    model_ = student.model;
    TakeClassNames(file);
    return {};
  }

  void TakeClassNames(const TensorFile& file) {
    const auto found = file.metadata.find("class_names");
    if (found == file.metadata.end()) return;
    const auto names = nlohmann::json::parse(found->second, nullptr, false);
    if (!names.is_array() || names.size() != classes_) return;
    for (const auto& name : names) {
      if (!name.is_string()) return class_names_.clear();
      class_names_.push_back(name.get<std::string>());
    }
  }

  std::shared_ptr<Model> model_;
  c10::Device device_ = torch::kCPU;
};

}  // namespace

Result<std::unique_ptr<Evaluator>> Evaluator::Load(const EvaluatorOptions& options) {
  auto evaluator = std::make_unique<TorchEvaluator>();
  FKDB_TRY(evaluator->Load(options));
  return evaluator;
}

}  // namespace fkdb
