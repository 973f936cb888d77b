// SPDX-License-Identifier: Apache-2.0
// Whole files: the walk over LMDB's pages, and, where it lets a file pass, everything that is read of
// it through liblmdb.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "db/page_walk.h"
#include "reader/verify.h"
#include "tests/db/test_files.h"
#include "tests/fuzz/fuzz.h"

namespace fkdb {

std::vector<std::string> fuzz::Seeds() {
  std::vector<std::string> seeds;
  std::string folder = (std::filesystem::temp_directory_path() / "fkdb-fuzz-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) std::abort();
  const std::filesystem::path path = std::filesystem::path(folder) / "a.fkdb";
  for (const size_t block_bytes : {1024, 3000, 20000}) {
    LabelFileWriterOptions options;
    options.overwrite = true;
    options.block_bytes = block_bytes;
    options.commit_bytes = 8000;
    if (!test::RandomLabels(20).Build(path, options)) std::abort();
    seeds.push_back(test::ReadBytes(path));
  }
  std::filesystem::remove_all(folder);
  return seeds;
}

}  // namespace fkdb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fkdb;
  static const int file = ::memfd_create("fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (::ftruncate(file, 0) != 0 || ::pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  static_cast<void>(WalkPages(path, FileEnd::kBehindLastPage));
  if (WalkPages(path)) static_cast<void>(Verify(path));
  return 0;
}
