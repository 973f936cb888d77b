// SPDX-License-Identifier: Apache-2.0
#include "db/publish.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "db/file_names.h"

namespace fkdb {
namespace {

Result<void> Sync(const std::filesystem::path& path, int flags, uint64_t cut_to) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  const auto fail = [&](const char* what) {
    const int code = errno;
    if (fd >= 0) ::close(fd);
    return Fail(ErrorCode::kIoError, fmt::format("{}: cannot {}: {}", path.string(), what, std::strerror(code)));
  };
  if (fd < 0) return fail("open");
  if (cut_to > 0) {
    struct stat info;
    if (::fstat(fd, &info) != 0) return fail("read its size");
    if (static_cast<uint64_t>(info.st_size) != cut_to && ::ftruncate(fd, static_cast<off_t>(cut_to)) != 0) {
      return fail("cut to its used pages");
    }
  }
  if (::fsync(fd) != 0) return fail("sync");
  ::close(fd);
  return {};
}

}  // namespace

Result<void> CheckOutput(const std::filesystem::path& path, bool resume, bool overwrite) {
  std::error_code ec;
  const auto partial = PartialPath(path);
  if (path.extension() == ".partial") {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: .partial is what an unfinished label set is called; choose another name", path.string()));
  }
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  if (!std::filesystem::is_directory(folder, ec)) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no such folder for the output", folder.string()));
  }
  if (std::filesystem::exists(path, ec) && !overwrite) {
    return Fail(ErrorCode::kAlreadyExists,
                fmt::format("{}: exists already; choose another name, or --overwrite to replace it", path.string()));
  }
  for (const auto& left : {partial, JobPath(path)}) {
    if (!std::filesystem::exists(left, ec) || resume || overwrite) continue;
    return Fail(ErrorCode::kAlreadyExists,
                fmt::format("{}: an interrupted build is there; --resume continues it, --overwrite throws it away", left.string()));
  }
  return {};
}

Result<void> Publish(const std::filesystem::path& from, const std::filesystem::path& to, uint64_t bytes,
                     bool replace) {
  FKDB_TRY(Sync(from, O_RDWR, bytes));
  int rc = ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), replace ? 0 : RENAME_NOREPLACE);
  if (rc != 0 && errno == EINVAL && !replace) {
    // Some file systems lack the flag. link() refuses an existing name as well.
    rc = ::link(from.c_str(), to.c_str());
    if (rc == 0) rc = ::unlink(from.c_str());
  }
  if (rc != 0) {
    const bool exists = errno == EEXIST;
    return Fail(exists ? ErrorCode::kAlreadyExists : ErrorCode::kIoError,
                fmt::format("{}: cannot rename to {}: {}", from.string(), to.string(), std::strerror(errno)));
  }
  const auto folder = to.has_parent_path() ? to.parent_path() : std::filesystem::path(".");
  return Sync(folder, O_RDONLY | O_DIRECTORY, 0);
}

Result<void> PublishText(const std::filesystem::path& path, std::string_view text, bool replace) {
  const auto partial = PartialPath(path);
  std::error_code ec;
  std::filesystem::remove(partial, ec);  // what is left of an interrupted run, or a link to anywhere
  std::ofstream out(partial, std::ios::binary | std::ios::trunc);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  Result<void> done;
  if (!out) done = Fail(ErrorCode::kIoError, fmt::format("{}: cannot write it: {}", partial.string(), std::strerror(errno)));
  if (done) done = Publish(partial, path, 0, replace);
  if (!done) std::filesystem::remove(partial, ec);
  return done;
}

}  // namespace fkdb
