// SPDX-License-Identifier: Apache-2.0
// One writer at a time. A separate lock file, because closing any descriptor of a file drops the
// locks a process has on it; the system releases the lock when its holder dies.
#pragma once

#include <filesystem>
#include <memory>

#include "format/result.h"

namespace fkdb {

class LockFile {
 public:
  // Creates and locks `path` without waiting. Errors: Locked (another process, or another LockFile
  // of this one, holds it), IoError.
  static Result<LockFile> Acquire(const std::filesystem::path& path);
  // Removes the file, then releases it.
  ~LockFile();
  LockFile(LockFile&&) noexcept;
  LockFile& operator=(LockFile&&) noexcept;

 private:
  struct Impl;
  explicit LockFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fkdb
