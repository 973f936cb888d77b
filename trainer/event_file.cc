// SPDX-License-Identifier: Apache-2.0
#include "trainer/event_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[byte] = crc;
  }
  return table;
}();

template <class Number>
std::string Fixed(Number number) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(sizeof number, '\0');
  std::memcpy(bytes.data(), &number, sizeof number);
  return bytes;
}

std::string Varint(uint64_t number) {
  std::string bytes;
  for (; number >= 0x80; number >>= 7) bytes += static_cast<char>(number | 0x80);
  return bytes + static_cast<char>(number);
}

// Protobuf's wire types.
enum Wire : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string Field(uint64_t number, Wire wire, std::string_view value) {
  std::string field = Varint(number << 3 | wire);
  if (wire == kBytes) field += Varint(value.size());
  return field.append(value);
}

std::string Record(std::string_view data) {
  const std::string length = Fixed(uint64_t{data.size()});
  return length + Fixed(MaskedCrc32c(length)) + std::string(data) + Fixed(MaskedCrc32c(data));
}

std::string Event(int64_t step, uint64_t field, std::string_view content) {
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return Record(Field(1, kFixed64, Fixed(now)) + Field(2, kVarint, Varint(static_cast<uint64_t>(step))) + Field(field, kBytes, content));
}

// The latest time in the names of a folder's event files, or 0.
int64_t LatestIn(const fs::path& folder) {
  int64_t latest = 0;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    int64_t time = 0;
    if (name.starts_with(kPrefix)) std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), time);
    latest = std::max(latest, time);
  }
  return latest;
}

}  // namespace

uint32_t MaskedCrc32c(std::string_view bytes) {
  uint32_t crc = 0xffffffff;
  for (const char c : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return std::rotr(~crc, 15) + 0xa282ead8u;
}

Result<EventFile> EventFile::Create(const fs::path& folder, int64_t step) {
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::array<char, 256> host{};
  const bool named = ::gethostname(host.data(), host.size() - 1) == 0 && host[0] != '\0';
  const fs::path path =
      folder / fmt::format("{}{:010}.{}", kPrefix, std::max<int64_t>(now, LatestIn(folder) + 1), named ? host.data() : "localhost");
  File file(std::fopen(path.c_str(), "wbx"), std::fclose);
  if (!file) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot create it: {}", path.string(), std::strerror(errno)));
  EventFile events(path, std::move(file));
  FKDB_TRY(events.Write(Event(0, 3, "brain.Event:2") + Event(step + 1, 7, Field(1, kVarint, Varint(1)))));
  return events;
}

Result<void> EventFile::AddScalars(int64_t step, std::span<const std::pair<std::string, double>> scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    summary += Field(1, kBytes, Field(1, kBytes, tag) + Field(2, kFixed32, Fixed(static_cast<float>(value))));
  }
  return Write(Event(step, 5, summary));
}

Result<void> EventFile::Write(const std::string& records) {
  if (std::fwrite(records.data(), 1, records.size(), file_.get()) == records.size() && std::fflush(file_.get()) == 0) return {};
  return Fail(ErrorCode::kIoError, fmt::format("{}: cannot write it: {}", path_.string(), std::strerror(errno)));
}

}  // namespace fkdb
