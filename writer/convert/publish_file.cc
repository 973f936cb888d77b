// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/publish_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "format/hash.h"

namespace fkdb {

Result<void> PublishFile(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const auto in = [&](const char* what) { return Fail(errno == ENOSPC ? ErrorCode::kResourceExhausted : ErrorCode::kIoError,
                                                      fmt::format("{}: {}: {}", path.string(), what, std::strerror(errno))); };
  // A name that is short whatever the file's is.
  const std::string partial = (path.parent_path() / fmt::format(".{:016x}.{}.partial", Hash64(path.filename().string()), ::getpid())).string();
  std::FILE* const file = std::fopen(partial.c_str(), "wb");
  if (!file) return in("cannot create it");
  std::setvbuf(file, nullptr, _IONBF, 0);
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  if (std::fclose(file) == 0 && written && std::rename(partial.c_str(), path.c_str()) == 0) return {};
  auto error = in("cannot write it");
  std::remove(partial.c_str());
  return error;
}

}  // namespace fkdb
