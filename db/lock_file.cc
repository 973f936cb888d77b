// SPDX-License-Identifier: Apache-2.0
#include "db/lock_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/sync/file_lock.hpp>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>

namespace fkdb {
namespace {

namespace ipc = boost::interprocess;

// fcntl locks say nothing within one process.
std::mutex held_mutex;
std::set<std::filesystem::path>& Held() {
  static std::set<std::filesystem::path> held;
  return held;
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

struct LockFile::Impl {
  std::filesystem::path path;
  Descriptor keep;  // closed only after the lock is given back: see the header
  ipc::file_lock lock;
};

LockFile::LockFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LockFile::LockFile(LockFile&&) noexcept = default;
LockFile& LockFile::operator=(LockFile&&) noexcept = default;

LockFile::~LockFile() {
  if (!impl_) return;
  // Unlink first: whoever opens the path from now on gets a new file, and whoever opened the old
  // one sees, once it has the lock, that the path no longer leads to it.
  ::unlink(impl_->path.c_str());
  const std::lock_guard guard(held_mutex);
  Held().erase(impl_->path);
}

Result<LockFile> LockFile::Acquire(const std::filesystem::path& path) {
  std::error_code ec;
  const auto absolute = std::filesystem::absolute(path, ec);
  const auto locked = [&] {
    return Fail(ErrorCode::kLocked, fmt::format("{}: another writer is at work on this label set; wait for it "
                                                "to end (its lock vanishes with it)",
                                                path.string()));
  };
  const std::lock_guard guard(held_mutex);
  if (Held().contains(absolute)) return locked();
  for (;;) {
    auto impl = std::make_unique<Impl>();
    impl->path = absolute;
    impl->keep.fd = ::open(absolute.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    struct stat kept, named;
    if (impl->keep.fd < 0 || ::fstat(impl->keep.fd, &kept) != 0) {
      return Fail(ErrorCode::kIoError,
                  fmt::format("{}: cannot create the lock file: {}", path.string(), std::strerror(errno)));
    }
    try {
      impl->lock = ipc::file_lock(absolute.c_str());
      if (!impl->lock.try_lock()) return locked();
    } catch (const ipc::interprocess_exception& e) {
      return Fail(ErrorCode::kIoError, fmt::format("{}: cannot lock: {}", path.string(), e.what()));
    }
    // The holder before us may have removed the file between our open and our lock.
    if (::stat(absolute.c_str(), &named) == 0 && named.st_ino == kept.st_ino && named.st_dev == kept.st_dev) {
      Held().insert(absolute);
      return LockFile(std::move(impl));
    }
  }
}

}  // namespace fkdb
