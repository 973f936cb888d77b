// SPDX-License-Identifier: Apache-2.0
// Files that are read, or written, in one piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "format/result.h"

namespace fkdb {

// All bytes of a file; their memory is used again. Errors: NotFound, IoError, ResourceExhausted (more than `limit`).
Result<void> ReadWholeFile(const std::filesystem::path& path, uint64_t limit, std::vector<std::byte>* bytes);

// Writes a file that is whole or not there, whatever interrupts; one of that name is replaced. Errors: IoError,
// ResourceExhausted (disk full).
Result<void> PublishFile(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace fkdb
