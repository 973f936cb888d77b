// SPDX-License-Identifier: Apache-2.0
#include "trainer/models.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <unordered_set>

#include "trainer/mobilenet.h"
#include "trainer/resnet.h"

namespace fkdb {
namespace {

using Make = std::function<std::shared_ptr<Model>(int64_t channels, int64_t classes)>;

struct Named {
  std::string_view name, classifier;
  Make make;
};

Make LargeResNet(bool bottleneck, std::initializer_list<int64_t> blocks) {
  ResNetShape shape = {true, bottleneck, 64, {}};
  int64_t width = 64;
  for (const int64_t n : blocks) {
    shape.stages.push_back({width, n, width == 64 ? 1 : 2});
    width *= 2;
  }
  return [shape](int64_t channels, int64_t classes) { return MakeResNet(shape, channels, classes); };
}

Make MobileNet(double width) {
  return [width](int64_t channels, int64_t classes) { return MakeMobileNetV3Small(width, channels, classes); };
}

const std::vector<Named>& Models() {
  static const std::vector<Named> kModels = {{"resnet18", "fc", LargeResNet(false, {2, 2, 2, 2})},
                                             {"resnet34", "fc", LargeResNet(false, {3, 4, 6, 3})},
                                             {"resnet50", "fc", LargeResNet(true, {3, 4, 6, 3})},
                                             {"resnet101", "fc", LargeResNet(true, {3, 4, 23, 3})},
                                             {"tf_mobilenetv3_small_075", "classifier", MobileNet(0.75)},
                                             {"tf_mobilenetv3_small_100", "classifier", MobileNet(1)}};
  return kModels;
}

constexpr std::string_view kSmallPrefix = "resnet6-w";

// N of "resnet6-wN"; 0 if the name is another.
int64_t SmallWidth(std::string_view name) {
  if (!name.starts_with(kSmallPrefix)) return 0;
  int64_t width = 0;
  const std::string_view digits = name.substr(kSmallPrefix.size());
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), width);
  const bool good = error == std::errc() && end == digits.data() + digits.size() && width >= 1 && width <= 1024;
  return good ? width : 0;
}

const Named* Find(std::string_view name) {
  const auto found = std::find_if(Models().begin(), Models().end(), [&](const Named& model) { return model.name == name; });
  return found == Models().end() ? nullptr : &*found;
}

}  // namespace

bool IsModelName(std::string_view name) { return Find(name) != nullptr || SmallWidth(name) > 0; }

std::string ModelNames() {
  std::string names;
  for (const Named& model : Models()) names += fmt::format("{}, ", model.name);
  return names + "resnet6-wN (N channels in its first layer, 1 to 1024)";
}

Result<std::shared_ptr<Model>> MakeModel(std::string_view name, int64_t channels, int64_t classes) {
  if (const Named* const model = Find(name)) return model->make(channels, classes);
  if (const int64_t width = SmallWidth(name)) {
    return MakeResNet({false, false, width, {{2 * width, 1, 2}, {4 * width, 1, 2}}}, channels, classes);
  }
  return Fail(ErrorCode::kInvalidArgument, fmt::format("model '{}' is not known: expected {}", name, ModelNames()));
}

std::string_view ClassifierOf(std::string_view model_name) {
  if (const Named* const model = Find(model_name)) return model->classifier;
  return SmallWidth(model_name) > 0 ? "fc" : "";
}

std::vector<torch::Tensor> DistinctParameters(const torch::nn::Module& model) {
  std::vector<torch::Tensor> distinct;
  std::unordered_set<const void*> seen;
  for (const torch::Tensor& parameter : model.parameters()) {
    if (seen.insert(parameter.unsafeGetTensorImpl()).second) distinct.push_back(parameter);
  }
  return distinct;
}

}  // namespace fkdb
