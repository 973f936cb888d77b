// SPDX-License-Identifier: Apache-2.0
// Reads an LMDB 0.9 file's own structure with pread, before liblmdb maps it: liblmdb believes every
// page it meets, so a damaged or crafted one makes it crash or serve other bytes. What passes here
// has every tree page inside the file, of the right type, owned once, with its nodes inside it and
// its keys in order. Overflow pages (the blocks) are only counted and claimed, not read: their
// content has its own checksums.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "format/result.h"

namespace fkdb {

// A value of a named database: where its bytes lie in the file.
struct StoredValue {
  std::string key;
  uint64_t offset;
  uint64_t size;
};

struct FileLayout {
  uint64_t file_bytes = 0;
  uint64_t page_bytes = 0;
  uint64_t used_pages = 0;      // up to and with the last one in use; the two meta pages included
  uint64_t tree_pages = 0;      // branch and leaf pages of all trees
  uint64_t overflow_pages = 0;  // pages of values too large for a leaf
  // Named databases and their values in key order.
  std::map<std::string, std::vector<StoredValue>> databases;
  // Pages in no tree: meta pages excluded, freed ones included.
  uint64_t free_pages() const { return used_pages - 2 - tree_pages - overflow_pages; }
};

// How large the file may be: a finished one ends with its last used page, an interrupted build may
// have written pages that no transaction owns yet.
enum class FileEnd { kAtLastPage, kBehindLastPage };

// Errors: NotFound, IoError, Corruption (says where), Unsupported (another LMDB's data version).
Result<FileLayout> WalkPages(const std::filesystem::path& path, FileEnd end = FileEnd::kAtLastPage);

// The `size` bytes at `offset`. Errors: IoError, Corruption (the file ends first).
Result<std::string> ReadAt(const std::filesystem::path& path, uint64_t offset, uint64_t size);

}  // namespace fkdb
