// SPDX-License-Identifier: Apache-2.0
#include "db/share/incoming.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
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

// The manifest of what an overwrite replaces, until it ends: so long an older revision is still an older one.
constexpr const char* kReplacedName = "manifest.json.replaced";

// Another share in the folder than this one must not be lost without being asked, and never to an older one.
Result<void> CheckReplaced(const std::filesystem::path& folder, const ShareManifest& manifest, bool is_there, bool overwrite) {
  for (const char* name : {kShareManifestName, kReplacedName}) {
    const auto text = ReadText(folder / name, kMaxShareManifestBytes);
    const auto old = text ? ParseShareText(*text) : Fail(text.error());
    if (old && old->name == manifest.name && old->revision > manifest.revision) {
      return Fail(ErrorCode::kCorruption, fmt::format("{}: has revision {} of it, and this is revision {}: whoever offers it is behind, or wants you to be; remove the folder if you do",
                                                      folder.string(), old->revision, manifest.revision));
    }
  }
  if (!is_there || overwrite) return {};
  return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: has another label set, or another revision of this one; choose another folder, or --overwrite to replace it", folder.string()));
}

// Whether whoever has `more` has all of `part`.
bool Covers(const ShareSelection& more, const ShareSelection& part) {
  const auto in = [](std::vector<std::string> all, const std::vector<std::string>& some) {
    std::ranges::sort(all);
    return all.empty() || (!some.empty() && std::ranges::all_of(some, [&](const std::string& one) { return std::ranges::binary_search(all, one); }));
  };
  return in(more.images, part.images) && in(more.classes, part.classes) && (more.crops == 0 || (part.crops > 0 && part.crops <= more.crops));
}

// Chunks, each to its place once it is whole and has its hash.
class ChunkReceiver : public IncomingShare::Receiver {
 public:
  struct Chunk {
    size_t group, chunk;
    ChunkPlace place;
  };
  // At least one chunk.
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
  struct Shard {
    ShardIndex index;
    std::vector<size_t> groups;    // of it, that may hold something of the part
    std::vector<std::byte> bytes;  // of the index, if it is not here yet
  };

  std::filesystem::path folder;
  std::string text;
  std::optional<std::string> signature;
  ShareManifest manifest;
  ShareSelection part;
  ShareChoice choice;
  bool is_there, is_same;               // a manifest in the folder; and it is this one
  std::optional<ShareSelection> there;  // if it is this one: what of it is there
  LockFile lock;
  std::vector<size_t> shards{};
  std::vector<std::optional<Shard>> opened{};
  std::atomic<bool> lacks = false;  // something of the part

  std::filesystem::path PathOf(size_t shard) const { return folder / manifest.shards[shard].file; }
  Result<void> Open(size_t shard, std::span<const std::byte> bytes);
  // Of the chunks that are wanted, those that lie in this stretch.
  std::vector<ChunkReceiver::Chunk> Chunks(size_t shard, uint64_t from, uint64_t to) const;
};

Result<void> IncomingShare::Impl::Open(size_t shard, std::span<const std::byte> bytes) {
  FKDB_ASSIGN(ShardIndex index, ParseIndexOf(manifest.shards[shard], bytes, manifest.layers.size()));
  std::vector<size_t> groups = choice.Groups(index);
  opened[shard] = {std::move(index), std::move(groups), {}};
  return {};
}

std::vector<ChunkReceiver::Chunk> IncomingShare::Impl::Chunks(size_t shard, uint64_t from, uint64_t to) const {
  std::vector<ChunkReceiver::Chunk> chunks;
  if (!opened[shard]) return chunks;
  const ShardIndex& index = opened[shard]->index;
  const std::vector<size_t>& groups = opened[shard]->groups;
  const size_t wanted = 1 + RuleOf(manifest.label_set, manifest.layers).LayersFor(choice.crops());
  const auto ends = [&](size_t group) { return index.groups[group].chunks.back().at + index.groups[group].chunks.back().bytes; };
  for (auto group = std::ranges::partition_point(groups, [&](size_t g) { return ends(g) <= from; }); group != groups.end(); ++group) {
    const std::vector<ChunkPlace>& places = index.groups[*group].chunks;
    if (places[0].at >= to) break;
    for (size_t c = 0; c < wanted; ++c) {
      if (places[c].at >= from && places[c].at + places[c].bytes <= to) chunks.push_back({*group, c, places[c]});
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
  const bool is_there = std::filesystem::exists(path, ec);
  const auto here = is_there ? ReadText(path, kMaxShareManifestBytes) : std::string();
  const bool is_same = is_there && here && *here == text;
  if (!is_same) FKDB_TRY(CheckReplaced(folder, manifest, is_there, options.overwrite));
  std::optional<ShareSelection> there;
  if (is_same) {
    if (const auto read = ReadShareManifest(folder)) there = read->part.value_or(ShareSelection());
  }
  std::unique_ptr<Impl> impl(new Impl{folder, std::move(text), std::move(signature), std::move(manifest), options.part, std::move(choice), is_there, is_same, std::move(there),
                                      std::move(lock)});
  impl->shards = impl->choice.Shards(impl->manifest);
  impl->opened.resize(impl->manifest.shards.size());
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
  return head && *head == ShardHead() && bytes && impl_->Open(shard, *bytes);
}

Result<void> IncomingShare::TakeIndex(size_t shard, std::vector<std::byte> bytes) {
  FKDB_TRY(impl_->Open(shard, bytes));
  impl_->opened[shard]->bytes = std::move(bytes);
  impl_->lacks = true;
  return {};
}

Result<std::vector<Stretch>> IncomingShare::Missing(size_t shard, uint64_t most) const {
  if (!impl_->opened[shard]) return Fail(ErrorCode::kCorruption, fmt::format("{}: its index did not come", impl_->manifest.shards[shard].file));
  std::optional<ReadFile> file;  // none: what is there, if it is, is another's
  if (impl_->opened[shard]->bytes.empty()) {
    FKDB_ASSIGN(file, ReadFile::Open(impl_->PathOf(shard)));
  }
  std::vector<Stretch> stretches;
  for (const auto& [group, chunk, place] : impl_->Chunks(shard, 0, impl_->manifest.shards[shard].index_at)) {
    if (file) {
      FKDB_ASSIGN(const std::vector<std::byte> begin, file->Read(place.at, kMinChunkBytes));
      if (!IsHole(begin)) {
        FKDB_ASSIGN(const std::vector<std::byte> bytes, file->Read(place.at, place.bytes));
        if (CheckChunk(bytes, place, chunk)) continue;
      }
    }
    Stretch* const last = stretches.empty() ? nullptr : &stretches.back();
    if (last != nullptr && last->at + last->bytes == place.at && last->bytes + place.bytes <= most) {
      last->bytes += place.bytes;
    } else {
      stretches.push_back({shard, place.at, place.bytes});
    }
  }
  if (!stretches.empty()) impl_->lacks = true;
  return stretches;
}

Result<void> IncomingShare::Prepare() {
  Impl& in = *impl_;
  std::error_code ec;
  if (in.is_there && !in.is_same) {
    std::filesystem::rename(in.folder / kShareManifestName, in.folder / kReplacedName, ec);
    if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot be replaced: {}", (in.folder / kShareManifestName).string(), ec.message()));
    for (const char* left : {kSignatureName, kSharePartName}) std::filesystem::remove(in.folder / left, ec);
    for (const auto& entry : std::filesystem::directory_iterator(in.folder, ec)) {
      const std::string name = entry.path().filename().string();
      const bool ours = std::ranges::find(in.manifest.shards, name, &ShareShard::file) != in.manifest.shards.end();
      if (IsShardName(name) && !ours) std::filesystem::remove(entry.path(), ec);
    }
  }
  for (const size_t shard : in.shards) {
    if (!in.opened[shard] || in.opened[shard]->bytes.empty()) continue;
    const ShareShard& claim = in.manifest.shards[shard];
    FKDB_ASSIGN(PatchFile file, PatchFile::Open(in.PathOf(shard), claim.bytes, /*fresh=*/true));
    FKDB_TRY(file.Write(0, ShardHead()));
    FKDB_TRY(file.Write(claim.index_at, in.opened[shard]->bytes));
  }
  return {};
}

Result<std::unique_ptr<IncomingShare::Receiver>> IncomingShare::Receive(const Stretch& stretch) const {
  const ShareShard& claim = impl_->manifest.shards[stretch.shard];
  const auto path = impl_->PathOf(stretch.shard);
  if (stretch.at == 0) {
    impl_->lacks = true;
    FKDB_ASSIGN(WriteFile file, WriteFile::Create(PartialPath(path)));
    return std::make_unique<WholeReceiver>(path, std::move(file), claim);
  }
  std::vector<ChunkReceiver::Chunk> chunks = impl_->Chunks(stretch.shard, stretch.at, stretch.at + stretch.bytes);
  if (chunks.empty()) return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: no chunk from {} to {}", claim.file, stretch.at, stretch.at + stretch.bytes));
  FKDB_ASSIGN(PatchFile file, PatchFile::Open(path, claim.bytes));
  return std::make_unique<ChunkReceiver>(std::move(file), std::move(chunks));
}

Result<ShareManifest> IncomingShare::Finish(int threads) {
  Impl& in = *impl_;
  ShareReader share = ShareReader::Of(in.folder, in.manifest);
  for (const size_t shard : in.shards) {
    FKDB_TRY(share.OpenShard(shard));
    FKDB_ASSIGN(PatchFile file, PatchFile::Open(in.PathOf(shard), in.manifest.shards[shard].bytes));
    FKDB_TRY(file.Sync());
  }
  if (!in.choice.all_images()) FKDB_TRY(PlanShare(share, in.folder, in.choice, threads));  // whether it has what was asked for by name
  // What is there already and is more stays what the folder has.
  const ShareSelection part = in.there && !in.lacks && Covers(*in.there, in.part) ? *in.there : in.part;
  ShareManifest manifest = in.manifest;
  std::error_code ec;
  if (part.all()) {
    std::filesystem::remove(in.folder / kSharePartName, ec);
  } else {
    FKDB_TRY(PublishText(in.folder / kSharePartName, ToPartText(part), /*replace=*/true));
    manifest.part = part;
  }
  // A signature that was not checked takes no other's place.
  if (!in.is_same || manifest.signature == ShareSignature::kTrusted) {
    if (in.signature) {
      FKDB_TRY(PublishText(in.folder / kSignatureName, *in.signature, /*replace=*/true));
    } else {
      std::filesystem::remove(in.folder / kSignatureName, ec);
    }
  }
  FKDB_TRY(PublishText(in.folder / kShareManifestName, in.text, /*replace=*/true));
  std::filesystem::remove(in.folder / kReplacedName, ec);
  return manifest;
}

}  // namespace fkdb
