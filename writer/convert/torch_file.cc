// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/torch_file.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <memory>

#include "writer/convert/whole_file.h"

namespace fkdb {
namespace {

constexpr uint64_t kMaxFileBytes = 4ull << 30;   // an epoch's labels of 50,000 images are 1.3 GiB
constexpr uint64_t kMaxInflation = 64;           // pickles shrink to a third; deflate could make 1032 of 1
constexpr uint64_t kInflationRoom = 1 << 20;     // but small files may say little at length
constexpr std::string_view kPickleName = "/data.pkl";

std::string_view AsText(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

Result<std::vector<std::byte>> Gunzip(std::span<const std::byte> bytes) {
  z_stream stream{};
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  if (inflateInit2(&stream, kGzipOnly) != Z_OK) return Fail(ErrorCode::kResourceExhausted, "gzip: out of memory");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> owner(&stream, inflateEnd);
  const uint64_t limit = std::min(kMaxFileBytes, bytes.size() * kMaxInflation + kInflationRoom);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  std::vector<std::byte> out;
  for (int code = Z_OK; code != Z_STREAM_END;) {
    const size_t at = out.size();
    if (at > limit) return Fail(ErrorCode::kResourceExhausted, fmt::format("gzip: more than {} bytes", limit));
    out.resize(std::max<size_t>(1 << 16, 2 * at));
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + at);
    stream.avail_out = static_cast<uInt>(std::min<size_t>(out.size() - at, 1u << 30));
    const uInt room = stream.avail_out;
    code = inflate(&stream, Z_NO_FLUSH);
    out.resize(at + (room - stream.avail_out));
    if (code != Z_OK && code != Z_STREAM_END) {
      return Fail(ErrorCode::kCorruption, fmt::format("gzip: {}", stream.msg ? stream.msg : "it is cut off"));
    }
  }
  return out;
}

}  // namespace

Result<TorchFile> TorchFile::Parse(std::span<const std::byte> bytes) {
  std::vector<std::byte> inflated;
  if (AsText(bytes).starts_with("\x1f\x8b")) {
    FKDB_ASSIGN(inflated, Gunzip(bytes));
    bytes = inflated;
  }
  constexpr std::string_view kOldMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14);
  if (AsText(bytes).starts_with(kOldMagic)) {
    return Fail(ErrorCode::kUnsupported, "torch.save's format before PyTorch 1.6: load it with PyTorch and save it again");
  }
  FKDB_ASSIGN(const ZipFile zip, ZipFile::Open(bytes));
  const auto found = std::find_if(zip.names().begin(), zip.names().end(), [](const std::string& name) { return name.ends_with(kPickleName); });
  if (found == zip.names().end()) return Fail(ErrorCode::kCorruption, "no 'data.pkl' in it: not a file of torch.save's");
  const std::string prefix = found->substr(0, found->size() - kPickleName.size() + 1);
  // Members are stored as they are: together they are no larger than the file.
  uint64_t left = bytes.size();
  const auto read = [&](const std::string& name) {
    auto member = zip.Read(name, left);
    if (member) left -= member->size();
    return member;
  };
  if (const auto order = read(prefix + "byteorder"); order && AsText(*order) != "little") {
    return Fail(ErrorCode::kUnsupported, "numbers in big-endian order: save them in little-endian");
  }
  TorchFile file;
  FKDB_ASSIGN(file.program_, read(*found));
  const StorageOf storage_of = [&](std::string_view key) -> Result<std::span<const std::byte>> {
    auto known = file.storages_.find(key);
    if (known == file.storages_.end()) {
      FKDB_ASSIGN(std::vector<std::byte> storage, read(prefix + "data/" + std::string(key)));
      known = file.storages_.emplace(key, std::move(storage)).first;
    }
    return std::span<const std::byte>(known->second);
  };
  FKDB_ASSIGN(file.pickle_, Pickle::Read(file.program_, storage_of));
  return file;
}

Result<TorchFile> TorchFile::Read(const std::filesystem::path& path) {
  thread_local std::vector<std::byte> bytes;
  const auto in = [&](const Error& error) { return Fail(error.code, fmt::format("{}: {}", path.string(), error.message)); };
  if (const auto read = ReadWholeFile(path, kMaxFileBytes, &bytes); !read) return in(read.error());
  auto file = Parse(bytes);
  if (!file) return in(file.error());
  return file;
}

}  // namespace fkdb
