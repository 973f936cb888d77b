// SPDX-License-Identifier: Apache-2.0
#include "db/label_file.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "db/file_names.h"
#include "db/lmdb_env.h"
#include "db/page_walk.h"
#include "db/range_index.h"
#include "format/text.h"
#include "format/record.h"

namespace fkdb {

FileUse& FileUse::operator+=(const FileUse& other) {
  for (const auto part : {&FileUse::file_bytes, &FileUse::record_bytes, &FileUse::directory_bytes, &FileUse::names_bytes,
                          &FileUse::manifest_bytes, &FileUse::lmdb_bytes, &FileUse::waste_bytes}) {
    this->*part += other.*part;
  }
  return *this;
}

struct LabelFile::Impl {
  std::filesystem::path path;
  bool partial = false;
  Manifest manifest;
  EnvPtr env;
  TxnPtr txn;  // keeps every pointer below valid; destroyed before env
  RangeIndex block_index;  // ordinal -> block
  std::vector<std::span<const std::byte>> blocks;  // where they lie in the map
  // Of each block: 1 once its header and directory were checked. What they say is proven again by the
  // checksum of each record that is read.
  std::unique_ptr<std::atomic<uint8_t>[]> checked;
  uint64_t num_images = 0;
  NamesTable names;
  FileUse use;  // without the parts that only the blocks tell

  tl::unexpected<Error> In(Error error) const {
    return Fail(error.code, fmt::format("{}: {}", path.string(), error.message));
  }

  // Images of a block.
  uint32_t BlockCount(size_t index) const {
    const uint64_t end = index + 1 < blocks.size() ? block_index.start(index + 1) : num_images;
    return static_cast<uint32_t>(std::min<uint64_t>(end - block_index.start(index), UINT32_MAX));
  }

  Result<void> Map();
  Result<void> ReadManifest();
  Result<void> IndexBlocks();
  Result<void> ReadNames();
  Result<void> MeasureUse();
};

namespace {

// Of a finished file: its structure and its version, read with pread.
Result<void> CheckStructure(const std::filesystem::path& path) {
  FKDB_ASSIGN(const FileLayout layout, WalkPages(path));
  const auto meta = layout.databases.find(kMetaDatabase);
  if (meta == layout.databases.end()) {
    return Fail(ErrorCode::kCorruption, "an LMDB file, but not a label set: it has no database 'meta'");
  }
  for (const StoredValue& value : meta->second) {
    if (value.key != kFormatKey) continue;
    FKDB_ASSIGN(const std::string bytes, ReadAt(path, value.offset, std::min<uint64_t>(value.size, 64)));
    FKDB_ASSIGN(const uint32_t version, ParseFormatValue(std::as_bytes(std::span(bytes))));
    if (version > kFormatVersion) {
      return Fail(ErrorCode::kUnsupported,
                  fmt::format("label format version {} is newer than this fkdb reads ({}): update fkdb", version,
                              kFormatVersion));
    }
    return {};
  }
  return Fail(ErrorCode::kCorruption, "an LMDB file, but not a label set: the format mark is missing");
}

// Asks the kernel for the pages of `bytes`, in one go. Changes nothing but speed.
void ReadAhead(std::span<const std::byte> bytes) {
  constexpr uintptr_t kPage = 4096;
  const auto first = reinterpret_cast<uintptr_t>(bytes.data()) / kPage * kPage;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size());
  ::madvise(reinterpret_cast<void*>(first), end - first, MADV_WILLNEED);
}

Result<std::span<const std::byte>> GetMeta(MDB_txn* txn, MDB_dbi meta, std::string_view name) {
  MDB_val key = {name.size(), const_cast<char*>(name.data())}, value;
  const int rc = mdb_get(txn, meta, &key, &value);
  if (rc == MDB_NOTFOUND) {
    return Fail(ErrorCode::kCorruption, fmt::format("not a label set: '{}' is missing", name));
  }
  if (rc) return LmdbFail(rc, "read the meta database");
  return Bytes(value);
}

}  // namespace

Result<void> LabelFile::Impl::Map() {
  const unsigned flags = MDB_RDONLY | MDB_NOTLS | (partial ? 0 : MDB_NOLOCK | MDB_NORDAHEAD);
  FKDB_ASSIGN(env, OpenEnv(path, flags, 0));
  if (partial) {
    int dead = 0;
    mdb_reader_check(env.get(), &dead);
  }
  FKDB_ASSIGN(txn, BeginTxn(env.get(), MDB_RDONLY));
  return {};
}

Result<void> LabelFile::Impl::ReadManifest() {
  FKDB_ASSIGN(const MDB_dbi meta, OpenDatabase(txn.get(), kMetaDatabase, 0));
  FKDB_ASSIGN(const auto mark, GetMeta(txn.get(), meta, kFormatKey));
  FKDB_ASSIGN(const uint32_t version, ParseFormatValue(mark));
  FKDB_ASSIGN(const auto sealed, GetMeta(txn.get(), meta, kManifestKey));
  FKDB_ASSIGN(const std::string_view json, UnsealManifest(sealed));
  use.manifest_bytes = mark.size() + sealed.size();
  FKDB_ASSIGN(manifest, ParseManifest(json));
  if (version != kFormatVersion) {
    return Fail(ErrorCode::kCorruption, fmt::format("format mark of version {}, manifest of version {}", version,
                                                    kFormatVersion));
  }
  return {};
}

Result<void> LabelFile::Impl::IndexBlocks() {
  FKDB_ASSIGN(const MDB_dbi dbi, OpenDatabase(txn.get(), kBlocksDatabase, 0));
  MDB_cursor* raw = nullptr;
  if (const int rc = mdb_cursor_open(txn.get(), dbi, &raw)) return LmdbFail(rc, "list the blocks");
  const std::unique_ptr<MDB_cursor, decltype(&mdb_cursor_close)> cursor(raw, mdb_cursor_close);
  std::vector<uint64_t> first_ordinals;
  MDB_val key, value;
  int rc;
  while ((rc = mdb_cursor_get(raw, &key, &value, MDB_NEXT)) == 0) {
    uint64_t ordinal;
    if (!ParseOrdinalKey(Bytes(key), &ordinal)) return Fail(ErrorCode::kCorruption, "a block's key is not an ordinal");
    if (reinterpret_cast<uintptr_t>(value.mv_data) % 8 != 0) {
      return Fail(ErrorCode::kCorruption, fmt::format("block of image {} is not aligned", ordinal));
    }
    first_ordinals.push_back(ordinal);
    blocks.push_back(Bytes(value));
  }
  if (rc != MDB_NOTFOUND) return LmdbFail(rc, "list the blocks");
  if (blocks.empty()) return {};
  if (first_ordinals[0] != 0) {
    return Fail(ErrorCode::kCorruption, fmt::format("the first block begins with image {}", first_ordinals[0]));
  }
  FKDB_ASSIGN(const BlockView last, BlockView::Open(blocks.back(), first_ordinals.back()));
  num_images = first_ordinals.back() + last.count();
  block_index = RangeIndex(std::move(first_ordinals), num_images);
  checked = std::make_unique<std::atomic<uint8_t>[]>(blocks.size());
  return {};
}

Result<void> LabelFile::Impl::ReadNames() {
  FKDB_ASSIGN(const MDB_dbi dbi, OpenDatabase(txn.get(), kNamesDatabase, 0));
  OrdinalKey zero(0);
  MDB_val key = zero.val(), value;
  const int rc = mdb_get(txn.get(), dbi, &key, &value);
  if (rc == MDB_NOTFOUND) return Fail(ErrorCode::kCorruption, "the names table is missing");
  if (rc) return LmdbFail(rc, "read the names table");
  ReadAhead(Bytes(value));  // all of it is about to be hashed; the map is opened for random access
  FKDB_ASSIGN(names, NamesTable::Open(Bytes(value)));
  use.names_bytes = value.mv_size;
  if (names.size() != num_images || manifest.num_images != num_images) {
    return Fail(ErrorCode::kCorruption,
                fmt::format("{} images in the blocks, {} in the names table, {} in the manifest", num_images,
                            names.size(), manifest.num_images));
  }
  return {};
}

// What LMDB's own counts say of this snapshot. Values above half a page lie in overflow runs: a
// header of 16 bytes, the value, and a wasted end of the last page.
Result<void> LabelFile::Impl::MeasureUse() {
  uint64_t page = 0, tree_pages = 0, overflow_pages = 0;
  const auto add = [&](const MDB_stat& stat) {
    page = stat.ms_psize;
    tree_pages += stat.ms_branch_pages + stat.ms_leaf_pages;
    overflow_pages += stat.ms_overflow_pages;
  };
  MDB_stat stat;
  for (const MDB_dbi internal : {MDB_dbi{0}, MDB_dbi{1}}) {  // the free list and the main tree
    if (const int rc = mdb_stat(txn.get(), internal, &stat)) return LmdbFail(rc, "count the pages");
    add(stat);
  }
  uint64_t inline_bytes = 0, large_bytes = 0, large_values = 0;
  for (const char* name : {kMetaDatabase, kBlocksDatabase, kNamesDatabase}) {
    FKDB_ASSIGN(const MDB_dbi dbi, OpenDatabase(txn.get(), name, 0));
    if (const int rc = mdb_stat(txn.get(), dbi, &stat)) return LmdbFail(rc, "count the pages");
    add(stat);
    MDB_cursor* raw = nullptr;
    if (const int rc = mdb_cursor_open(txn.get(), dbi, &raw)) return LmdbFail(rc, "list a database");
    const std::unique_ptr<MDB_cursor, decltype(&mdb_cursor_close)> cursor(raw, mdb_cursor_close);
    MDB_val key, value;
    while (mdb_cursor_get(raw, &key, &value, MDB_NEXT) == 0) {
      const bool large = reinterpret_cast<uintptr_t>(value.mv_data) % page == 16;
      (large ? large_bytes : inline_bytes) += value.mv_size;
      large_values += large;
    }
  }
  MDB_envinfo info;
  if (const int rc = mdb_env_info(env.get(), &info)) return LmdbFail(rc, "count the pages");
  std::error_code ec;
  use.file_bytes = std::filesystem::file_size(path, ec);
  if (ec) return Fail(ErrorCode::kIoError, "cannot read its size: " + ec.message());
  use.lmdb_bytes = (2 + tree_pages) * page - inline_bytes + large_values * 16;
  const uint64_t held = use.lmdb_bytes + inline_bytes + large_bytes;
  use.waste_bytes = use.file_bytes - std::min(use.file_bytes, held);
  return {};
}

Result<LabelFile> LabelFile::Open(const std::filesystem::path& path, const LabelFileOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->partial = path.extension() == ".partial";
  const auto in = [&](Result<void> result) -> Result<void> {
    if (result) return result;
    return impl->In(std::move(result).error());
  };
  std::error_code ec;
  if (!std::filesystem::exists(path, ec)) {
    const bool begun = std::filesystem::exists(PartialPath(path), ec);
    return Fail(begun ? ErrorCode::kIncomplete : ErrorCode::kNotFound,
                begun ? fmt::format("{}: not finished: only {} is there; finish it with fkdb-write --resume",
                                    path.string(), PartialPath(path).string())
                      : fmt::format("{}: no such file", path.string()));
  }
  if (!std::filesystem::is_regular_file(path, ec)) {
    return Fail(ErrorCode::kIoError, fmt::format("{}: not a file", path.string()));
  }
  if (impl->partial && !options.allow_partial) {
    return Fail(ErrorCode::kIncomplete,
                fmt::format("{}: not finished; finish it with fkdb-write --resume", path.string()));
  }
  if (!impl->partial) FKDB_TRY(in(CheckStructure(path)));
  FKDB_TRY(in(impl->Map()));
  FKDB_TRY(in(impl->ReadManifest()));
  if (!impl->partial && !impl->manifest.complete) {
    return Fail(ErrorCode::kIncomplete, fmt::format("{}: its manifest says it was never finished", path.string()));
  }
  FKDB_TRY(in(impl->IndexBlocks()));
  if (!impl->partial) FKDB_TRY(in(impl->ReadNames()));
  FKDB_TRY(in(impl->MeasureUse()));
  return LabelFile(std::move(impl));
}

LabelFile::LabelFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LabelFile::~LabelFile() = default;
LabelFile::LabelFile(LabelFile&&) noexcept = default;
LabelFile& LabelFile::operator=(LabelFile&&) noexcept = default;

const std::filesystem::path& LabelFile::path() const { return impl_->path; }
const Manifest& LabelFile::manifest() const { return impl_->manifest; }
bool LabelFile::partial() const { return impl_->partial; }
uint64_t LabelFile::num_images() const { return impl_->num_images; }
size_t LabelFile::num_blocks() const { return impl_->blocks.size(); }
uint64_t LabelFile::block_first_ordinal(size_t index) const { return impl_->block_index.start(index); }
const NamesTable& LabelFile::names() const { return impl_->names; }

Result<BlockView> LabelFile::Block(size_t index) const {
  const uint64_t first = impl_->block_index.start(index);
  auto block = BlockView::Open(impl_->blocks[index], first);
  if (!block) return impl_->In(std::move(block).error());
  if (block->count() != impl_->BlockCount(index)) {
    return impl_->In({ErrorCode::kCorruption, fmt::format("block of image {}: {} images, expected {}", first,
                                                          block->count(), impl_->BlockCount(index))});
  }
  return block;
}

std::span<const std::byte> LabelFile::mapped_blocks() const {
  if (impl_->blocks.empty()) return {};
  const auto [first, last] = std::minmax_element(impl_->blocks.begin(), impl_->blocks.end(),
                                                 [](const auto& a, const auto& b) { return a.data() < b.data(); });
  return {first->data(), last->data() + last->size()};
}

Result<std::span<const std::byte>> LabelFile::RecordBytes(uint64_t ordinal) const {
  if (ordinal >= impl_->num_images) {
    return impl_->In({ErrorCode::kNotFound, fmt::format("no image {}: the label set has {} (counted from 0)", ordinal,
                                                        impl_->num_images)});
  }
  return RecordBytes(SlotOf(ordinal));
}

LabelFile::Slot LabelFile::SlotOf(uint64_t ordinal) const {
  const size_t block = impl_->block_index.Find(ordinal);
  return {static_cast<uint32_t>(block), static_cast<uint32_t>(ordinal - impl_->block_index.start(block))};
}

Result<std::span<const std::byte>> LabelFile::RecordBytes(Slot slot) const {
  std::atomic<uint8_t>& checked = impl_->checked[slot.block];
  if (!checked.load(std::memory_order_relaxed)) {
    FKDB_TRY(Block(slot.block));
    checked.store(1, std::memory_order_relaxed);
  }
  const BlockView block = BlockView::Known(impl_->blocks[slot.block], impl_->BlockCount(slot.block));
  auto record = block.Record(slot.position);
  if (!record) {
    return impl_->In({record.error().code, fmt::format("image {}: {}", impl_->block_index.start(slot.block) + slot.position,
                                                       record.error().message)});
  }
  return record;
}

void LabelFile::PrefetchEntry(Slot slot) const {
  const std::byte* block = impl_->blocks[slot.block].data();
  __builtin_prefetch(block + BlockBytes(slot.position, 0));
}

void LabelFile::PrefetchRecord(Slot slot) const {
  const auto record = UncheckedRecord(impl_->blocks[slot.block], slot.position);
  for (size_t at = 0; at < std::min<size_t>(record.size(), 4096); at += 64) __builtin_prefetch(record.data() + at);
}

Result<uint64_t> LabelFile::Find(std::string_view key) const {
  const auto missing = [&] {
    return impl_->In({ErrorCode::kNotFound, fmt::format("no image '{}' in it", Printable(key))});
  };
  if (!impl_->partial) {
    auto ordinal = impl_->names.Find(key);
    if (!ordinal) return impl_->In(std::move(ordinal).error());
    if (!*ordinal) return missing();
    return **ordinal;
  }
  const uint64_t wanted = Hash64(key);
  for (uint64_t ordinal = 0; ordinal < impl_->num_images; ++ordinal) {
    FKDB_ASSIGN(const auto bytes, RecordBytes(ordinal));
    auto view = RecordView::Open(bytes, impl_->manifest.spec);
    if (!view) return impl_->In(std::move(view).error());
    if (view->key_hash() == wanted) return ordinal;
  }
  return missing();
}

Result<std::optional<std::string>> LabelFile::Key(uint64_t ordinal) const {
  if (impl_->partial) return std::optional<std::string>();
  auto key = impl_->names.Key(ordinal);
  if (!key) return impl_->In(std::move(key).error());
  return std::optional<std::string>(*std::move(key));
}

Result<FileUse> LabelFile::Use() const {
  FileUse use = impl_->use;
  for (size_t i = 0; i < num_blocks(); ++i) {
    FKDB_ASSIGN(const BlockView block, Block(i));
    use.record_bytes += block.record_bytes();
    use.directory_bytes += BlockBytes(block.count(), 0);
  }
  return use;
}

}  // namespace fkdb
