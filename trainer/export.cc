// SPDX-License-Identifier: Apache-2.0
#include "trainer/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "trainer/safetensors.h"
#include "trainer/train.h"

namespace fkdb {
namespace {

constexpr std::string_view kModelPrefix = "model.";  // of a checkpoint's tensors
constexpr std::string_view kAveragePrefix = "average.";  // of the weights: where there is one, it is the student

// The model's part of a checkpoint, as a weights file.
Result<TensorFile> FromCheckpoint(const std::filesystem::path& path, Exported* exported) {
  FKDB_ASSIGN(TensorFile checkpoint, ReadTensorFile(path));
  const auto text = [&](const char* key) {
    const auto found = checkpoint.metadata.find(key);
    return found == checkpoint.metadata.end() ? nlohmann::json() : nlohmann::json::parse(found->second, nullptr, false);
  };
  const auto config = text("config"), position = text("position");
  TensorFile weights;
  const auto& all = checkpoint.tensors;
  const bool averaged = std::any_of(all.begin(), all.end(), [](const auto& tensor) { return tensor.first.starts_with(kAveragePrefix); });
  const std::string_view prefix = averaged ? kAveragePrefix : kModelPrefix;
  for (auto& [name, tensor] : checkpoint.tensors) {
    if (name.starts_with(prefix)) weights.tensors[name.substr(prefix.size())] = std::move(tensor);
  }
  const bool good = config.is_object() && config.contains("model") && config["model"].is_string() && position.is_object() &&
                    position.contains("all_steps") && position["all_steps"].is_number_unsigned() && !weights.tensors.empty();
  if (!good) return Fail(ErrorCode::kCorruption, fmt::format("{}: not a checkpoint of fkdb-train", path.string()));
  weights.metadata["model"] = config["model"].get<std::string>();
  if (const auto names = checkpoint.metadata.find("class_names"); names != checkpoint.metadata.end()) weights.metadata.insert(*names);
  exported->steps = position["all_steps"].get<uint64_t>();
  return weights;
}

}  // namespace

Result<Exported> ExportWeights(const std::filesystem::path& run, const std::filesystem::path& out, const ExportOptions& options) {
  std::error_code ec;
  if (!options.overwrite && std::filesystem::exists(out, ec)) {
    return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: it is there already; --overwrite replaces it", out.string()));
  }
  const auto weights_path = run / kWeightsFile, checkpoint_path = run / kCheckpointFile;
  Exported exported;
  exported.finished = !options.checkpoint && std::filesystem::is_regular_file(weights_path, ec);
  if (!exported.finished && !std::filesystem::is_regular_file(checkpoint_path, ec)) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: neither '{}' nor '{}' is there: expected the folder that fkdb-train --out named", run.string(),
                                                  kWeightsFile, kCheckpointFile));
  }
  FKDB_ASSIGN(const TensorFile weights, exported.finished ? ReadTensorFile(weights_path) : FromCheckpoint(checkpoint_path, &exported));
  if (const auto model = weights.metadata.find("model"); model != weights.metadata.end()) exported.model = model->second;
  for (const auto& [name, tensor] : weights.tensors) {
    uint64_t numbers = 1;
    for (const int64_t side : tensor.shape) numbers *= static_cast<uint64_t>(side);
    exported.numbers += numbers;
  }
  exported.tensors = weights.tensors.size();
  FKDB_TRY(WriteTensorFile(out, weights));
  return exported;
}

}  // namespace fkdb
