// SPDX-License-Identifier: Apache-2.0
#include "db/label_file_writer.h"

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "db/block.h"
#include "db/file_names.h"
#include "db/lmdb_env.h"
#include "db/lock_file.h"
#include "db/names_table.h"
#include "db/page_walk.h"
#include "db/publish.h"
#include "db/sha256.h"
#include "db/tally.h"
#include "format/record.h"

namespace fkdb {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct PendingBlock {
  uint64_t first_ordinal;
  std::vector<std::byte> bytes;
};

}  // namespace

struct LabelFileWriter::Impl {
  std::filesystem::path path;
  std::filesystem::path partial;
  LabelFileWriterOptions options;
  Manifest manifest;
  std::unique_ptr<LockFile> lock;
  EnvPtr env;
  size_t map_bytes = 0;

  BlockPacker packer;
  std::vector<PendingBlock> pending;  // full blocks, not yet committed
  size_t pending_bytes = 0;
  uint64_t packed_images = 0;     // in full blocks, committed or pending
  uint64_t committed_images = 0;  // with those of a block that is not full yet
  Clock::time_point last_commit = Clock::now();
  Clock::time_point block_begun = Clock::now();

  tl::unexpected<Error> In(Error error) const {
    return Fail(error.code, fmt::format("{}: {}", partial.string(), error.message));
  }

  Result<bool> HasBegun();
  Result<void> Start();
  Result<void> CheckResumed();
  void Pack(bool all);
  Result<void> Commit(bool open_block = false);
  template <class Body>
  Result<void> Transact(Body body);
  template <class Body>
  Result<uint64_t> ForEachRecord(Body body);
  Result<void> ReadBack(std::span<const std::string> keys);
  Result<bool> Compact(uint64_t pages);
};

// Runs `body(txn)` and commits. A full map aborts the transaction, grows and runs it again: LMDB
// poisons a transaction that met MDB_MAP_FULL.
template <class Body>
Result<void> LabelFileWriter::Impl::Transact(Body body) {
  for (;;) {
    FKDB_ASSIGN(TxnPtr txn, BeginTxn(env.get(), 0));
    int rc = body(txn.get());
    if (rc == 0) rc = mdb_txn_commit(txn.release());
    if (rc == 0) return {};
    txn.reset();
    if (rc == EIO || rc == ENOSPC) {  // EIO: what LMDB makes of a write that was cut short
      return Fail(ErrorCode::kResourceExhausted, "cannot write all of a transaction: the disk is full or failing; what "
                                                 "was committed is intact, --resume continues");
    }
    if (rc != MDB_MAP_FULL) return LmdbFail(rc, "write");
    map_bytes *= 2;
    if (const int resized = mdb_env_set_mapsize(env.get(), map_bytes)) return LmdbFail(resized, "grow the map");
  }
}

// Whether there is an earlier run to continue: a build killed before its first transaction left a
// file that holds nothing.
Result<bool> LabelFileWriter::Impl::HasBegun() {
  std::error_code ec;
  const uint64_t bytes = std::filesystem::file_size(partial, ec);
  if (ec || bytes <= 2 * 4096) return false;  // not there, or no more than LMDB's two meta pages
  FKDB_ASSIGN(const FileLayout layout, WalkPages(partial, FileEnd::kBehindLastPage));
  map_bytes = std::max<size_t>(map_bytes, layout.file_bytes * 2);
  return !layout.databases.empty();
}

Result<void> LabelFileWriter::Impl::Start() {
  std::error_code ec;
  std::filesystem::remove(LmdbLockPath(partial), ec);  // ours alone: we hold the writer lock
  std::filesystem::remove(CompactPath(path), ec);      // of a run that was killed while it wrote that
  map_bytes = std::max<size_t>(options.initial_map_bytes, 1 << 16);
  bool continues = false;
  if (options.resume) {
    FKDB_ASSIGN(continues, HasBegun());
  }
  if (!continues) std::filesystem::remove(partial, ec);
  FKDB_ASSIGN(env, OpenEnv(partial, MDB_NOTLS, map_bytes));
  if (continues) return CheckResumed();
  const std::string mark = BuildFormatValue(kFormatVersion), sealed = SealManifest(ToJson(manifest));
  return Transact([&](MDB_txn* txn) {
    MDB_dbi meta, other;
    int rc = mdb_dbi_open(txn, kMetaDatabase, MDB_CREATE, &meta);
    if (rc == 0) rc = mdb_dbi_open(txn, kBlocksDatabase, MDB_CREATE, &other);
    if (rc == 0) rc = mdb_dbi_open(txn, kNamesDatabase, MDB_CREATE, &other);
    for (const auto& [name, text] : {std::pair(kFormatKey, &mark), std::pair(kManifestKey, &sealed)}) {
      MDB_val key = {name.size(), const_cast<char*>(name.data())};
      MDB_val value = {text->size(), const_cast<char*>(text->data())};
      if (rc == 0) rc = mdb_put(txn, meta, &key, &value, 0);
    }
    return rc;
  });
}

// The recipe in the file against the one asked for, and how far the earlier run came.
Result<void> LabelFileWriter::Impl::CheckResumed() {
  FKDB_ASSIGN(const TxnPtr txn, BeginTxn(env.get(), MDB_RDONLY));
  FKDB_ASSIGN(const MDB_dbi meta, OpenDatabase(txn.get(), kMetaDatabase, 0));
  MDB_val key = {kManifestKey.size(), const_cast<char*>(kManifestKey.data())}, value;
  if (const int rc = mdb_get(txn.get(), meta, &key, &value)) return LmdbFail(rc, "read the manifest");
  FKDB_ASSIGN(const std::string_view json, UnsealManifest(Bytes(value)));
  FKDB_ASSIGN(const Manifest stored, ParseManifest(json));
  const bool finished_shard = options.shard && stored.complete;  // and killed before it was published
  if (stored.data_set != manifest.data_set && !finished_shard) {
    return Fail(ErrorCode::kMismatch, "cannot resume with another data set: " + RecipeDifference(stored, manifest));
  }
  const std::string difference = finished_shard ? RecipeDifference(WithoutImages(stored), WithoutImages(manifest)) : RecipeDifference(stored, manifest);
  if (!difference.empty()) {
    return Fail(ErrorCode::kInvalidArgument, "cannot resume with another recipe: " + difference);
  }
  manifest.provenance = stored.provenance;

  FKDB_ASSIGN(const MDB_dbi blocks, OpenDatabase(txn.get(), kBlocksDatabase, 0));
  MDB_cursor* raw = nullptr;
  if (const int rc = mdb_cursor_open(txn.get(), blocks, &raw)) return LmdbFail(rc, "find the last block");
  const std::unique_ptr<MDB_cursor, decltype(&mdb_cursor_close)> cursor(raw, mdb_cursor_close);
  const int rc = mdb_cursor_get(raw, &key, &value, MDB_LAST);
  if (rc == MDB_NOTFOUND) return {};
  if (rc) return LmdbFail(rc, "find the last block");
  uint64_t first = 0;
  if (!ParseOrdinalKey(Bytes(key), &first)) return Fail(ErrorCode::kCorruption, "a block's key is not an ordinal");
  FKDB_ASSIGN(const BlockView last, BlockView::Open(Bytes(value), first));
  packed_images = first + last.count();
  return {};
}

// body(ordinal, bytes) for every committed record, in order; returns how many there are.
template <class Body>
Result<uint64_t> LabelFileWriter::Impl::ForEachRecord(Body body) {
  FKDB_ASSIGN(const TxnPtr txn, BeginTxn(env.get(), MDB_RDONLY));
  FKDB_ASSIGN(const MDB_dbi blocks, OpenDatabase(txn.get(), kBlocksDatabase, 0));
  MDB_cursor* raw = nullptr;
  if (const int rc = mdb_cursor_open(txn.get(), blocks, &raw)) return LmdbFail(rc, "read the blocks back");
  const std::unique_ptr<MDB_cursor, decltype(&mdb_cursor_close)> cursor(raw, mdb_cursor_close);
  uint64_t images = 0;
  MDB_val key, value;
  int rc;
  while ((rc = mdb_cursor_get(raw, &key, &value, MDB_NEXT)) == 0) {
    uint64_t first = 0;
    if (!ParseOrdinalKey(Bytes(key), &first) || first != images) {
      return Fail(ErrorCode::kCorruption, fmt::format("expected a block of image {}", images));
    }
    FKDB_ASSIGN(const BlockView block, BlockView::Open(Bytes(value), first));
    for (uint32_t i = 0; i < block.count(); ++i, ++images) {
      FKDB_ASSIGN(const auto bytes, block.Record(i));
      FKDB_TRY(body(images, bytes));
    }
  }
  if (rc != MDB_NOTFOUND) return LmdbFail(rc, "read the blocks back");
  return images;
}

Result<LabelFileWriter> LabelFileWriter::Open(const std::filesystem::path& path, const Manifest& recipe,
                                              const LabelFileWriterOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->partial = PartialPath(path);
  impl->options = options;
  impl->manifest = recipe;
  impl->packer = BlockPacker(options.block_bytes);
  FKDB_TRY(CheckOutput(path, options.resume, options.overwrite));
  FKDB_ASSIGN(LockFile lock, LockFile::Acquire(WriterLockPath(path)));
  impl->lock = std::make_unique<LockFile>(std::move(lock));
  FKDB_TRY(CheckOutput(path, options.resume, options.overwrite));  // another writer may have finished before the lock was ours
  if (auto started = impl->Start(); !started) return impl->In(std::move(started).error());
  return LabelFileWriter(std::move(impl));
}

LabelFileWriter::LabelFileWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LabelFileWriter::LabelFileWriter(LabelFileWriter&&) noexcept = default;
LabelFileWriter& LabelFileWriter::operator=(LabelFileWriter&&) noexcept = default;

LabelFileWriter::~LabelFileWriter() {
  if (!impl_) return;
  impl_->env.reset();
  std::error_code ec;
  std::filesystem::remove(LmdbLockPath(impl_->partial), ec);
}

uint64_t LabelFileWriter::num_images() const { return impl_->packed_images + impl_->packer.size(); }

Result<std::vector<uint64_t>> LabelFileWriter::CommittedKeyHashes() {
  std::vector<uint64_t> hashes;
  auto read = impl_->ForEachRecord([&](uint64_t, std::span<const std::byte> bytes) -> Result<void> {
    FKDB_ASSIGN(const RecordView record, RecordView::Open(bytes, impl_->manifest.spec));
    hashes.push_back(record.key_hash());
    return {};
  });
  if (!read) return impl_->In(std::move(read).error());
  return hashes;
}

// Moves finished blocks out of the packer.
void LabelFileWriter::Impl::Pack(bool all) {
  while (!packer.empty() && (all || packer.ready())) {
    const auto records = packer.TakeBlock();
    pending.push_back({packed_images, BuildBlock(packed_images, records)});
    pending_bytes += pending.back().bytes.size();
    packed_images += records.size();
    block_begun = Clock::now();
  }
}

// With `open_block` also the records that no block has yet, as a block of its own: a later commit puts
// the full block in its place, so that a slow teacher's file is packed as well as any.
Result<void> LabelFileWriter::Impl::Commit(bool open_block) {
  last_commit = Clock::now();
  // What was committed once stays: a full block that ends earlier than the open one did is not enough.
  open_block |= committed_images > packed_images;
  if (pending.empty() && !open_block) return {};
  std::vector<std::byte> open;
  if (open_block) {
    open = BuildBlock(packed_images, packer.records());
    block_begun = last_commit;
  }
  FKDB_TRY(Transact([&](MDB_txn* txn) {
    MDB_dbi blocks;
    int rc = mdb_dbi_open(txn, kBlocksDatabase, 0, &blocks);
    unsigned flags = 0;  // the first may replace what was an open block
    const auto put = [&](uint64_t first_ordinal, const std::vector<std::byte>& block) {
      OrdinalKey ordinal(first_ordinal);
      MDB_val key = ordinal.val(), value = Value(block);
      if (rc == 0) rc = mdb_put(txn, blocks, &key, &value, flags);
      flags = MDB_APPEND;
    };
    for (const PendingBlock& block : pending) put(block.first_ordinal, block.bytes);
    if (open_block) put(packed_images, open);
    return rc;
  }));
  pending.clear();
  pending_bytes = 0;
  committed_images = packed_images + (open_block ? packer.size() : 0);
  return {};
}

Result<void> LabelFileWriter::Append(std::vector<std::byte> record) {
  Impl& w = *impl_;
  if (w.packer.empty()) w.block_begun = Clock::now();
  w.packer.Add(std::move(record));
  w.Pack(/*all=*/false);
  if (w.pending_bytes >= w.options.commit_bytes || SecondsSince(w.last_commit) >= w.options.commit_seconds) {
    const bool overdue = !w.packer.empty() && SecondsSince(w.block_begun) > w.options.short_block_seconds;
    if (auto committed = w.Commit(overdue); !committed) return w.In(std::move(committed).error());
  }
  return {};
}

Result<void> LabelFileWriter::Flush() {
  impl_->Pack(/*all=*/true);
  if (auto committed = impl_->Commit(); !committed) return impl_->In(std::move(committed).error());
  return {};
}

// Every record as it lies in the file: checks it against its key, counts, and computes the digest.
Result<void> LabelFileWriter::Impl::ReadBack(std::span<const std::string> keys) {
  Tally tally(manifest);
  // Slices in order: the images of a slice on all threads, then what they add up to here.
  constexpr size_t kSlice = 1024;
  std::vector<std::span<const std::byte>> slice;
  std::vector<Result<Tally::Image>> checked;
  uint64_t first = 0;
  const auto check_slice = [&]() -> Result<void> {
    checked.assign(slice.size(), Tally::Image());
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t i; (i = next++) < slice.size();) checked[i] = tally.Check(keys[first + i], slice[i]);
    };
    {
      std::vector<std::jthread> helpers;
      for (int t = 1; t < options.threads; ++t) helpers.emplace_back(work);
      work();
    }
    for (const auto& image : checked) {
      if (!image) return Fail(image.error());
      tally.Add(*image);
    }
    first += slice.size();
    slice.clear();
    return {};
  };
  FKDB_ASSIGN(const uint64_t images, ForEachRecord([&](uint64_t ordinal, std::span<const std::byte> bytes) -> Result<void> {
    if (ordinal >= keys.size()) return {};  // too many: counted below
    slice.push_back(bytes);
    return slice.size() == kSlice ? check_slice() : Result<void>();
  }));
  FKDB_TRY(check_slice());
  if (images != keys.size()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{} images were appended, {} keys given", images, keys.size()));
  }
  tally.Finish(&manifest);
  if (!options.digest.empty() && manifest.digest != options.digest) {
    return Fail(ErrorCode::kCorruption, fmt::format("digest {}, expected {}", manifest.digest, options.digest));
  }
  return {};
}

// Open blocks leave free pages behind when full ones replace them. Where they are over 1 % of `pages`,
// writes the file without them to CompactPath; false if that is not worth it or there is no room.
Result<bool> LabelFileWriter::Impl::Compact(uint64_t pages) {
  uint64_t free_pages = 0;
  {
    FKDB_ASSIGN(const TxnPtr txn, BeginTxn(env.get(), MDB_RDONLY));
    MDB_cursor* raw = nullptr;
    constexpr MDB_dbi kFreeList = 0;  // key: transaction; value: a count, then so many page numbers
    if (const int rc = mdb_cursor_open(txn.get(), kFreeList, &raw)) return LmdbFail(rc, "count the free pages");
    const std::unique_ptr<MDB_cursor, decltype(&mdb_cursor_close)> cursor(raw, mdb_cursor_close);
    MDB_val key, value;
    while (mdb_cursor_get(raw, &key, &value, MDB_NEXT) == 0) {
      size_t count = 0;
      std::memcpy(&count, value.mv_data, sizeof count);
      free_pages += count;
    }
  }
  if (free_pages * 100 <= pages) return false;
  std::error_code ec;
  std::filesystem::remove(CompactPath(path), ec);
  if (mdb_env_copy2(env.get(), CompactPath(path).c_str(), MDB_CP_COMPACT) == 0) return true;
  std::filesystem::remove(CompactPath(path), ec);
  return false;
}

Result<Manifest> LabelFileWriter::Finish(std::span<const std::string> keys) {
  Impl& w = *impl_;
  FKDB_TRY(Flush());
  w.manifest.data_set.num_images = keys.size();
  w.manifest.data_set.key_list_sha256 = Sha256OfKeys(keys);
  if (auto read = w.ReadBack(keys); !read) return w.In(std::move(read).error());
  FKDB_ASSIGN(const std::vector<std::byte> names, BuildNamesTable(keys));
  const std::string sealed = SealManifest(ToJson(w.manifest));
  auto written = w.Transact([&](MDB_txn* txn) {
    MDB_dbi meta, dbi;
    int rc = mdb_dbi_open(txn, kMetaDatabase, 0, &meta);
    if (rc == 0) rc = mdb_dbi_open(txn, kNamesDatabase, 0, &dbi);
    OrdinalKey zero(0);
    MDB_val names_key = zero.val(), names_value = Value(names);
    if (rc == 0) rc = mdb_put(txn, dbi, &names_key, &names_value, 0);
    MDB_val key = {kManifestKey.size(), const_cast<char*>(kManifestKey.data())};
    MDB_val value = {sealed.size(), const_cast<char*>(sealed.data())};
    if (rc == 0) rc = mdb_put(txn, meta, &key, &value, 0);
    return rc;
  });
  if (!written) return w.In(std::move(written).error());

  MDB_envinfo info;
  MDB_stat stat;
  int rc = mdb_env_info(w.env.get(), &info);
  if (rc == 0) rc = mdb_env_stat(w.env.get(), &stat);
  if (rc != 0) return LmdbFail(rc, "read the number of pages");
  FKDB_ASSIGN(const bool compacted, w.Compact(info.me_last_pgno + 1));
  w.env.reset();
  FKDB_TRY(Publish(compacted ? CompactPath(w.path) : w.partial, w.path,
                   compacted ? 0 : (info.me_last_pgno + 1) * stat.ms_psize, w.options.overwrite));
  std::error_code ec;
  if (compacted) std::filesystem::remove(w.partial, ec);
  std::filesystem::remove(LmdbLockPath(w.partial), ec);
  w.lock.reset();
  return w.manifest;
}

}  // namespace fkdb
