// SPDX-License-Identifier: Apache-2.0
#include "db/share/shard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "db/varint.h"

namespace fkdb {
namespace {

constexpr std::string_view kIndexMagic = "FKDINDEX";
constexpr size_t kChunkBytes = 8 + 4 + 32;
constexpr uint32_t kMaxKeyBytes = 1u << 20;

template <class... Args>
tl::unexpected<Error> Corrupt(fmt::format_string<Args...> format, Args&&... args) {
  return Fail(ErrorCode::kCorruption, fmt::format(format, std::forward<Args>(args)...));
}

void AppendBytes(std::vector<std::byte>* out, const void* bytes, size_t size) {
  out->resize(out->size() + size);
  if (size > 0) std::memcpy(out->data() + out->size() - size, bytes, size);
}

template <class T>
void Append(std::vector<std::byte>* out, const T& value) {
  AppendBytes(out, &value, sizeof value);
}

void AppendText(std::vector<std::byte>* out, std::string_view text) { AppendBytes(out, text.data(), text.size()); }

// Reads plain numbers until the bytes end; from then on `good` is false.
class Numbers {
 public:
  explicit Numbers(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  T Next() {
    T value{};
    if (!Has(sizeof value)) return value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::string_view Text(size_t size) {
    if (!Has(size)) return {};
    at_ += size;
    return {reinterpret_cast<const char*>(bytes_.data()) + at_ - size, size};
  }
  bool good() const { return good_; }
  size_t left() const { return bytes_.size() - at_; }

 private:
  bool Has(size_t size) {
    good_ = good_ && left() >= size;
    return good_;
  }
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  bool good_ = true;
};

Error IoError(const std::filesystem::path& path, const char* what) {
  const int code = errno;
  const bool full = code == ENOSPC || code == EDQUOT || code == EFBIG;
  return {full ? ErrorCode::kResourceExhausted : ErrorCode::kIoError, fmt::format("{}: cannot {}: {}", path.string(), what, std::strerror(code))};
}

}  // namespace

uint64_t ShardIndex::images() const {
  uint64_t all = 0;
  for (const GroupPlace& group : groups) all += group.images;
  return all;
}

uint64_t ShardIndex::crops() const {
  uint64_t all = 0;
  for (const GroupPlace& group : groups) all += group.crops;
  return all;
}

std::string ShardName(size_t number) { return fmt::format("labels-{:05}.fkp", number); }

bool IsShardName(std::string_view name) {
  constexpr std::string_view kFront = "labels-", kBack = ".fkp";
  if (name.size() < kFront.size() + 5 + kBack.size() || name.size() > 40 || !name.starts_with(kFront) || !name.ends_with(kBack)) return false;
  const std::string_view digits = name.substr(kFront.size(), name.size() - kFront.size() - kBack.size());
  return std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; });
}

std::vector<std::byte> ShardHead() {
  std::vector<std::byte> head;
  AppendText(&head, kShardMagic);
  Append(&head, kShardVersion);
  Append(&head, uint32_t{0});
  return head;
}

std::vector<std::byte> EncodeIndex(const ShardIndex& index) {
  std::vector<std::byte> bytes;
  AppendText(&bytes, kIndexMagic);
  Append(&bytes, kShardVersion);
  Append(&bytes, static_cast<uint32_t>(index.groups.size()));
  Append(&bytes, static_cast<uint32_t>(index.groups.empty() ? 0 : index.groups[0].chunks.size()));
  for (const GroupPlace& group : index.groups) {
    Append(&bytes, group.images);
    Append(&bytes, group.crops);
    Append(&bytes, group.lowest_class);
    Append(&bytes, group.highest_class);
    Append(&bytes, static_cast<uint32_t>(group.first_key.size()));
    AppendText(&bytes, group.first_key);
    for (const ChunkPlace& chunk : group.chunks) {
      Append(&bytes, chunk.at);
      Append(&bytes, chunk.bytes);
      Append(&bytes, chunk.sha256);
    }
  }
  return bytes;
}

Result<ShardIndex> ParseIndex(std::span<const std::byte> bytes, size_t layers, uint64_t at) {
  Numbers numbers(bytes);
  if (numbers.Text(kIndexMagic.size()) != kIndexMagic) return Corrupt("index: not one of a shard");
  const auto version = numbers.Next<uint32_t>(), groups = numbers.Next<uint32_t>(), chunks = numbers.Next<uint32_t>();
  if (!numbers.good()) return Corrupt("index: {} bytes", bytes.size());
  if (version != kShardVersion) return Corrupt("index: version {}, expected {}", version, kShardVersion);
  if (chunks != layers + 1) return Corrupt("index: {} chunks a group, expected {}", chunks, layers + 1);
  const uint64_t least = 4 + 8 + 4 + 4 + 4 + uint64_t{chunks} * kChunkBytes;
  if (groups == 0 || groups > numbers.left() / least) return Corrupt("index: {} groups in {} bytes", groups, bytes.size());
  ShardIndex index;
  index.groups.resize(groups);
  uint64_t next = kShardHeadBytes;
  for (uint32_t g = 0; g < groups; ++g) {
    GroupPlace& group = index.groups[g];
    group.images = numbers.Next<uint32_t>();
    group.crops = numbers.Next<uint64_t>();
    group.lowest_class = numbers.Next<int32_t>();
    group.highest_class = numbers.Next<int32_t>();
    const auto key = numbers.Next<uint32_t>();
    if (key > kMaxKeyBytes) return Corrupt("index: group {}: a key of {} bytes", g, key);
    group.first_key = numbers.Text(key);
    if (group.images == 0 || group.images > kMaxGroupImages || group.crops > uint64_t{group.images} * UINT16_MAX) {
      return Corrupt("index: group {}: {} images with {} crops", g, group.images, group.crops);
    }
    if (g > 0 && group.first_key <= index.groups[g - 1].first_key) return Corrupt("index: group {}: its first key is not behind the one before", g);
    group.chunks.resize(chunks);
    for (ChunkPlace& chunk : group.chunks) {
      chunk.at = numbers.Next<uint64_t>();
      chunk.bytes = numbers.Next<uint32_t>();
      chunk.sha256 = numbers.Next<Sha256::Hash>();
      if (chunk.at != next || chunk.bytes > at - next || chunk.bytes < kMinChunkBytes || chunk.bytes > kMaxStoredChunkBytes) return Corrupt("index: group {}: a chunk of {} bytes at {}, expected at {}", g, chunk.bytes, chunk.at, next);
      next += chunk.bytes;
    }
    if (!numbers.good()) return Corrupt("index: ends in group {}", g);
  }
  if (numbers.left() > 0) return Corrupt("index: {} bytes are left behind it", numbers.left());
  if (next != at) return Corrupt("index: chunks up to {}, expected {}", next, at);
  return index;
}

std::string ChunkName(size_t chunk) { return chunk == 0 ? "heads" : fmt::format("layer {}", chunk - 1); }

Result<void> CheckChunk(std::span<const std::byte> bytes, const ChunkPlace& place, size_t chunk) {
  const Sha256::Hash hash = Sha256::Of(bytes);
  if (hash != place.sha256) return Corrupt("{}: SHA-256 {}, the index says {}", ChunkName(chunk), ToHex(hash), ToHex(place.sha256));
  return {};
}

bool IsHole(std::span<const std::byte> chunk) {
  return std::ranges::all_of(chunk.first(std::min<size_t>(chunk.size(), 4)), [](std::byte b) { return b == std::byte{}; });
}

std::vector<uint8_t> EncodeKeys(std::span<const std::string> keys) {
  std::vector<std::byte> bytes;
  std::string_view before;
  for (const std::string& key : keys) {
    const auto shared = static_cast<size_t>(std::mismatch(key.begin(), key.end(), before.begin(), before.end()).first - key.begin());
    AppendVarint(bytes, shared);
    AppendVarint(bytes, key.size() - shared);
    AppendText(&bytes, std::string_view(key).substr(shared));
    before = key;
  }
  const auto* first = reinterpret_cast<const uint8_t*>(bytes.data());
  return {first, first + bytes.size()};
}

Result<std::vector<std::string>> ParseKeys(std::span<const uint8_t> column, uint32_t count) {
  const auto bytes = std::as_bytes(column);
  std::vector<std::string> keys;
  uint64_t all = 0;
  size_t at = 0;
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t shared, rest;
    if (!ReadVarint(bytes, &at, &shared) || !ReadVarint(bytes, &at, &rest) || rest > bytes.size() - at) return Corrupt("keys: end in key {}", i);
    if (shared > (i > 0 ? keys.back().size() : 0)) return Corrupt("keys: key {} shares {} bytes with the one before", i, shared);
    all += shared + uint64_t{rest};
    if (shared + uint64_t{rest} > kMaxKeyBytes || all > kMaxIndexBytes) return Corrupt("keys: too long at key {}", i);
    std::string key = i > 0 ? keys.back().substr(0, shared) : std::string();
    key.append(reinterpret_cast<const char*>(bytes.data()) + at, rest);
    at += rest;
    if (i > 0 && key <= keys.back()) return Corrupt("keys: key {} is not behind the one before", i);
    keys.push_back(std::move(key));
  }
  if (at != bytes.size()) return Corrupt("keys: bytes are left behind the last");
  return keys;
}

Result<ReadFile> ReadFile::Open(const std::filesystem::path& path) {
  ReadFile file;
  file.path_ = path;
  file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.fd_ < 0) {
    if (errno == ENOENT) return Fail(ErrorCode::kNotFound, fmt::format("{}: no such file", path.string()));
    return Fail(IoError(path, "open it"));
  }
  struct stat info;
  if (::fstat(file.fd_, &info) != 0) return Fail(IoError(path, "read its size"));
  if (!S_ISREG(info.st_mode)) return Fail(ErrorCode::kCorruption, fmt::format("{}: not a file", path.string()));
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

ReadFile::~ReadFile() {
  if (fd_ >= 0) ::close(fd_);
}
ReadFile::ReadFile(ReadFile&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}
ReadFile& ReadFile::operator=(ReadFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

Result<std::vector<std::byte>> ReadFile::Read(uint64_t at, uint64_t bytes) const {
  const auto ends = [&] { return Corrupt("{}: ends at {}, expected {} bytes at {}", path_.string(), size_, bytes, at); };
  if (at > size_ || bytes > size_ - at) return ends();
  std::vector<std::byte> out(bytes);
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = ::pread(fd_, out.data() + done, bytes - done, static_cast<off_t>(at + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Fail(IoError(path_, "read it"));
    if (got == 0) return ends();  // cut since it was opened
    done += static_cast<size_t>(got);
  }
  return out;
}

Result<WriteFile> WriteFile::Create(const std::filesystem::path& path) {
  WriteFile file;
  file.path_ = path;
  ::unlink(path.c_str());  // what an interrupted run left, or a link to anywhere
  file.fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (file.fd_ < 0) return Fail(IoError(path, "create it"));
  return file;
}

WriteFile::~WriteFile() {
  if (fd_ >= 0) ::close(fd_);
}
WriteFile::WriteFile(WriteFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_), sha_(std::move(other.sha_)) {}
WriteFile& WriteFile::operator=(WriteFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(sha_, other.sha_);
  return *this;
}

Result<void> WriteFile::Append(std::span<const std::byte> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t put = ::write(fd_, bytes.data() + done, bytes.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return Fail(IoError(path_, "write it"));
    done += static_cast<size_t>(put);
  }
  sha_.Update(bytes);
  size_ += bytes.size();
  return {};
}

Result<Sha256::Hash> WriteFile::Finish() {
  if (::close(std::exchange(fd_, -1)) != 0) return Fail(IoError(path_, "write it"));
  return sha_.Finish();
}

Result<PatchFile> PatchFile::Open(const std::filesystem::path& path, uint64_t bytes, bool fresh) {
  PatchFile file;
  file.path_ = path;
  if (fresh) ::unlink(path.c_str());
  file.fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
  if (file.fd_ < 0) return Fail(IoError(path, "create it"));
  struct stat info;
  if (::fstat(file.fd_, &info) != 0) return Fail(IoError(path, "read its size"));
  if (!S_ISREG(info.st_mode) || info.st_nlink > 1) {
    return Fail(ErrorCode::kIoError, fmt::format("{}: a link to another file, or none at all: it is not written to; remove it", path.string()));
  }
  if (static_cast<uint64_t>(info.st_size) != bytes && ::ftruncate(file.fd_, static_cast<off_t>(bytes)) != 0) return Fail(IoError(path, "set its size"));
  return file;
}

PatchFile::~PatchFile() {
  if (fd_ >= 0) ::close(fd_);
}
PatchFile::PatchFile(PatchFile&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}
PatchFile& PatchFile::operator=(PatchFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  return *this;
}

Result<void> PatchFile::Write(uint64_t at, std::span<const std::byte> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t put = ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(at + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return Fail(IoError(path_, "write it"));
    done += static_cast<size_t>(put);
  }
  return {};
}

Result<void> PatchFile::Sync() {
  if (::fsync(fd_) != 0) return Fail(IoError(path_, "write it"));
  return {};
}

}  // namespace fkdb
