// SPDX-License-Identifier: Apache-2.0
#include "trainer/class_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>
#include <optional>

#include "format/text.h"

namespace fkdb {
namespace {

// -1: not a number below `classes`.
int32_t ClassNumber(const std::string& name, uint32_t classes) {
  uint32_t number = 0;
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data(), end, number);
  return error == std::errc() && stop == end && number < classes ? static_cast<int32_t>(number) : -1;
}

// None unless all of them are known.
std::optional<std::vector<int32_t>> ByName(std::span<const std::string> names, std::span<const std::string> trained) {
  std::map<std::string_view, int32_t> known;
  for (const std::string& name : trained) known.emplace(name, static_cast<int32_t>(known.size()));
  std::vector<int32_t> classes;
  for (const std::string& name : names) {
    const auto found = known.find(name);
    if (found == known.end()) return std::nullopt;
    classes.push_back(found->second);
  }
  return classes;
}

}  // namespace

Result<ClassOrder> ParseClassOrder(std::string_view name) {
  if (name == "auto") return ClassOrder::kAuto;
  if (name == "text") return ClassOrder::kText;
  if (name == "number") return ClassOrder::kNumber;
  return Fail(ErrorCode::kInvalidArgument, fmt::format("class order '{}' is not known: expected auto, text or number", name));
}

Result<std::vector<int32_t>> ModelClasses(const DataSet& data, uint32_t classes, std::span<const std::string> trained, ClassOrder order) {
  const std::vector<std::string>& names = data.class_names();
  if (order == ClassOrder::kAuto) {
    if (auto named = ByName(names, trained)) return std::move(*named);
  }
  std::vector<int32_t> numbers(names.size());
  std::ranges::transform(names, numbers.begin(), [&](const std::string& name) { return ClassNumber(name, classes); });
  if (order == ClassOrder::kNumber) {
    const auto bad = std::ranges::find(numbers, -1);
    if (bad == numbers.end()) return numbers;
    return Fail(ErrorCode::kMismatch, fmt::format("class '{}' of '{}': expected the number of a class, 0 to {}",
                                                  Printable(names[static_cast<size_t>(bad - numbers.begin())]), Printable(data.name()), classes - 1));
  }
  std::vector<int32_t> places(names.size());
  std::iota(places.begin(), places.end(), 0);
  // IDX and .cls files number their classes themselves, and the last ones may be missing.
  const bool numbered = data.layout() != "folder" && numbers == places;
  if (names.size() != classes && !numbered) {
    return Fail(ErrorCode::kMismatch, fmt::format("'{}' has {} classes, the weights have {}: expected folders of all classes; of a part that are "
                                                  "named by number, --class-order number", Printable(data.name()), names.size(), classes));
  }
  std::vector<int32_t> sorted = numbers;
  std::ranges::sort(sorted);
  return order == ClassOrder::kAuto && sorted == places ? numbers : places;
}

}  // namespace fkdb
