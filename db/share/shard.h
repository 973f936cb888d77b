// SPDX-License-Identifier: Apache-2.0
// Internal to db/share/: a shard file, `labels-00000.fkp`. SHARE_FORMAT.md is its contract.
//
//   "FKDSHARD", u32 version, u32 zero; the chunks of one group after the other, heads first; the index
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "db/sha256.h"
#include "format/result.h"

namespace fkdb {

constexpr std::string_view kShardMagic = "FKDSHARD";
constexpr uint32_t kShardVersion = 1;
constexpr size_t kShardHeadBytes = 16;
constexpr uint64_t kMinIndexBytes = 20, kMaxIndexBytes = 256u << 20;
constexpr uint64_t kMinChunkBytes = 4;
constexpr uint64_t kMaxShardBytes = uint64_t{1} << 42;
constexpr uint32_t kMaxGroupImages = 65536;
constexpr uint64_t kMaxStoredChunkBytes = 65u << 20;

struct ChunkPlace {
  uint64_t at = 0;
  uint32_t bytes = 0;
  Sha256::Hash sha256{};
};

struct GroupPlace {
  uint32_t images = 0;
  uint64_t crops = 0;
  int32_t lowest_class = 0, highest_class = 0;
  std::string first_key;
  std::vector<ChunkPlace> chunks;  // heads, then a layer each
};

struct ShardIndex {
  std::vector<GroupPlace> groups;
  uint64_t images() const;
  uint64_t crops() const;
};

// In words: "heads", "layer 0", ..
std::string ChunkName(size_t chunk);
// Errors: Corruption (another hash than the index says).
Result<void> CheckChunk(std::span<const std::byte> bytes, const ChunkPlace& place, size_t chunk);
// Whether a chunk is one of a shard that has only others: nothing was written there. A chunk begins with its count of columns, never 0.
bool IsHole(std::span<const std::byte> chunk);

std::string ShardName(size_t number);
bool IsShardName(std::string_view name);  // labels-[0-9]{5,}.fkp

std::vector<std::byte> ShardHead();
std::vector<std::byte> EncodeIndex(const ShardIndex& index);
// Of a shard of `layers` whose index begins at `at`: chunks lie one behind the other and fill it up to there. Errors: Corruption.
Result<ShardIndex> ParseIndex(std::span<const std::byte> bytes, size_t layers, uint64_t at);

// The keys of a group, each as what it shares with the one before (varint), the length of the rest (varint), the rest.
std::vector<uint8_t> EncodeKeys(std::span<const std::string> keys);
// Errors: Corruption (also where keys are not strictly ascending).
Result<std::vector<std::string>> ParseKeys(std::span<const uint8_t> bytes, uint32_t count);

// A file of ours or anybody's, read where one asks. Thread-safe.
class ReadFile {
 public:
  // Errors: NotFound, IoError.
  static Result<ReadFile> Open(const std::filesystem::path& path);
  ~ReadFile();
  ReadFile(ReadFile&& other) noexcept;
  ReadFile& operator=(ReadFile&& other) noexcept;

  uint64_t size() const { return size_; }
  // Errors: Corruption (the file ends before that), IoError.
  Result<std::vector<std::byte>> Read(uint64_t at, uint64_t bytes) const;

 private:
  ReadFile() = default;
  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// A file that is written from front to back, and hashed. Errors: ResourceExhausted (disk full), IoError.
class WriteFile {
 public:
  static Result<WriteFile> Create(const std::filesystem::path& path);
  ~WriteFile();
  WriteFile(WriteFile&& other) noexcept;
  WriteFile& operator=(WriteFile&& other) noexcept;

  Result<void> Append(std::span<const std::byte> bytes);
  uint64_t size() const { return size_; }
  // Closes it. The hash is of everything.
  Result<Sha256::Hash> Finish();

 private:
  WriteFile() = default;
  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t size_ = 0;
  Sha256 sha_;
};

// A file of this size whose places are written in any order. Errors: as WriteFile.
class PatchFile {
 public:
  // Makes it, or one that is there as large as that: what was not written reads as zeros, and takes no room. fresh: without what is there.
  // Errors also: IoError (a link: what it leads to is not ours).
  static Result<PatchFile> Open(const std::filesystem::path& path, uint64_t bytes, bool fresh = false);
  ~PatchFile();
  PatchFile(PatchFile&& other) noexcept;
  PatchFile& operator=(PatchFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  Result<void> Write(uint64_t at, std::span<const std::byte> bytes);
  Result<void> Sync();

 private:
  PatchFile() = default;
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace fkdb
