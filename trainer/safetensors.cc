// SPDX-License-Identifier: Apache-2.0
#include "trainer/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

namespace fkdb {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100u << 20;
constexpr const char* kMetadata = "__metadata__";

std::optional<uint64_t> DtypeBytes(const std::string& dtype) {
  static const std::map<std::string, uint64_t> kSizes = {
      {"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
      {"BF16", 2}, {"I32", 4},  {"U32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8}};
  const auto found = kSizes.find(dtype);
  return found == kSizes.end() ? std::nullopt : std::optional(found->second);
}

// One entry of the header; none if it is not what the format says.
std::optional<StoredTensor> ParseEntry(const nlohmann::json& entry, std::span<const std::byte> data,
                                       std::pair<uint64_t, uint64_t>* range) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
      !entry["shape"].is_array() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    return std::nullopt;
  }
  StoredTensor tensor;
  tensor.dtype = entry["dtype"].get<std::string>();
  const auto element = DtypeBytes(tensor.dtype);
  if (!element) return std::nullopt;
  uint64_t bytes = *element;
  for (const auto& side : entry["shape"]) {
    if (!side.is_number_unsigned()) return std::nullopt;
    const auto n = side.get<uint64_t>();
    if (n > 0 && bytes > data.size() / n) return std::nullopt;  // more than the file has: also no overflow
    bytes *= n;
    tensor.shape.push_back(static_cast<int64_t>(n));
  }
  for (const auto& offset : entry["data_offsets"]) {
    if (!offset.is_number_unsigned()) return std::nullopt;
  }
  *range = {entry["data_offsets"][0].get<uint64_t>(), entry["data_offsets"][1].get<uint64_t>()};
  if (range->first > range->second || range->second > data.size() || range->second - range->first != bytes) {
    return std::nullopt;
  }
  const auto part = data.subspan(range->first, bytes);
  tensor.data.assign(part.begin(), part.end());
  return tensor;
}

}  // namespace

Result<std::vector<std::byte>> ReadBytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::error_code ec;
  if (!in || !std::filesystem::is_regular_file(path, ec)) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: cannot open the tensor file", path.string()));
  }
  std::vector<std::byte> bytes(std::filesystem::file_size(path, ec));
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!in) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot read it", path.string()));
  return bytes;
}

Result<TensorFile> ReadTensorFile(const std::filesystem::path& path) {
  FKDB_ASSIGN(const std::vector<std::byte> bytes, ReadBytes(path));
  return ParseTensorFile(bytes, path);
}

Result<TensorFile> ParseTensorFile(std::span<const std::byte> bytes, const std::filesystem::path& path) {
  const auto corrupt = [&](std::string what) {
    return Fail(ErrorCode::kCorruption, fmt::format("{}: not a safetensors file: {}", path.string(), what));
  };
  uint64_t header_bytes = 0;
  if (bytes.size() >= sizeof header_bytes) std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  if (bytes.size() < sizeof header_bytes || header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - sizeof header_bytes) {
    return corrupt(fmt::format("a header of {} bytes in a file of {}", header_bytes, bytes.size()));
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + sizeof header_bytes, header_bytes);
  const std::span data = bytes.subspan(sizeof header_bytes + header_bytes);
  const auto json = nlohmann::json::parse(header, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return corrupt("its header is not a JSON object");

  TensorFile file;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto& [name, entry] : json.items()) {
    if (name == kMetadata) {
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return corrupt("its metadata is not text");
        file.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    auto tensor = ParseEntry(entry, data, &ranges.emplace_back());
    if (!tensor) return corrupt(fmt::format("its entry '{}' is broken", name));
    file.tensors[name] = std::move(*tensor);
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t end = 0;
  for (const auto& [first, last] : ranges) {
    if (first != end) return corrupt("its tensors overlap or leave holes");
    end = last;
  }
  if (end != data.size()) return corrupt("bytes are left over after its tensors");
  return file;
}

Result<void> WriteTensorFile(const std::filesystem::path& path, const TensorFile& file) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!file.metadata.empty()) header[kMetadata] = file.metadata;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : file.tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {offset, offset + tensor.data.size()}}};
    offset += tensor.data.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data is 8-byte aligned
  const uint64_t header_bytes = text.size();

  std::filesystem::path beside = path;
  beside += ".new";
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0664);
  const auto fail = [&](const char* what) {
    const int code = errno;
    if (fd >= 0) ::close(fd);
    ::unlink(beside.c_str());
    return Fail(code == ENOSPC || code == EDQUOT ? ErrorCode::kResourceExhausted : ErrorCode::kIoError,
                fmt::format("{}: cannot {}: {}", path.string(), what, std::strerror(code)));
  };
  if (fd < 0) return fail("create it");
  const auto write = [&](const void* bytes, size_t size) {
    const char* at = static_cast<const char*>(bytes);
    while (size > 0) {
      const ssize_t n = ::write(fd, at, size);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      at += n;
      size -= static_cast<size_t>(n);
    }
    return true;
  };
  bool written = write(&header_bytes, sizeof header_bytes) && write(text.data(), text.size());
  for (const auto& [name, tensor] : file.tensors) written = written && write(tensor.data.data(), tensor.data.size());
  if (!written) return fail("write it");
  if (::fsync(fd) != 0) return fail("sync it");
  ::close(fd);
  if (::rename(beside.c_str(), path.c_str()) != 0) return fail("rename it");
  return {};
}

}  // namespace fkdb
