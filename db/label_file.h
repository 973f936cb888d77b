// SPDX-License-Identifier: Apache-2.0
// One label file, opened to be read: checks it, maps it, and serves the bytes of its records where
// they lie.
//
// A finished file is immutable and is opened without any lock, also on read-only media. What is
// checked at open: the version, the structure of LMDB's pages (before LMDB maps them), manifest and
// names table; at each read: the block's header and directory and the record's checksum. A
// `.partial`, which a writer may be filling, is opened only on request, with LMDB's lock, and shows
// what was committed so far.
//
// Thread-safe once open, and usable in forked children: no call after Open reaches liblmdb.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "db/block.h"
#include "db/manifest.h"
#include "db/names_table.h"
#include "format/result.h"

namespace fkdb {

struct LabelFileOptions {
  bool allow_partial = false;  // open a `.partial` too: for dump and audit
};

// Bytes of the file by what they hold.
struct FileUse {
  uint64_t file_bytes = 0;
  uint64_t record_bytes = 0;     // all records
  uint64_t directory_bytes = 0;  // block headers and directories
  uint64_t names_bytes = 0;
  uint64_t manifest_bytes = 0;
  uint64_t lmdb_bytes = 0;       // meta, branch and leaf pages, overflow page headers, less the values inside
  uint64_t waste_bytes = 0;      // ends of the pages of large values, and freed pages

  FileUse& operator+=(const FileUse& other);
};

class LabelFile {
 public:
  // Errors: NotFound, IoError, Corruption, Unsupported (newer version; LMDB 1.0), Incomplete (a
  // `.partial` without allow_partial). Messages begin with the path.
  static Result<LabelFile> Open(const std::filesystem::path& path, const LabelFileOptions& options = {});
  ~LabelFile();
  LabelFile(LabelFile&&) noexcept;
  LabelFile& operator=(LabelFile&&) noexcept;

  const std::filesystem::path& path() const;
  const Manifest& manifest() const;
  bool partial() const;
  // Images in the file: of a `.partial` those committed so far.
  uint64_t num_images() const;

  // The record of image `ordinal`, 8-byte aligned, valid as long as this LabelFile.
  // Errors: NotFound (no such ordinal), Corruption.
  Result<std::span<const std::byte>> RecordBytes(uint64_t ordinal) const;

  // The same in steps, for many images at a time: where each of them lies, ordinal < num_images(); then
  // its directory entry; then, when that has had time to arrive, the record. The prefetches ask the
  // processor to fetch what the next step touches, change nothing but speed, and never fail.
  struct Slot {
    uint32_t block;
    uint32_t position;  // in it
  };
  Slot SlotOf(uint64_t ordinal) const;
  void PrefetchEntry(Slot slot) const;
  void PrefetchRecord(Slot slot) const;
  Result<std::span<const std::byte>> RecordBytes(Slot slot) const;

  // Blocks in ordinal order; index < num_blocks().
  size_t num_blocks() const;
  uint64_t block_first_ordinal(size_t index) const;
  Result<BlockView> Block(size_t index) const;
  // The part of the map in which all blocks lie.
  std::span<const std::byte> mapped_blocks() const;

  // The ordinal of `key`. Errors: NotFound, Corruption. Without a names table (a `.partial`) every
  // record is asked for its key hash.
  Result<uint64_t> Find(std::string_view key) const;
  // The key of `ordinal` < num_images(); none in a `.partial`.
  Result<std::optional<std::string>> Key(uint64_t ordinal) const;
  const NamesTable& names() const;

  // Reads every block's header. Errors: Corruption.
  Result<FileUse> Use() const;

 private:
  struct Impl;
  explicit LabelFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fkdb
