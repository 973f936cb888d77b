// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/folder_order.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <tuple>

namespace fkdb {
namespace {

auto PartsOf(std::string_view key) {
  const size_t slash = key.rfind('/');
  const std::string_view folder = slash == std::string_view::npos ? "" : key.substr(0, slash);
  return std::tuple(folder.substr(0, folder.find('/')), folder, key.substr(slash + 1));
}

}  // namespace

FolderOrder::FolderOrder(std::span<const std::string> keys) : ordinals_(keys.size()), numbers_(keys.size()) {
  std::iota(ordinals_.begin(), ordinals_.end(), 0);
  std::sort(ordinals_.begin(), ordinals_.end(), [&](uint32_t a, uint32_t b) { return PartsOf(keys[a]) < PartsOf(keys[b]); });
  for (uint32_t i = 0; i < ordinals_.size(); ++i) numbers_[ordinals_[i]] = i;
}

}  // namespace fkdb
