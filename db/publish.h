// SPDX-License-Identifier: Apache-2.0
// Gives a finished file its final name so that it is there whole or not at all, whatever happens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "format/result.h"

namespace fkdb {

// Whether a label set may be written to `path`: into an existing folder, not over a finished label set
// unless `overwrite`, and not over an interrupted build's `.partial` or `.job` unless either. Errors: NotFound,
// AlreadyExists, InvalidArgument.
Result<void> CheckOutput(const std::filesystem::path& path, bool resume, bool overwrite);

// Cuts `from` to `bytes` (0: leaves its size), syncs it, renames it to `to` and syncs the folder. An existing `to` is
// replaced only if `replace`. Errors: AlreadyExists, IoError, ResourceExhausted.
Result<void> Publish(const std::filesystem::path& from, const std::filesystem::path& to, uint64_t bytes,
                     bool replace);

// A file of this text at `path`, written beside it first. Errors: as Publish.
Result<void> PublishText(const std::filesystem::path& path, std::string_view text, bool replace);

}  // namespace fkdb
