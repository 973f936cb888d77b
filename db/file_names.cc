// SPDX-License-Identifier: Apache-2.0
#include "db/file_names.h"

#include <fmt/format.h>

#include <cstring>

#include "format/hash.h"

namespace fkdb {

std::string BuildFormatValue(uint32_t version) {
  std::string value(16, '\0');
  std::memcpy(value.data(), "FKDB", 4);
  std::memcpy(value.data() + 4, &version, sizeof version);
  return value;
}

Result<uint32_t> ParseFormatValue(std::span<const std::byte> value) {
  if (value.size() != 16 || std::memcmp(value.data(), "FKDB", 4) != 0) {
    return Fail(ErrorCode::kCorruption, "not a label set: the format mark is missing");
  }
  uint32_t version;
  std::memcpy(&version, value.data() + 4, sizeof version);
  return version;
}

std::string SealManifest(std::string_view json) {
  const uint64_t checksum = Hash64(json);
  std::string value(sizeof checksum, '\0');
  std::memcpy(value.data(), &checksum, sizeof checksum);
  value += json;
  return value;
}

Result<std::string_view> UnsealManifest(std::span<const std::byte> value) {
  uint64_t checksum;
  if (value.size() < sizeof checksum || value.size() > kMaxManifestBytes) {
    return Fail(ErrorCode::kCorruption, fmt::format("manifest: {} bytes", value.size()));
  }
  std::memcpy(&checksum, value.data(), sizeof checksum);
  const std::string_view json(reinterpret_cast<const char*>(value.data()) + sizeof checksum,
                              value.size() - sizeof checksum);
  if (Hash64(json) != checksum) return Fail(ErrorCode::kCorruption, "manifest: checksum does not match");
  return json;
}

}  // namespace fkdb
