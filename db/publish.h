// SPDX-License-Identifier: Apache-2.0
// Gives a finished file its final name so that it is there whole or not at all, whatever happens.
#pragma once

#include <cstdint>
#include <filesystem>

#include "format/result.h"

namespace fkdb {

// Cuts `from` to `bytes`, syncs it, renames it to `to` and syncs the folder. An existing `to` is
// replaced only if `replace`. Errors: AlreadyExists, IoError, ResourceExhausted.
Result<void> Publish(const std::filesystem::path& from, const std::filesystem::path& to, uint64_t bytes,
                     bool replace);

}  // namespace fkdb
