// SPDX-License-Identifier: Apache-2.0
#include "trainer/models.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "trainer/resnet.h"

namespace fkdb {
namespace {

constexpr std::string_view kSmallPrefix = "resnet6-w";

std::optional<ResNetShape> ShapeOf(std::string_view name) {
  if (name == "resnet18") return ResNetShape{true, 64, {{64, 2, 1}, {128, 2, 2}, {256, 2, 2}, {512, 2, 2}}};
  if (!name.starts_with(kSmallPrefix)) return std::nullopt;
  int64_t width = 0;
  const std::string_view digits = name.substr(kSmallPrefix.size());
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), width);
  if (error != std::errc() || end != digits.data() + digits.size() || width < 1 || width > 1024) return std::nullopt;
  return ResNetShape{false, width, {{2 * width, 1, 2}, {4 * width, 1, 2}}};
}

}  // namespace

bool IsModelName(std::string_view name) { return ShapeOf(name).has_value(); }

std::string ModelNames() { return "resnet18, resnet6-wN (N channels in its first layer, 1 to 1024)"; }

Result<std::shared_ptr<Model>> MakeModel(std::string_view name, int64_t channels, int64_t classes) {
  const auto shape = ShapeOf(name);
  if (!shape) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("model '{}' is not known: expected {}", name, ModelNames()));
  }
  return MakeResNet(*shape, channels, classes);
}

}  // namespace fkdb
