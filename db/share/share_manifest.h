// SPDX-License-Identifier: Apache-2.0
// manifest.json of a shared label set: what it is, who made it, and what every shard must come to. SHARE_FORMAT.md
// lists the fields.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "db/manifest.h"
#include "format/result.h"

namespace fkdb {

constexpr uint32_t kShareVersion = 1;
constexpr const char* kShareManifestName = "manifest.json";
constexpr uint64_t kMaxShareManifestBytes = 256u << 20;

struct ShareShard {
  std::string file;  // labels-00000.fkp: IsShardName
  uint64_t first_image = 0, images = 0, crops = 0;
  std::string first_key, last_key;
  uint64_t bytes = 0;
  std::string sha256;  // hex, of the file
  uint64_t index_at = 0, index_bytes = 0;
  std::string index_sha256;
  std::string columns_sha256;  // of its labels, whatever compressed them
};

// Of a manifest as it was found; not a part of it.
enum class ShareSignature {
  kNone,
  kUnchecked,  // there is one; nobody said whose it should be
  kTrusted,    // by one of the keys that were trusted
};

struct ShareManifest {
  // What people say of it; they can be edited.
  std::string name, licence, authors, notes;
  std::vector<uint32_t> layers;  // the ends of the layers of crops
  uint64_t total_bytes = 0;      // of all shards
  std::vector<ShareShard> shards;
  Manifest label_set;  // complete: of the label set that was packed
  ShareSignature signature = ShareSignature::kNone;
};

std::string ToShareText(const ShareManifest& manifest);
// Errors: Corruption (names the field), Unsupported (newer version, another feature).
Result<ShareManifest> ParseShareText(std::string_view text);

}  // namespace fkdb
