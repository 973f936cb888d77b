// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "db/share/ordered_work.h"
#include "db/share/share.h"
#include "db/share/share_plan.h"
#include "db/share/share_reader.h"
#include "db/tally.h"
#include "format/text.h"

namespace fkdb {
namespace {

Error Stopped() { return {ErrorCode::kIncomplete, "stopped before everything was verified"}; }

bool IsStopped(const ShareWork& options) { return options.stop && options.stop->load(); }

// SHA-256 of whole files, several at a time. Progress counts bytes.
Result<void> HashShards(const ShareReader& share, const ShareWork& options) {
  struct Piece {
    size_t shard;
    Sha256::Hash sha256;
  };
  const std::vector<ShareShard>& shards = share.manifest().shards;
  std::atomic<uint64_t> hashed = 0;
  size_t next = 0;
  OrderedWork<size_t, Piece> work(
      std::min(options.threads, static_cast<int>(std::max<size_t>(shards.size(), 1))),
      [&]() -> Result<std::optional<size_t>> { return next < shards.size() ? std::optional(next++) : std::nullopt; },
      [&](size_t shard) -> Result<Piece> {
        FKDB_ASSIGN(const ReadFile file, ReadFile::Open(share.PathOf(shard)));
        constexpr uint64_t kStep = 1 << 20;
        Sha256 sha;
        for (uint64_t at = 0; at < shards[shard].bytes; at += kStep) {
          if (IsStopped(options)) return Fail(Stopped());
          FKDB_ASSIGN(const std::vector<std::byte> bytes, file.Read(at, std::min(kStep, shards[shard].bytes - at)));
          sha.Update(bytes);
          hashed += bytes.size();
        }
        return Piece{shard, sha.Finish()};
      });
  for (;;) {
    FKDB_ASSIGN(const std::optional<Piece> piece, work.Next());
    if (!piece) return {};
    if (const std::string found = ToHex(piece->sha256); found != shards[piece->shard].sha256) {
      return Fail(ErrorCode::kCorruption, fmt::format("{}: SHA-256 {}, the manifest says {}", share.PathOf(piece->shard).string(), found,
                                                      shards[piece->shard].sha256));
    }
    if (options.progress) options.progress(hashed, share.manifest().total_bytes);
  }
}

struct Place {
  size_t shard, group;
};

// Runs `check` for each of these groups on several threads. Progress counts groups.
Result<void> ForGroups(const std::vector<Place>& groups, const ShareWork& options, const std::function<Result<void>(const Place&)>& check) {
  size_t next = 0;
  OrderedWork<size_t, size_t> work(
      options.threads, [&]() -> Result<std::optional<size_t>> { return next < groups.size() ? std::optional(next++) : std::nullopt; },
      [&](size_t group) -> Result<size_t> {
        FKDB_TRY(check(groups[group]));
        return group;
      });
  for (;;) {
    if (IsStopped(options)) return Fail(Stopped());
    FKDB_ASSIGN(const std::optional<size_t> group, work.Next());
    if (!group) return {};
    if (options.progress) options.progress(*group + 1, groups.size());
  }
}

struct CheckedGroup {
  Place place;
  std::vector<std::string> keys;
  std::vector<Tally::Image> images;
  std::vector<Sha256::Hash> columns;
};

Result<CheckedGroup> CheckGroup(const ShareReader& share, const Tally& tally, const Place& place, uint32_t crops = kMaxCropsPerImage) {
  CheckedGroup checked = {place, {}, {}, {}};
  FKDB_ASSIGN(ShareReader::Group group, share.ReadHeads(place.shard, place.group, &checked.columns));
  FKDB_TRY(share.ReadLayers(place.shard, place.group, crops, &group.columns, &checked.columns));
  const size_t classes = share.manifest().label_set.data_set.class_names.size();
  for (uint32_t i = 0; i < group.columns.num_images(); ++i) {
    const auto about = [&](const std::string& what) {
      return share.About(place.shard, place.group, {ErrorCode::kCorruption, fmt::format("image '{}': {}", Printable(group.keys[i]), what)});
    };
    const int32_t class_index = group.columns.head(i).class_index;
    if (class_index != kNoClass && static_cast<size_t>(class_index) >= classes) return about(fmt::format("class {} of {}", class_index, classes));
    const auto record = group.columns.Next(Hash64(group.keys[i]));
    if (!record) return about(record.error().message);
    auto image = tally.Check(group.keys[i], *record);
    if (!image) return share.About(place.shard, place.group, {ErrorCode::kCorruption, image.error().message});
    checked.images.push_back(*std::move(image));
  }
  if (auto finished = group.columns.Finish(); !finished) return share.About(place.shard, place.group, finished.error());
  checked.keys = std::move(group.keys);
  return checked;
}

// Decodes everything, and compares what it comes to. Progress counts images.
Result<void> CheckLabels(const ShareReader& share, const std::filesystem::path& folder, const ShareWork& options) {
  const Manifest& claim = share.manifest().label_set;
  const std::vector<ShareShard>& shards = share.manifest().shards;
  Tally tally(claim);
  Sha256 keys, columns;
  std::string last_key;
  uint64_t images = 0;
  Place next = {0, 0};
  OrderedWork<Place, CheckedGroup> work(
      options.threads,
      [&]() -> Result<std::optional<Place>> {
        if (next.shard == shards.size()) return std::optional<Place>();
        const Place place = next;
        if (++next.group == share.index(next.shard).groups.size()) next = {next.shard + 1, 0};
        return std::optional(place);
      },
      [&](const Place& place) { return CheckGroup(share, tally, place); });
  for (;;) {
    if (IsStopped(options)) return Fail(Stopped());
    FKDB_ASSIGN(const std::optional<CheckedGroup> group, work.Next());
    if (!group) break;
    const auto& [shard, number] = group->place;
    if (images > 0 && group->keys.front() <= last_key) {
      return share.About(shard, number, {ErrorCode::kCorruption, fmt::format("image '{}' is not behind the one before", Printable(group->keys.front()))});
    }
    last_key = group->keys.back();
    for (const std::string& key : group->keys) keys.Update(std::string_view(key.c_str(), key.size() + 1));
    for (const Sha256::Hash& hash : group->columns) columns.Update(std::as_bytes(std::span(hash)));
    for (const Tally::Image& image : group->images) tally.Add(image);
    images += group->images.size();
    if (number + 1 == share.index(shard).groups.size()) {
      if (const std::string hash = ToHex(columns.Finish()); hash != shards[shard].columns_sha256) {
        return Fail(ErrorCode::kCorruption, fmt::format("{}: its columns have SHA-256 {}, the manifest says {}", share.PathOf(shard).string(), hash, shards[shard].columns_sha256));
      }
    }
    if (options.progress) options.progress(images, claim.num_images);
  }
  Manifest found = claim;
  tally.Finish(&found);
  const auto wrong = [&](const std::string& what) { return Fail(ErrorCode::kCorruption, fmt::format("{}: {}", folder.string(), what)); };
  if (found.num_images != claim.num_images || found.num_crops != claim.num_crops) {
    return wrong(fmt::format("{} images with {} crops, the manifest says {} with {}", found.num_images, found.num_crops, claim.num_images, claim.num_crops));
  }
  if (found.skipped != claim.skipped) return wrong(fmt::format("{} images were skipped, the manifest lists {}", found.skipped.size(), claim.skipped.size()));
  if (ToHex(keys.Finish()) != claim.data_set.key_list_sha256 || claim.data_set.num_images != images) return wrong("the keys are not those the manifest was made for");
  if (!claim.contents_sha256.empty() && found.contents_sha256 != claim.contents_sha256) {
    return wrong(fmt::format("sizes and files of the images hash to {}, the manifest says {}", found.contents_sha256, claim.contents_sha256));
  }
  if (found.digest != claim.digest) return wrong(fmt::format("digest {}, the manifest says {}", found.digest, claim.digest));
  return {};
}

// What a folder that has a part must have: each chunk with its hash, all of them in their places' groups. Other chunks may be missing.
Result<void> VerifyPart(ShareReader& share, const std::filesystem::path& folder, const VerifyShareOptions& options) {
  FKDB_ASSIGN(const ShareChoice choice, ShareChoice::Make(share.manifest().label_set, folder, *share.manifest().part));
  std::vector<Place> groups;
  for (const size_t shard : choice.Shards(share.manifest())) {
    FKDB_TRY(share.OpenShard(shard));
    for (const size_t group : choice.Groups(share.index(shard))) groups.push_back({shard, group});
  }
  const size_t chunks = 1 + share.rule().LayersFor(choice.crops());
  const Tally tally(share.manifest().label_set);
  FKDB_TRY(ForGroups(groups, options, [&](const Place& place) -> Result<void> {
    for (size_t c = 0; c < chunks && !options.deep; ++c) FKDB_TRY(share.ReadStored(place.shard, place.group, c));
    if (options.deep) FKDB_TRY(CheckGroup(share, tally, place, choice.crops()));
    return {};
  }));
  if (!choice.all_images()) FKDB_TRY(PlanShare(share, folder, choice, options.threads));  // every image that was named is there
  return {};
}

}  // namespace

Result<ShareManifest> VerifyShare(const std::filesystem::path& folder, const VerifyShareOptions& options) {
  FKDB_ASSIGN(ShareReader share, ShareReader::Open(folder, options.trusted));
  if (share.manifest().part) {
    FKDB_TRY(VerifyPart(share, folder, options));
    return share.manifest();
  }
  for (size_t s = 0; s < share.manifest().shards.size(); ++s) FKDB_TRY(share.OpenShard(s));
  FKDB_TRY(HashShards(share, options));
  if (options.deep) FKDB_TRY(CheckLabels(share, folder, options));
  return share.manifest();
}

}  // namespace fkdb
