// SPDX-License-Identifier: Apache-2.0
#include "image/tar_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>

namespace fkdb {
namespace {

constexpr uint64_t kBlock = 512;
constexpr uint64_t kMaxExtension = 1 << 20;  // bytes of a pax header or a long name

using Header = std::array<char, kBlock>;

// A text field, which ends at its first zero byte.
std::string_view Text(const Header& header, size_t at, size_t size) {
  return {header.data() + at, ::strnlen(header.data() + at, size)};
}

// Octal digits among blanks, or big-endian behind a set high bit. False: neither.
bool Number(const Header& header, size_t at, size_t size, uint64_t* number) {
  *number = 0;
  if (header[at] & '\x80') {
    for (size_t i = at; i < at + size; ++i) {
      if (*number >> 55 != 0) return false;
      *number = *number << 8 | static_cast<unsigned char>(i == at ? header[i] & 0x7f : header[i]);
    }
    return true;
  }
  std::string_view text = Text(header, at, size);
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  for (const char c : text) {
    if (c < '0' || c > '7') return false;
    *number = *number << 3 | static_cast<uint64_t>(c - '0');
  }
  return true;
}

bool ChecksumIsRight(const Header& header) {
  uint64_t stored = 0, sum = 0;
  if (!Number(header, 148, 8, &stored)) return false;
  for (size_t i = 0; i < kBlock; ++i) sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(header[i]);
  return sum == stored;
}

// What extended headers say of the member that follows them.
struct Extension {
  std::string path;  // empty: nothing
  bool has_size = false, sparse = false;
  uint64_t size = 0;
};

// Lines of "length key=value\n", the length counting all of itself.
bool ParsePax(std::string_view text, Extension* extension) {
  while (!text.empty()) {
    size_t length = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
    const auto digits = static_cast<size_t>(end - text.data());
    if (error != std::errc() || length <= digits + 1 || length > text.size() || text[digits] != ' ' ||
        text[length - 1] != '\n') {
      return false;
    }
    const std::string_view line = text.substr(digits + 1, length - digits - 2);
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) return false;
    const std::string_view key = line.substr(0, equals), value = line.substr(equals + 1);
    if (key == "path") extension->path = value;
    if (key.starts_with("GNU.sparse.")) extension->sparse = true;
    if (key == "size") {
      const auto number = std::from_chars(value.data(), value.data() + value.size(), extension->size);
      if (number.ec != std::errc() || number.ptr != value.data() + value.size()) return false;
      extension->has_size = true;
    }
    text.remove_prefix(length);
  }
  return true;
}

// gzip, Zstandard, xz, bzip2.
bool IsCompressed(const Header& header) {
  const std::string_view bytes(header.data(), header.size());
  return bytes.starts_with("\x1f\x8b") || bytes.starts_with("\x28\xb5\x2f\xfd") || bytes.starts_with("\xfd" "7zXZ") ||
         bytes.starts_with("BZh");
}

class Indexer {
 public:
  Indexer(std::FILE* file, uint64_t file_size) : file_(file), file_size_(file_size) {}

  Result<std::vector<TarMember>> Run() {
    if (file_size_ == 0) return Fail(ErrorCode::kCorruption, "the file is empty");
    Header header = {};
    if (ReadAt(0, header.data(), std::min<uint64_t>(file_size_, 8)) && IsCompressed(header)) {
      return Fail(ErrorCode::kUnsupported, "a compressed archive: its files cannot be read one by one; decompress it");
    }
    Extension extension;
    while (at_ < file_size_) {
      if (!Read(header.data(), kBlock)) return Broken("it ends in a header");
      if (std::all_of(header.begin(), header.end(), [](char c) { return c == 0; })) break;
      uint64_t size = 0;
      if (!ChecksumIsRight(header) || !Number(header, 124, 12, &size)) {
        if (at_ > 0) return Broken("its header is damaged");
        return Fail(ErrorCode::kCorruption, "not a tar archive");
      }
      const char type = header[156];
      const bool for_next = type == 'x' || type == 'L';
      if (!for_next && extension.has_size) size = extension.size;
      const uint64_t data = at_ + kBlock;
      if (type >= '1' && type <= '6') size = 0;  // links and folders have no bytes, whatever they say
      if (data > file_size_ || size > file_size_ - data) return Broken("the archive ends before it does");
      if (type == 'S' || extension.sparse) return Fail(ErrorCode::kUnsupported, fmt::format("member at byte {}: a sparse file", at_));
      if (for_next) {
        if (size > kMaxExtension) return Broken("an extended header of this size");
        std::string text(size, '\0');
        if (!ReadAt(data, text.data(), size)) return Broken("its extended header cannot be read");
        if (type == 'L') {
          extension.path = text.substr(0, text.find('\0'));
        } else if (!ParsePax(text, &extension)) {
          return Broken("its extended header is damaged");
        }
      } else if (type == '0' || type == '\0' || type == '7') {
        members_.push_back({PathOf(header, extension), data, size});
      }
      if (!for_next && type != 'g' && type != 'K') extension = {};
      at_ = data + (size + kBlock - 1) / kBlock * kBlock;
    }
    return std::move(members_);
  }

 private:
  tl::unexpected<Error> Broken(std::string_view what) const {
    return Fail(ErrorCode::kCorruption, fmt::format("broken tar archive: member at byte {}: {}", at_, what));
  }
  bool Read(char* to, uint64_t size) { return ReadAt(at_, to, size); }
  bool ReadAt(uint64_t at, char* to, uint64_t size) {
    return ::fseeko(file_, static_cast<off_t>(at), SEEK_SET) == 0 && std::fread(to, 1, size, file_) == size;
  }
  static std::string PathOf(const Header& header, const Extension& extension) {
    std::string path = extension.path;
    if (path.empty()) {
      path = Text(header, 0, 100);
      const std::string_view prefix = Text(header, 345, 155);
      if (Text(header, 257, 5) == "ustar" && header[262] == '\0' && !prefix.empty()) path = fmt::format("{}/{}", prefix, path);
    }
    while (path.starts_with("./")) path.erase(0, 2);
    return path;
  }

  std::FILE* file_;
  const uint64_t file_size_;
  uint64_t at_ = 0;
  std::vector<TarMember> members_;
};

}  // namespace

Result<std::vector<TarMember>> IndexTar(std::FILE* file, uint64_t size) { return Indexer(file, size).Run(); }

Result<std::vector<TarMember>> IndexTar(const std::filesystem::path& path) {
  const auto in = [&](ErrorCode code, std::string_view what) { return Fail(code, fmt::format("{}: {}", path.string(), what)); };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) return in(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIoError, std::strerror(errno));
  std::setvbuf(file.get(), nullptr, _IONBF, 0);  // one header at a time, far apart
  std::error_code ec;
  const uint64_t size = std::filesystem::file_size(path, ec);
  if (ec) return in(ErrorCode::kIoError, ec.message());
  auto members = IndexTar(file.get(), size);
  if (!members) return in(members.error().code, members.error().message);
  return members;
}

}  // namespace fkdb
