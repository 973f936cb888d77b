// SPDX-License-Identifier: Apache-2.0
// Files that say in which order images came: numbers of images (in ImageFolder's order) for each epoch or batch.
//
//   JSON            {"0": [7, 3, ..], "1": [..], ..}
//   torch.save of   {"0": [7, 3, ..]} (or 0 for "0"; a list of lists, or a tensor, for the list), a list of such
//                   lists, or a tensor (epochs, images)
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "format/result.h"

namespace fkdb {

using ImageOrder = std::map<uint64_t, std::vector<uint32_t>>;

// Errors: NotFound, IoError, Corruption, Unsupported, Mismatch (a number not below `images`).
Result<ImageOrder> ReadImageOrder(const std::filesystem::path& path, uint64_t images);

// A whole number as it is usually written, and nothing else.
std::optional<uint64_t> ParseNumber(std::string_view text);

}  // namespace fkdb
