// SPDX-License-Identifier: Apache-2.0
#include "db/share/incoming.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "db/file_names.h"
#include "db/lock_file.h"
#include "db/publish.h"
#include "db/share/shard.h"
#include "db/share/share_plan.h"
#include "db/share/share_reader.h"
#include "db/share/signature.h"

namespace fkdb {
namespace {

using Stretch = IncomingShare::Stretch;

// Another share in the folder than this one must not be lost without being asked.
Result<void> CheckReplaced(const std::filesystem::path& folder, const ShareManifest& manifest, bool overwrite) {
  if (!overwrite) {
    return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: has another label set, or another revision of this one; choose another folder, or --overwrite to replace it", folder.string()));
  }
  const auto old = ReadShareManifest(folder);
  if (old && old->name == manifest.name && old->revision > manifest.revision) {
    return Fail(ErrorCode::kCorruption, fmt::format("{}: has revision {} of it, and this is revision {}: whoever offers it is behind, or wants you to be; remove the folder if you do",
                                                    folder.string(), old->revision, manifest.revision));
  }
  return {};
}

// Chunks, each to its place once it is whole and has its hash.
class ChunkReceiver : public IncomingShare::Receiver {
 public:
  struct Chunk {
    size_t group, chunk;
    ChunkPlace place;
  };
  ChunkReceiver(PatchFile file, std::vector<Chunk> chunks) : file_(std::move(file)), chunks_(std::move(chunks)), done_(chunks_.front().place.at) {}

  Result<void> Take(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      if (next_ == chunks_.size()) return Fail(ErrorCode::kCorruption, fmt::format("{}: more bytes than were asked for", file_.path().string()));
      const auto& [group, chunk, place] = chunks_[next_];
      const size_t more = std::min<size_t>(bytes.size(), place.bytes - pending_.size());
      pending_.insert(pending_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(more));
      bytes = bytes.subspan(more);
      if (pending_.size() < place.bytes) return {};
      if (auto good = CheckChunk(pending_, place, chunk); !good) {
        return Fail(good.error().code, fmt::format("{}: group {}: {}", file_.path().filename().string(), group, good.error().message));
      }
      FKDB_TRY(file_.Write(place.at, pending_));
      done_ = place.at + place.bytes;
      pending_.clear();
      ++next_;
    }
    return {};
  }
  uint64_t done() const override { return done_; }

 private:
  PatchFile file_;
  std::vector<Chunk> chunks_;
  uint64_t done_;
  size_t next_ = 0;
  std::vector<std::byte> pending_;  // of chunks_[next_]
};

// A whole shard, beside the one that is there until it has its hash: what came without an index cannot be checked before.
class WholeReceiver : public IncomingShare::Receiver {
 public:
  WholeReceiver(std::filesystem::path path, WriteFile file, const ShareShard& claim) : path_(std::move(path)), file_(std::move(file)), claim_(claim) {}
  ~WholeReceiver() override {
    std::error_code ec;
    if (done_ == 0) std::filesystem::remove(PartialPath(path_), ec);
  }

  Result<void> Take(std::span<const std::byte> bytes) override {
    if (bytes.size() > claim_.bytes - file_.size()) return Fail(ErrorCode::kCorruption, fmt::format("{}: over the {} bytes that the manifest says", claim_.file, claim_.bytes));
    FKDB_TRY(file_.Append(bytes));
    if (file_.size() < claim_.bytes) return {};
    FKDB_ASSIGN(const Sha256::Hash hash, file_.Finish());
    if (ToHex(hash) != claim_.sha256) return Fail(ErrorCode::kCorruption, fmt::format("{}: SHA-256 {}, the manifest says {}", claim_.file, ToHex(hash), claim_.sha256));
    FKDB_TRY(Publish(PartialPath(path_), path_, 0, /*replace=*/true));
    done_ = claim_.bytes;
    return {};
  }
  uint64_t done() const override { return done_; }

 private:
  const std::filesystem::path path_;
  WriteFile file_;
  const ShareShard& claim_;
  uint64_t done_ = 0;
};

}  // namespace

struct IncomingShare::Impl {
  std::filesystem::path folder;
  std::string text;
  std::optional<std::string> signature;
  ShareManifest manifest;
  ShareSelection part;
  ShareChoice choice;
  bool was_whole = false;  // the folder has all of it: it stays so
  std::vector<size_t> shards;
  std::vector<std::optional<ShardIndex>> indexes;
  LockFile lock;

  size_t layers() const { return manifest.layers.size(); }
  std::filesystem::path PathOf(size_t shard) const { return folder / manifest.shards[shard].file; }
  size_t ChunksWanted() const { return 1 + RuleOf(manifest.label_set, manifest.layers).LayersFor(choice.crops()); }
  // Of the chunks that are wanted, those that lie in this stretch.
  std::vector<ChunkReceiver::Chunk> Chunks(size_t shard, uint64_t from, uint64_t to) const;
};

std::vector<ChunkReceiver::Chunk> IncomingShare::Impl::Chunks(size_t shard, uint64_t from, uint64_t to) const {
  std::vector<ChunkReceiver::Chunk> chunks;
  const size_t wanted = ChunksWanted();
  for (const size_t group : choice.Groups(*indexes[shard])) {
    const std::vector<ChunkPlace>& places = indexes[shard]->groups[group].chunks;
    for (size_t c = 0; c < wanted; ++c) {
      if (places[c].at >= from && places[c].at + places[c].bytes <= to) chunks.push_back({group, c, places[c]});
    }
  }
  return chunks;
}

IncomingShare::IncomingShare(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
IncomingShare::~IncomingShare() = default;
IncomingShare::IncomingShare(IncomingShare&&) noexcept = default;
IncomingShare& IncomingShare::operator=(IncomingShare&&) noexcept = default;

Result<IncomingShare> IncomingShare::Begin(const std::filesystem::path& folder, const std::string& where, std::string text, std::optional<std::string> signature,
                                           const IncomingOptions& options) {
  FKDB_ASSIGN(ShareManifest manifest, CheckShareText(where, text, signature, options.trusted));
  FKDB_ASSIGN(ShareChoice choice, ShareChoice::Make(manifest.label_set, folder, options.part));
  std::error_code ec;
  std::filesystem::create_directory(folder, ec);
  if (!std::filesystem::is_directory(folder)) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot make this folder", folder.string()));
  const auto path = folder / kShareManifestName;
  FKDB_ASSIGN(LockFile lock, LockFile::Acquire(WriterLockPath(path)));
  bool was_whole = false;
  if (std::filesystem::exists(path, ec)) {
    const auto here = ReadText(path, kMaxShareManifestBytes);
    if (here && *here == text) {
      was_whole = !std::filesystem::exists(folder / kSharePartName, ec);
    } else {
      FKDB_TRY(CheckReplaced(folder, manifest, options.overwrite));
      for (const char* left : {kShareManifestName, kSignatureName, kSharePartName}) std::filesystem::remove(folder / left, ec);
    }
  }
  auto impl = std::make_unique<Impl>(Impl{folder, std::move(text), std::move(signature), std::move(manifest), options.part, std::move(choice), was_whole, {}, {}, std::move(lock)});
  impl->shards = impl->choice.Shards(impl->manifest);
  impl->indexes.resize(impl->manifest.shards.size());
  return IncomingShare(std::move(impl));
}

const ShareManifest& IncomingShare::manifest() const { return impl_->manifest; }
const std::vector<size_t>& IncomingShare::shards() const { return impl_->shards; }

Stretch IncomingShare::IndexOf(size_t shard) const {
  const ShareShard& claim = impl_->manifest.shards[shard];
  return {shard, claim.index_at, claim.index_bytes};
}

Stretch IncomingShare::WholeOf(size_t shard) const { return {shard, 0, impl_->manifest.shards[shard].bytes}; }

bool IncomingShare::FindIndex(size_t shard) {
  const ShareShard& claim = impl_->manifest.shards[shard];
  const auto file = ReadFile::Open(impl_->PathOf(shard));
  if (!file || file->size() != claim.bytes) return false;
  const auto head = file->Read(0, kShardHeadBytes), bytes = file->Read(claim.index_at, claim.index_bytes);
  if (!head || *head != ShardHead() || !bytes) return false;
  auto index = ParseIndexOf(claim, *bytes, impl_->layers());
  if (index) impl_->indexes[shard] = *std::move(index);
  return index.has_value();
}

Result<void> IncomingShare::TakeIndex(size_t shard, std::span<const std::byte> bytes) {
  const ShareShard& claim = impl_->manifest.shards[shard];
  FKDB_ASSIGN(impl_->indexes[shard], ParseIndexOf(claim, bytes, impl_->layers()));
  FKDB_ASSIGN(PatchFile file, PatchFile::Open(impl_->PathOf(shard), claim.bytes));
  FKDB_TRY(file.Write(0, ShardHead()));
  return file.Write(claim.index_at, bytes);
}

Result<std::vector<Stretch>> IncomingShare::Missing(size_t shard, uint64_t most) const {
  FKDB_ASSIGN(const ReadFile file, ReadFile::Open(impl_->PathOf(shard)));
  std::vector<Stretch> stretches;
  for (const auto& [group, chunk, place] : impl_->Chunks(shard, 0, impl_->manifest.shards[shard].index_at)) {
    FKDB_ASSIGN(const std::vector<std::byte> begin, file.Read(place.at, std::min<uint64_t>(place.bytes, 4)));
    if (!IsHole(begin)) {
      FKDB_ASSIGN(const std::vector<std::byte> bytes, file.Read(place.at, place.bytes));
      if (CheckChunk(bytes, place, chunk)) continue;
    }
    Stretch* const last = stretches.empty() ? nullptr : &stretches.back();
    if (last != nullptr && last->at + last->bytes == place.at && last->bytes + place.bytes <= most) {
      last->bytes += place.bytes;
    } else {
      stretches.push_back({shard, place.at, place.bytes});
    }
  }
  return stretches;
}

Result<std::unique_ptr<IncomingShare::Receiver>> IncomingShare::Receive(const Stretch& stretch) const {
  const ShareShard& claim = impl_->manifest.shards[stretch.shard];
  const auto path = impl_->PathOf(stretch.shard);
  if (stretch.at == 0) {
    FKDB_ASSIGN(WriteFile file, WriteFile::Create(PartialPath(path)));
    return std::make_unique<WholeReceiver>(path, std::move(file), claim);
  }
  FKDB_ASSIGN(PatchFile file, PatchFile::Open(path, claim.bytes));
  return std::make_unique<ChunkReceiver>(std::move(file), impl_->Chunks(stretch.shard, stretch.at, stretch.at + stretch.bytes));
}

Result<void> IncomingShare::Finish(int threads) {
  const Impl& in = *impl_;
  if (!in.choice.all_images()) {  // whether it has what was asked for by name
    ShareReader share = ShareReader::Of(in.folder, in.manifest);
    FKDB_TRY(PlanShare(share, in.folder, in.choice, threads));
  }
  for (const size_t shard : in.shards) {
    FKDB_ASSIGN(PatchFile file, PatchFile::Open(in.PathOf(shard), in.manifest.shards[shard].bytes));
    FKDB_TRY(file.Sync());
  }
  std::error_code ec;
  if (in.part.all()) {
    std::filesystem::remove(in.folder / kSharePartName, ec);
  } else if (!in.was_whole) {
    FKDB_TRY(PublishText(in.folder / kSharePartName, ToPartText(in.part), /*replace=*/true));
  }
  if (in.signature) {
    FKDB_TRY(PublishText(in.folder / kSignatureName, *in.signature, /*replace=*/true));
  } else {
    std::filesystem::remove(in.folder / kSignatureName, ec);
  }
  return PublishText(in.folder / kShareManifestName, in.text, /*replace=*/true);
}

}  // namespace fkdb
