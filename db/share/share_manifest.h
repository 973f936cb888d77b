// SPDX-License-Identifier: Apache-2.0
// manifest.json of a shared label set: what it is, who made it, and what every shard must come to; and part.json, which
// says what of it lies in a folder that does not have it all. SHARE_FORMAT.md lists the fields.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "db/manifest.h"
#include "format/result.h"

namespace fkdb {

constexpr uint32_t kShareVersion = 1;
constexpr const char* kShareManifestName = "manifest.json";
constexpr const char* kSharePartName = "part.json";
constexpr uint64_t kMaxShareManifestBytes = 256u << 20;  // of part.json, too

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

// The part of a label set that somebody wants, or has.
struct ShareSelection {
  std::vector<std::string> images;   // keys, any order; empty: all
  uint32_t crops = 0;                // the first so many of each image; 0: all
  std::vector<std::string> classes;  // images of these classes, by name or index; empty: all

  bool all() const { return images.empty() && crops == 0 && classes.empty(); }
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
  std::string accuracy;          // of the teacher
  uint64_t revision = 1;         // grows with each that is published under the name
  std::vector<uint32_t> layers;  // the ends of the layers of crops
  uint64_t total_bytes = 0;      // of all shards
  std::vector<ShareShard> shards;
  Manifest label_set;  // complete: of the label set that was packed
  // Of the folder it was found in; no field of it.
  ShareSignature signature = ShareSignature::kNone;
  std::optional<ShareSelection> part;  // none: all shards are there
};

std::string ToShareText(const ShareManifest& manifest);
// Errors: Corruption (names the field), Unsupported (newer version, another feature).
Result<ShareManifest> ParseShareText(std::string_view text);

std::string ToPartText(const ShareSelection& part);
// Errors: as ParseShareText.
Result<ShareSelection> ParsePartText(std::string_view text);

}  // namespace fkdb
