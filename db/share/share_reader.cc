// SPDX-License-Identifier: Apache-2.0
#include "db/share/share_reader.h"

#include <fmt/format.h>

#include <algorithm>

#include "db/file_names.h"
#include "db/lock_file.h"
#include "db/publish.h"
#include "db/share/share.h"
#include "db/share/signature.h"
#include "format/text.h"

namespace fkdb {
namespace {

constexpr size_t kPadding = 64;  // what ColumnReader adds to a column without moving it

Error NotInPart(const std::string& where) {
  return {ErrorCode::kIncomplete, fmt::format("{}: is not here, this folder has a part of the label set; fetch more into it", where)};
}

// What the folder has of a file that need not be there.
Result<std::optional<std::string>> ReadIfThere(const std::filesystem::path& path, uint64_t most) {
  auto text = ReadText(path, most);
  if (!text && text.error().code == ErrorCode::kNotFound) return std::optional<std::string>();
  if (!text) return Fail(text.error());
  return std::optional(*std::move(text));
}

Result<std::string> ReadManifestText(const std::filesystem::path& folder) {
  auto text = ReadText(folder / kShareManifestName, kMaxShareManifestBytes);
  if (!text && text.error().code == ErrorCode::kNotFound) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no shared label set there: it has no {}", folder.string(), kShareManifestName));
  }
  return text;
}

// Nothing of the manifest is looked at before.
Result<ShareSignature> CheckSignature(const std::string& where, std::string_view text, const std::optional<std::string>& signature, const TrustedKeys& trusted) {
  if (trusted.empty()) return signature ? ShareSignature::kUnchecked : ShareSignature::kNone;
  if (!signature) return Fail(ErrorCode::kCorruption, fmt::format("{}: its manifest is not signed (no {}): nobody whom you trust vouches for it", where, kSignatureName));
  for (const auto& key : trusted) {
    FKDB_ASSIGN(const bool by_it, IsSignatureOf(*signature, text, key));
    if (by_it) return ShareSignature::kTrusted;
  }
  return Fail(ErrorCode::kCorruption, fmt::format("{}/{}: no signature of this {} by {}: it was changed, or somebody else signed it", where, kSignatureName,
                                                  kShareManifestName, trusted.size() == 1 ? trusted[0].string() : "a key that you trust"));
}

}  // namespace

ColumnRule RuleOf(const Manifest& label_set, std::vector<uint32_t> layers) {
  const AugmentationInfo& a = label_set.augmentation;
  ColumnRule rule;
  rule.spec = label_set.spec;
  if (auto sampler = CropSampler::Make({a.scale, a.ratio, a.flip_probability})) rule.sampler = *std::move(sampler);
  rule.seed = a.seed;
  if (rule.sampler) rule.ratio = a.ratio;
  rule.layer_ends = std::move(layers);
  return rule;
}

Result<std::string> ReadText(const std::filesystem::path& path, uint64_t most) {
  FKDB_ASSIGN(const ReadFile file, ReadFile::Open(path));
  if (file.size() > most) return Fail(ErrorCode::kCorruption, fmt::format("{}: {} bytes, at most {}", path.string(), file.size(), most));
  FKDB_ASSIGN(const std::vector<std::byte> bytes, file.Read(0, file.size()));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<ShareManifest> CheckShareText(const std::string& where, std::string_view text, const std::optional<std::string>& signature, const TrustedKeys& trusted) {
  FKDB_ASSIGN(const ShareSignature signed_by, CheckSignature(where, text, signature, trusted));
  auto manifest = ParseShareText(text);
  if (!manifest) return Fail(manifest.error().code, fmt::format("{}/{}: {}", where, kShareManifestName, manifest.error().message));
  manifest->signature = signed_by;
  return manifest;
}

Result<ShareManifest> ReadShareManifest(const std::filesystem::path& folder, const TrustedKeys& trusted) {
  FKDB_ASSIGN(const std::string text, ReadManifestText(folder));
  FKDB_ASSIGN(const auto signature, ReadIfThere(folder / kSignatureName, kSignatureBytes));
  FKDB_ASSIGN(ShareManifest manifest, CheckShareText(folder.string(), text, signature, trusted));
  FKDB_ASSIGN(const auto part_text, ReadIfThere(folder / kSharePartName, kMaxShareManifestBytes));
  if (part_text) {
    auto part = ParsePartText(*part_text);
    if (!part) return Fail(part.error().code, fmt::format("{}: {}", (folder / kSharePartName).string(), part.error().message));
    if (!part->all()) manifest.part = *std::move(part);
  }
  return manifest;
}

Result<ShareManifest> SignShare(const std::filesystem::path& folder, const std::filesystem::path& private_key) {
  const auto path = folder / kShareManifestName;
  FKDB_ASSIGN(const std::string text, ReadManifestText(folder));
  auto manifest = ParseShareText(text);  // what is no manifest is not signed
  if (!manifest) return Fail(manifest.error().code, fmt::format("{}: {}", path.string(), manifest.error().message));
  FKDB_ASSIGN(const std::string signature, SignText(text, private_key));
  FKDB_ASSIGN(const LockFile lock, LockFile::Acquire(WriterLockPath(path)));
  FKDB_TRY(PublishText(folder / kSignatureName, signature, /*replace=*/true));
  manifest->signature = ShareSignature::kUnchecked;
  return manifest;
}

Result<ShardIndex> ParseIndexOf(const ShareShard& claim, std::span<const std::byte> bytes, size_t layers) {
  const auto corrupt = [](const std::string& what) { return Fail(ErrorCode::kCorruption, what); };
  if (const std::string hash = ToHex(Sha256::Of(bytes)); hash != claim.index_sha256) {
    return corrupt(fmt::format("its index has SHA-256 {}, the manifest says {}", hash, claim.index_sha256));
  }
  FKDB_ASSIGN(ShardIndex index, ParseIndex(bytes, layers, claim.index_at));
  if (index.images() != claim.images || index.crops() != claim.crops) {
    return corrupt(fmt::format("{} images with {} crops, the manifest says {} with {}", index.images(), index.crops(), claim.images, claim.crops));
  }
  if (index.groups[0].first_key != claim.first_key) {
    return corrupt(fmt::format("its first image is '{}', the manifest says '{}'", Printable(index.groups[0].first_key), Printable(claim.first_key)));
  }
  return index;
}

Result<ShareReader> ShareReader::Open(const std::filesystem::path& folder, const TrustedKeys& trusted) {
  FKDB_ASSIGN(ShareManifest manifest, ReadShareManifest(folder, trusted));
  return Of(folder, std::move(manifest));
}

ShareReader ShareReader::Of(const std::filesystem::path& folder, ShareManifest manifest) {
  ShareReader reader;
  reader.folder_ = folder;
  reader.manifest_ = std::move(manifest);
  reader.rule_ = std::make_unique<ColumnRule>(RuleOf(reader.manifest_.label_set, reader.manifest_.layers));
  reader.shards_.resize(reader.manifest_.shards.size());
  return reader;
}

tl::unexpected<Error> ShareReader::About(size_t shard, size_t group, const Error& error) const {
  return Fail(error.code, fmt::format("{}: group {}: {}", PathOf(shard).string(), group, error.message));
}

Result<void> ShareReader::OpenShard(size_t number) {
  if (shards_[number]) return {};
  const ShareShard& claim = manifest_.shards[number];
  const auto path = PathOf(number);
  const auto corrupt = [&](const std::string& what) { return Fail(ErrorCode::kCorruption, fmt::format("{}: {}", path.string(), what)); };
  auto opened = ReadFile::Open(path);
  if (!opened && opened.error().code == ErrorCode::kNotFound && manifest_.part) return Fail(NotInPart(path.string()));
  FKDB_ASSIGN(ReadFile file, std::move(opened));
  if (file.size() != claim.bytes) return corrupt(fmt::format("{} bytes, the manifest says {}", file.size(), claim.bytes));
  FKDB_ASSIGN(const std::vector<std::byte> head, file.Read(0, kShardHeadBytes));
  if (head != ShardHead()) return corrupt("not a shard of this version");
  FKDB_ASSIGN(const std::vector<std::byte> bytes, file.Read(claim.index_at, claim.index_bytes));
  auto index = ParseIndexOf(claim, bytes, manifest_.layers.size());
  if (!index) return corrupt(index.error().message);
  shards_[number].emplace(Shard{std::move(file), *std::move(index)});
  return {};
}

Result<std::vector<std::byte>> ShareReader::ReadStored(size_t shard, size_t group, size_t chunk) const {
  const Shard& from = *shards_[shard];
  const ChunkPlace& place = from.index.groups[group].chunks[chunk];
  FKDB_ASSIGN(std::vector<std::byte> bytes, from.file.Read(place.at, place.bytes));
  if (manifest_.part && IsHole(bytes)) return Fail(NotInPart(fmt::format("{}: group {}: {}", PathOf(shard).string(), group, ChunkName(chunk))));
  if (auto checked = CheckChunk(bytes, place, chunk); !checked) return About(shard, group, checked.error());
  return bytes;
}

Result<Columns> ShareReader::ReadChunk(size_t shard, size_t group, size_t chunk, std::vector<Sha256::Hash>* hashes) const {
  FKDB_ASSIGN(const std::vector<std::byte> bytes, ReadStored(shard, group, chunk));
  thread_local ChunkCodec codec;
  auto columns = codec.Decode(bytes, chunk == 0 ? kHeadColumns + 1 : NumCropColumns(rule_->spec), kPadding);
  if (!columns) return About(shard, group, {ErrorCode::kCorruption, fmt::format("{}: {}", ChunkName(chunk), columns.error().message)});
  if (hashes != nullptr) hashes->push_back(HashColumns(*columns));
  return columns;
}

Result<ShareReader::Group> ShareReader::ReadHeads(size_t shard, size_t number, std::vector<Sha256::Hash>* hashes) const {
  FKDB_ASSIGN(Columns columns, ReadChunk(shard, number, 0, hashes));
  const std::vector<GroupPlace>& groups = shards_[shard]->index.groups;
  const GroupPlace& place = groups[number];
  const auto corrupt = [&](const std::string& what) { return About(shard, number, {ErrorCode::kCorruption, what}); };
  auto keys = ParseKeys(columns[0], place.images);
  if (!keys) return About(shard, number, keys.error());
  columns.erase(columns.begin());
  auto reader = ColumnReader::OpenHeads(*rule_, place.images, std::move(columns));
  if (!reader) return About(shard, number, reader.error());
  uint64_t crops = 0;
  int32_t lowest = INT32_MAX, highest = INT32_MIN;
  for (uint32_t i = 0; i < place.images; ++i) {
    const ImageHead head = reader->head(i);
    crops += head.num_crops;
    lowest = std::min(lowest, head.class_index);
    highest = std::max(highest, head.class_index);
  }
  if (keys->front() != place.first_key) return corrupt(fmt::format("its first image is '{}', the index says '{}'", Printable(keys->front()), Printable(place.first_key)));
  const std::string& next = number + 1 < groups.size() ? groups[number + 1].first_key : manifest_.shards[shard].last_key;
  if (number + 1 < groups.size() ? keys->back() >= next : keys->back() != next) {
    return corrupt(fmt::format("its last image '{}' does not fit '{}'", Printable(keys->back()), Printable(next)));
  }
  if (crops != place.crops) return corrupt(fmt::format("{} crops, the index says {}", crops, place.crops));
  if (lowest != place.lowest_class || highest != place.highest_class) {
    return corrupt(fmt::format("classes {} to {}, the index says {} to {}", lowest, highest, place.lowest_class, place.highest_class));
  }
  return Group{*std::move(keys), *std::move(reader)};
}

Result<void> ShareReader::ReadLayers(size_t shard, size_t group, uint32_t crops, ColumnReader* columns, std::vector<Sha256::Hash>* hashes) const {
  std::vector<Columns> layers;
  for (size_t l = 0; l < rule_->LayersFor(crops); ++l) {
    FKDB_ASSIGN(layers.emplace_back(), ReadChunk(shard, group, l + 1, hashes));
  }
  auto opened = columns->OpenLayers(std::move(layers), crops);
  if (!opened) return About(shard, group, opened.error());
  return {};
}

}  // namespace fkdb
