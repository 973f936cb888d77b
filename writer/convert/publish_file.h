// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "format/result.h"

namespace fkdb {

// Writes a file that is whole or not there, whatever interrupts; one of that name is replaced. Errors: IoError,
// ResourceExhausted (disk full).
Result<void> PublishFile(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace fkdb
