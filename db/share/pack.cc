// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "db/file_names.h"
#include "db/label_set.h"
#include "db/lock_file.h"
#include "db/publish.h"
#include "db/share/ordered_work.h"
#include "db/share/share.h"
#include "db/share/share_reader.h"
#include "db/share/signature.h"
#include "format/text.h"

namespace fkdb {
namespace {

// Enough for zstd's tables to pay, few enough that a reader of one image reads little.
constexpr size_t kGroupImages = 1024;
constexpr size_t kGroupBytes = 4u << 20;  // of records

// Consecutive images of the label set that is packed.
struct GroupJob {
  uint64_t first = 0;
  std::vector<std::span<const std::byte>> records;
};

struct PackedGroup {
  GroupPlace place;  // where its chunks lie is not known yet
  std::vector<std::vector<std::byte>> chunks;
  std::vector<Sha256::Hash> columns;  // a chunk each
  uint64_t first = 0, drawn = 0;

  uint64_t bytes() const {
    uint64_t all = 0;
    for (const auto& chunk : chunks) all += chunk.size();
    return all;
  }
};

class GroupPacker {
 public:
  GroupPacker(const LabelSet& set, const std::vector<std::string>& keys, const ColumnRule& rule) : set_(set), keys_(keys), rule_(rule) {}

  // The next group of the label set.
  Result<std::optional<GroupJob>> Next() {
    if (next_ == keys_.size()) return std::optional<GroupJob>();
    GroupJob job;
    job.first = next_;
    for (size_t bytes = 0; next_ < keys_.size() && job.records.size() < kGroupImages; ++next_) {
      FKDB_ASSIGN(const auto record, set_.RecordBytes(next_));
      bytes += record.size();
      if (!job.records.empty() && bytes > kGroupBytes) break;
      job.records.push_back(record);
    }
    return std::optional(std::move(job));
  }

  Result<PackedGroup> Pack(const GroupJob& job) const {
    ColumnWriter writer(rule_);
    PackedGroup group;
    group.first = job.first;
    group.place.images = static_cast<uint32_t>(job.records.size());
    group.place.first_key = keys_[job.first];
    group.place.lowest_class = INT32_MAX;
    group.place.highest_class = INT32_MIN;
    for (size_t i = 0; i < job.records.size(); ++i) {
      const std::string& key = keys_[job.first + i];
      const auto about = [&](const Error& error) {
        return Fail(error.code, fmt::format("{}: image '{}': {}", set_.path().string(), Printable(key), error.message));
      };
      const auto record = RecordView::Open(job.records[i], rule_.spec);
      if (!record) return about(record.error());
      if (record->key_hash() != Hash64(key)) return about({ErrorCode::kCorruption, "its record belongs to another key"});
      if (auto added = writer.Add(*record); !added) return about(added.error());
      group.place.crops += record->num_crops();
      group.place.lowest_class = std::min(group.place.lowest_class, record->class_index());
      group.place.highest_class = std::max(group.place.highest_class, record->class_index());
    }
    group.drawn = writer.num_drawn();
    Columns heads;
    std::vector<Columns> layers;
    writer.Finish(&heads, &layers);
    heads.insert(heads.begin(), EncodeKeys(std::span(keys_).subspan(job.first, job.records.size())));
    FKDB_TRY(AddChunk(heads, true, &group));
    for (const Columns& layer : layers) FKDB_TRY(AddChunk(layer, false, &group));
    return group;
  }

 private:
  Result<void> AddChunk(const Columns& columns, bool heads, PackedGroup* group) const {
    uint64_t bytes = 0;
    for (const Column& column : columns) bytes += column.size();
    if (bytes > kMaxChunkBytes) {
      return Fail(ErrorCode::kResourceExhausted, fmt::format("{}: image '{}' takes {} bytes in one chunk, at most {}", set_.path().string(),
                                                             Printable(keys_[group->first]), bytes, kMaxChunkBytes));
    }
    std::vector<ColumnKind> kinds(columns.size(), heads ? ColumnKind::kText : ColumnKind::kCodes);
    for (size_t c = 0; c < columns.size() && !heads; ++c) {
      if (HasRepeats(rule_.spec, c)) kinds[c] = ColumnKind::kText;
    }
    thread_local ChunkCodec codec;
    group->columns.push_back(HashColumns(columns));
    const std::vector<std::byte>& chunk = group->chunks.emplace_back(codec.Encode(columns, kinds));
    group->place.chunks.push_back({0, static_cast<uint32_t>(chunk.size()), Sha256::Of(chunk)});
    return {};
  }

  const LabelSet& set_;
  const std::vector<std::string>& keys_;
  const ColumnRule& rule_;
  uint64_t next_ = 0;
};

// Shard after shard, each under its final name once it is whole.
class ShardWriter {
 public:
  ShardWriter(const std::filesystem::path& folder, uint64_t most_bytes, const std::vector<std::string>& keys, ShareManifest* manifest)
      : folder_(folder), most_bytes_(most_bytes), keys_(keys), manifest_(*manifest) {}
  ~ShardWriter() {
    std::error_code ec;
    if (file_) std::filesystem::remove(PartialPath(path_), ec);
  }

  Result<void> Add(PackedGroup group) {
    if (file_ && file_->size() + group.bytes() > most_bytes_) FKDB_TRY(Finish());
    if (!file_) {
      path_ = folder_ / ShardName(manifest_.shards.size());
      FKDB_ASSIGN(WriteFile file, WriteFile::Create(PartialPath(path_)));
      file_.emplace(std::move(file));
      FKDB_TRY(file_->Append(ShardHead()));
    }
    for (size_t c = 0; c < group.chunks.size(); ++c) {
      group.place.chunks[c].at = file_->size();
      FKDB_TRY(file_->Append(group.chunks[c]));
      columns_.Update(std::as_bytes(std::span(group.columns[c])));
    }
    images_ += group.place.images;
    index_.groups.push_back(std::move(group.place));
    return {};
  }

  Result<void> Finish() {
    if (!file_) return {};
    ShareShard shard;
    shard.file = path_.filename().string();
    shard.images = index_.images();
    shard.crops = index_.crops();
    shard.first_image = images_ - shard.images;
    shard.first_key = index_.groups[0].first_key;
    shard.last_key = keys_[images_ - 1];
    const std::vector<std::byte> index = EncodeIndex(index_);
    shard.index_at = file_->size();
    shard.index_bytes = index.size();
    shard.index_sha256 = ToHex(Sha256::Of(index));
    FKDB_TRY(file_->Append(index));
    shard.bytes = file_->size();
    FKDB_ASSIGN(const Sha256::Hash hash, file_->Finish());
    shard.sha256 = ToHex(hash);
    shard.columns_sha256 = ToHex(columns_.Finish());
    FKDB_TRY(Publish(PartialPath(path_), path_, 0, /*replace=*/true));
    file_.reset();
    index_ = {};
    manifest_.total_bytes += shard.bytes;
    manifest_.shards.push_back(std::move(shard));
    return {};
  }

 private:
  const std::filesystem::path folder_;
  const uint64_t most_bytes_;
  const std::vector<std::string>& keys_;
  ShareManifest& manifest_;
  std::filesystem::path path_;
  std::optional<WriteFile> file_;
  ShardIndex index_;
  Sha256 columns_;
  uint64_t images_ = 0;
};

// Shards that an earlier share left and the new one does not name.
void RemoveOtherShards(const std::filesystem::path& folder, size_t shards) {
  std::error_code ec;
  for (size_t i = shards; std::filesystem::remove(folder / ShardName(i), ec); ++i) {
  }
}

}  // namespace

Result<PackReport> PackLabelSet(const std::filesystem::path& input, const std::filesystem::path& folder, const PackOptions& options) {
  FKDB_ASSIGN(const LabelSet set, LabelSet::Open(input));
  if (set.partial() || !set.manifest().complete) {
    return Fail(ErrorCode::kIncomplete, fmt::format("{}: it is not finished; only a finished label set is packed", input.string()));
  }
  FKDB_ASSIGN(const std::vector<std::string> keys, set.AllKeys());
  if (!options.sign.empty()) FKDB_TRY(SignText("", options.sign));  // a key that is none says so before the work

  std::error_code ec;
  std::filesystem::create_directory(folder, ec);
  if (!std::filesystem::is_directory(folder)) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot make this folder", folder.string()));
  const auto manifest_path = folder / kShareManifestName;
  FKDB_ASSIGN(const LockFile lock, LockFile::Acquire(WriterLockPath(manifest_path)));
  uint64_t revision = 1;
  if (std::filesystem::exists(manifest_path, ec)) {
    if (!options.overwrite) {
      return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: exists already; choose another folder, or --overwrite to replace it", manifest_path.string()));
    }
    if (const auto replaced = ReadShareManifest(folder)) revision = replaced->revision + 1;
    std::filesystem::remove(manifest_path, ec);  // first: without it there is no share whose shards could change
  }
  for (const char* left : {kSignatureName, kSharePartName}) std::filesystem::remove(folder / left, ec);

  PackReport report;
  ShareManifest& manifest = report.manifest;
  manifest.label_set = set.manifest();
  manifest.name = options.name.value_or(manifest.label_set.data_set.name);
  manifest.licence = options.licence.value_or(manifest.label_set.provenance.licence);
  manifest.authors = options.authors.value_or("");
  manifest.accuracy = options.accuracy.value_or("");
  manifest.notes = options.notes.value_or(manifest.label_set.provenance.notes);
  manifest.revision = options.revision > 0 ? options.revision : revision;
  manifest.layers = LayerEnds(manifest.label_set.augmentation.crops);
  ColumnRule rule = RuleOf(manifest.label_set, manifest.layers);
  if (options.store_boxes) rule.sampler.reset();

  GroupPacker packer(set, keys, rule);
  ShardWriter shards(folder, options.shard_bytes, keys, &manifest);
  OrderedWork<GroupJob, PackedGroup> groups(
      options.threads, [&] { return packer.Next(); }, [&](const GroupJob& job) { return packer.Pack(job); });
  for (uint64_t done = 0;;) {
    if (options.stop && options.stop->load()) return Fail(ErrorCode::kIncomplete, "stopped before the manifest was written; the same command starts again");
    FKDB_ASSIGN(std::optional<PackedGroup> group, groups.Next());
    if (!group) break;
    done += group->place.images;
    report.drawn_images += group->drawn;
    FKDB_TRY(shards.Add(*std::move(group)));
    if (options.progress) options.progress(done, keys.size());
  }
  FKDB_TRY(shards.Finish());
  RemoveOtherShards(folder, manifest.shards.size());
  const std::string text = ToShareText(manifest);
  if (!options.sign.empty()) {
    FKDB_ASSIGN(const std::string signature, SignText(text, options.sign));
    FKDB_TRY(PublishText(folder / kSignatureName, signature, /*replace=*/true));
    manifest.signature = ShareSignature::kUnchecked;
  }
  FKDB_TRY(PublishText(manifest_path, text, options.overwrite));
  return report;
}

}  // namespace fkdb
