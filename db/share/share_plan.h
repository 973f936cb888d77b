// SPDX-License-Identifier: Apache-2.0
// Internal to db/share/: what of a share a selection needs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "db/manifest.h"
#include "db/share/shard.h"
#include "db/share/share_manifest.h"
#include "db/share/share_reader.h"
#include "db/write_images.h"
#include "format/result.h"

namespace fkdb {

// A selection in the terms of a share, before anything but its manifest is known.
class ShareChoice {
 public:
  // folder: for messages. Errors: NotFound (a class), InvalidArgument (an image named twice; crops of label maps).
  static Result<ShareChoice> Make(const Manifest& label_set, const std::filesystem::path& folder, const ShareSelection& selection);

  bool all_images() const { return keys_.empty() && classes_.empty(); }
  uint32_t crops() const { return crops_; }  // kMaxCropsPerImage: all
  const std::vector<std::string>& keys() const { return keys_; }

  // What may hold something of it: shards, by number; groups of a shard.
  std::vector<size_t> Shards(const ShareManifest& manifest) const;
  std::vector<size_t> Groups(const ShardIndex& index) const;
  bool Has(const std::string& key, int32_t class_index) const;

 private:
  // Whether an image of keys [first, behind) can be wanted; a null `behind` is the end.
  bool MayHave(const std::string& first, const std::string* behind) const;
  bool MayHave(int32_t lowest, int32_t highest) const;

  std::vector<std::string> keys_;  // sorted; empty: all
  std::vector<bool> classes_;      // empty: all
  uint32_t crops_ = kMaxCropsPerImage;
};

// What is wanted of a group.
struct GroupPart {
  size_t shard, group;
  std::vector<uint32_t> images;  // in it, ascending
};

// The images that are wanted, and the groups they lie in.
struct SharePlan {
  std::vector<GroupPart> parts;
  std::vector<SourceImage> images;  // `set`: of parts; `ordinal`: of the part's images
};

// Reads the heads of groups that may hold something of it. Errors: NotFound (an image; nothing of the classes), those of ShareReader.
Result<SharePlan> PlanShare(ShareReader& share, const std::filesystem::path& folder, const ShareChoice& choice, int threads);

}  // namespace fkdb
