// SPDX-License-Identifier: Apache-2.0
// Tables as numpy.savez writes them: an array for each column, R rows long. Keys are text ('U') or bytes ('S').
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "format/result.h"
#include "writer/convert/table.h"

namespace fkdb {

// Plain or compressed; one group. Errors: NotFound, IoError, Corruption.
Result<std::unique_ptr<TableFile>> OpenNpz(const std::filesystem::path& path);
Result<std::unique_ptr<TableFile>> ParseNpz(std::vector<std::byte> bytes);

// Collects all rows in memory, then writes `path`. Errors (of Append): ResourceExhausted (more than memory_bytes).
std::unique_ptr<TableWriter> MakeNpzWriter(const std::filesystem::path& path, uint64_t memory_bytes);

}  // namespace fkdb
