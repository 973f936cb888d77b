// SPDX-License-Identifier: Apache-2.0
// Where the files in a tar archive lie, so that any of them is read without the others. For image's own
// sources and the tests.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "format/result.h"

namespace fkdb {

struct TarMember {
  std::string path;  // without a leading "./"
  uint64_t offset;   // of its bytes in the archive
  uint64_t size;
};

// The regular files in archive order: POSIX ustar and pax (long paths, large files), GNU tar's long names and
// base-256 sizes. Folders, links and devices are left out. Reads headers only. Errors: NotFound, IoError,
// Corruption (not a tar archive, or where it is broken), Unsupported (compressed, sparse files).
Result<std::vector<TarMember>> IndexTar(const std::filesystem::path& path);
// The same of an open file of so many bytes; messages do not name it.
Result<std::vector<TarMember>> IndexTar(std::FILE* file, uint64_t size);

}  // namespace fkdb
