// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/whole_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "format/hash.h"

namespace fkdb {

Result<void> ReadWholeFile(const std::filesystem::path& path, uint64_t limit, std::vector<std::byte>* bytes) {
  std::error_code ec;
  if (const auto status = std::filesystem::status(path, ec); std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return Fail(ErrorCode::kIoError, "it is no file");  // a pipe would be waited for
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) {
    return Fail(errno == ENOENT || errno == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIoError,
                fmt::format("cannot open it: {}", std::strerror(errno)));
  }
  std::setvbuf(file.get(), nullptr, _IONBF, 0);
  const uint64_t size = std::filesystem::file_size(path, ec);
  if (ec) return Fail(ErrorCode::kIoError, fmt::format("cannot read it: {}", ec.message()));
  if (size > limit) return Fail(ErrorCode::kResourceExhausted, fmt::format("{} bytes: expected at most {}", size, limit));
  bytes->resize(size);
  bytes->resize(std::fread(bytes->data(), 1, size, file.get()));
  if (std::ferror(file.get())) return Fail(ErrorCode::kIoError, "cannot read it");
  return {};
}

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
