// SPDX-License-Identifier: Apache-2.0
// Internal to db/share/: a shared label set opened to be read; every byte is compared with its hash before it is looked at.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "db/share/chunk.h"
#include "db/share/shard.h"
#include "db/share/share.h"
#include "db/share/share_manifest.h"
#include "format/columns.h"
#include "format/result.h"

namespace fkdb {

// All of a small file. Errors: Corruption (over `most` bytes), those of ReadFile.
Result<std::string> ReadText(const std::filesystem::path& path, uint64_t most);

// A shard's index as the manifest has it. Errors: Corruption.
Result<ShardIndex> ParseIndexOf(const ShareShard& claim, std::span<const std::byte> bytes, size_t layers);

// What the columns of a share of this label set depend on.
ColumnRule RuleOf(const Manifest& label_set, std::vector<uint32_t> layers);

class ShareReader {
 public:
  // The manifest alone.
  static Result<ShareReader> Open(const std::filesystem::path& folder, const TrustedKeys& trusted);
  static ShareReader Of(const std::filesystem::path& folder, ShareManifest manifest);

  const ShareManifest& manifest() const { return manifest_; }
  const ColumnRule& rule() const { return *rule_; }
  std::filesystem::path PathOf(size_t shard) const { return folder_ / manifest_.shards[shard].file; }

  // Opens a shard: its size, its index. Not thread-safe. Errors: NotFound, Corruption, Incomplete (not in this part).
  Result<void> OpenShard(size_t shard);
  const ShardIndex& index(size_t shard) const { return shards_[shard]->index; }

  // A group of an open shard. Thread-safe.
  struct Group {
    std::vector<std::string> keys;
    ColumnReader columns;
  };
  // `hashes`: where the hash of each chunk's columns is appended, or null. Errors: Corruption, Incomplete (not in this part).
  Result<Group> ReadHeads(size_t shard, size_t group, std::vector<Sha256::Hash>* hashes = nullptr) const;
  Result<void> ReadLayers(size_t shard, size_t group, uint32_t crops, ColumnReader* columns, std::vector<Sha256::Hash>* hashes = nullptr) const;

  // The chunk alone, as it is stored.
  Result<std::vector<std::byte>> ReadStored(size_t shard, size_t group, size_t chunk) const;

  // Says where it was.
  tl::unexpected<Error> About(size_t shard, size_t group, const Error& error) const;

 private:
  struct Shard {
    ReadFile file;
    ShardIndex index;
  };
  ShareReader() = default;
  Result<Columns> ReadChunk(size_t shard, size_t group, size_t chunk, std::vector<Sha256::Hash>* hashes) const;

  std::filesystem::path folder_;
  ShareManifest manifest_;
  std::unique_ptr<ColumnRule> rule_;
  std::vector<std::optional<Shard>> shards_;
};

}  // namespace fkdb
