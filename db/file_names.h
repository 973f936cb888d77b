// SPDX-License-Identifier: Apache-2.0
// What the parts of a label file are called. On disk, never change.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "format/result.h"

namespace fkdb {

constexpr const char* kMetaDatabase = "meta";
constexpr const char* kBlocksDatabase = "blocks";
constexpr const char* kNamesDatabase = "names";

// Keys of the meta database. `format` holds "FKDB", the version (u32) and 8 zero bytes: the one
// value whose place and form no version changes. `manifest` holds XXH3-64 of the JSON, then the JSON.
constexpr std::string_view kFormatKey = "format";
constexpr std::string_view kManifestKey = "manifest";
constexpr uint64_t kMaxManifestBytes = 64u << 20;

std::string BuildFormatValue(uint32_t version);
Result<uint32_t> ParseFormatValue(std::span<const std::byte> value);
std::string SealManifest(std::string_view json);
Result<std::string_view> UnsealManifest(std::span<const std::byte> value);

inline std::filesystem::path PartialPath(std::filesystem::path path) { return path += ".partial"; }
// Where a finished file is written anew if much of it is empty, on its way to its final name.
inline std::filesystem::path CompactPath(std::filesystem::path path) { return path += ".partial.compact"; }
inline std::filesystem::path WriterLockPath(std::filesystem::path path) { return path += ".lock"; }
// The recipe of a label set that several processes are making, until it is finished (writer/shards.h).
inline std::filesystem::path JobPath(std::filesystem::path path) { return path += ".job"; }
// What LMDB itself leaves beside a file it opened with locks.
inline std::filesystem::path LmdbLockPath(std::filesystem::path path) { return path += "-lock"; }

}  // namespace fkdb
