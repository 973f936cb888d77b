// SPDX-License-Identifier: Apache-2.0
#include "trainer/real_labels.h"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "format/text.h"

namespace fkdb {

Result<RealLabels> RealLabels::Read(const std::filesystem::path& path, uint32_t classes) {
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec)) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no such file (expected ImageNet ReaL's real.json)", path.string()));
  }
  std::ifstream file(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file.good() && !file.eof()) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot read it", path.string()));
  const auto bad = [&](const std::string& what) {
    return Fail(ErrorCode::kCorruption,
                fmt::format("{}: {}, expected a list of lists of class indices, as ImageNet ReaL's real.json", path.string(), what));
  };
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) return bad("is not JSON");
  if (!json.is_array()) return bad(fmt::format("is a JSON {}", json.type_name()));
  RealLabels real;
  real.path_ = path;
  for (const auto& entry : json) {
    const size_t n = real.labels_.size();
    if (!entry.is_array()) return bad(fmt::format("entry {} is a {}", n, entry.type_name()));
    std::vector<int32_t>& labels = real.labels_.emplace_back();
    for (const auto& label : entry) {
      if (!label.is_number_integer()) return bad(fmt::format("entry {} has a {} in it", n, label.is_number() ? "fraction" : label.type_name()));
      const bool known = (label.is_number_unsigned() || label.get<int64_t>() >= 0) && label.get<uint64_t>() < classes;
      if (!known) {
        return Fail(ErrorCode::kMismatch,
                    fmt::format("{}: entry {} has class {}, the weights' classes are 0 to {}", path.string(), n, label.dump(), classes - 1));
      }
      labels.push_back(label.get<int32_t>());
    }
  }
  return real;
}

Result<const std::vector<int32_t>*> RealLabels::Of(std::string_view key) const {
  const std::string_view name = key.substr(key.rfind('/') + 1);  // of npos, all of it
  const std::string_view stem = name.substr(0, name.rfind('.'));
  constexpr std::string_view kDigits = "0123456789";
  const size_t last = stem.find_last_of(kDigits);
  const auto bad = [&](const std::string& what) { return Fail(ErrorCode::kMismatch, fmt::format("image '{}': {}", Printable(key), what)); };
  if (last == std::string_view::npos) {
    return bad("no number in its name; ReaL's labels are found by it, as entry 0 by ILSVRC2012_val_00000001.JPEG");
  }
  const std::string_view digits = stem.substr(0, last + 1).substr(stem.substr(0, last + 1).find_last_not_of(kDigits) + 1);
  uint64_t number = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (parsed.ec != std::errc() || number < 1 || number > labels_.size()) {
    return bad(fmt::format("number {} of {} entries in {}: expected 1 to {}", digits, labels_.size(), path_.string(), labels_.size()));
  }
  return &labels_[number - 1];
}

}  // namespace fkdb
