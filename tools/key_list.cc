// SPDX-License-Identifier: Apache-2.0
#include "tools/key_list.h"

#include <fmt/format.h>

#include <fstream>

namespace fkdb {

Result<std::vector<std::string>> ReadKeyList(const std::string& path) {
  std::ifstream in(path);
  if (!in) return Fail(ErrorCode::kNotFound, fmt::format("{}: cannot read the list of images", path));
  std::vector<std::string> keys;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) keys.push_back(std::move(line));
  }
  if (keys.empty()) return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: names no image", path));
  return keys;
}

}  // namespace fkdb
