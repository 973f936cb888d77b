// SPDX-License-Identifier: Apache-2.0
// Weights, of fkdb's trainings or anybody's, loaded once to be tried on validation sets.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/result.h"
#include "image/crop_inputs.h"
#include "image/data_set.h"
#include "trainer/accuracy.h"

namespace fkdb {

struct EvaluatorOptions {
  std::filesystem::path weights;  // safetensors, a state dict of torch.save's, or `model` itself if that is a scripted module
  std::string model;              // a name of model_names.h, or the file of a scripted module; empty: the one that the weights name
  uint32_t channels = 3, height = 224, width = 224;  // of inputs: a scripted module is tried on such
  std::string device = "cpu";
  int num_threads = 0;            // of Torch on the CPU; 0: one a processor
};

struct EvaluatorHooks {
  const std::atomic<bool>* stop = nullptr;
  std::function<void(uint64_t)> progress;  // images done
};

// Not thread-safe.
class Evaluator {
 public:
  // Errors: NotFound, InvalidArgument (no such model or device), Mismatch (the weights do not fit the model), and those of reading.
  static Result<std::unique_ptr<Evaluator>> Load(const EvaluatorOptions& options);
  virtual ~Evaluator() = default;

  const std::string& model() const { return model_name_; }  // a file without its folder
  uint32_t classes() const { return classes_; }
  // Those of the training in its order, if fkdb-train wrote the weights; else empty.
  const std::vector<std::string>& class_names() const { return class_names_; }

  // As Predict of evaluate.h.
  virtual Result<std::optional<std::vector<Top5>>> Run(const DataSet& data, std::span<const uint64_t> images, const InputSpec& input,
                                                       const EvaluationView& view, int workers, const EvaluatorHooks& hooks) = 0;

 protected:
  std::string model_name_;
  uint32_t classes_ = 0;
  std::vector<std::string> class_names_;
};

}  // namespace fkdb
