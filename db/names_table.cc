// SPDX-License-Identifier: Apache-2.0
#include "db/names_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "db/varint.h"
#include "format/hash.h"

namespace fkdb {
namespace {

constexpr char kMagic[8] = {'F', 'K', 'D', 'N', 'A', 'M', 'E', 'S'};
constexpr uint32_t kInterval = 16;
constexpr uint64_t kMaxBytes = 0xffff0000;  // what one LMDB value holds, rounded down

struct Header {
  char magic[8];
  uint64_t count;
  uint32_t interval;
  uint32_t zero;
  uint64_t entries;
  uint64_t checksum;
};
static_assert(sizeof(Header) == 40);

uint64_t Checksum(std::span<const std::byte> table) {
  const uint64_t parts[2] = {Hash64(table.first(offsetof(Header, checksum))),
                             Hash64(table.subspan(sizeof(Header)))};
  return Hash64(std::as_bytes(std::span(parts)));
}

tl::unexpected<Error> Corrupt(std::string what) {
  return Fail(ErrorCode::kCorruption, "names table: " + std::move(what));
}

}  // namespace

Result<std::vector<std::byte>> BuildNamesTable(std::span<const std::string> keys) {
  std::vector<std::byte> entries;
  std::vector<uint32_t> restarts;
  for (size_t i = 0; i < keys.size(); ++i) {
    size_t shared = 0;
    if (i > 0 && keys[i - 1] >= keys[i]) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("keys must be sorted and unique: '{}' comes after '{}'", keys[i], keys[i - 1]));
    }
    if (i % kInterval == 0) {
      restarts.push_back(static_cast<uint32_t>(entries.size()));
    } else {
      const size_t limit = std::min(keys[i].size(), keys[i - 1].size());
      while (shared < limit && keys[i][shared] == keys[i - 1][shared]) ++shared;
    }
    AppendVarint(entries, shared);
    AppendVarint(entries, keys[i].size() - shared);
    const auto rest = std::as_bytes(std::span(keys[i])).subspan(shared);
    entries.insert(entries.end(), rest.begin(), rest.end());
    if (entries.size() + restarts.size() * 4 > kMaxBytes) {
      return Fail(ErrorCode::kResourceExhausted, "the image keys take more than 4 GiB");
    }
  }
  Header header = {};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.count = keys.size();
  header.interval = kInterval;
  header.entries = entries.size();
  std::vector<std::byte> table(sizeof header + restarts.size() * 4 + entries.size());
  std::memcpy(table.data(), &header, sizeof header);
  if (!keys.empty()) {
    std::memcpy(table.data() + sizeof header, restarts.data(), restarts.size() * 4);
    std::memcpy(table.data() + sizeof header + restarts.size() * 4, entries.data(), entries.size());
  }
  header.checksum = Checksum(table);
  std::memcpy(table.data(), &header, sizeof header);
  return table;
}

Result<NamesTable> NamesTable::Open(std::span<const std::byte> bytes) {
  Header header;
  if (bytes.size() < sizeof header) return Corrupt(fmt::format("only {} bytes", bytes.size()));
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) return Corrupt("magic bytes are missing");
  if (header.interval != kInterval) return Corrupt(fmt::format("interval {}, expected 16", header.interval));
  const uint64_t rest = bytes.size() - sizeof header;
  const uint64_t restarts = header.count / kInterval + (header.count % kInterval != 0);
  if (restarts > rest / 4 || header.entries != rest - restarts * 4 || header.count > header.entries / 2) {
    return Corrupt(fmt::format("{} keys do not fit {} bytes", header.count, bytes.size()));
  }
  if (Checksum(bytes) != header.checksum) return Corrupt("checksum does not match");
  NamesTable table;
  table.count_ = header.count;
  table.restarts_ = bytes.subspan(sizeof header, restarts * 4);
  table.entries_ = bytes.subspan(sizeof header + restarts * 4);
  return table;
}

size_t NamesTable::Restart(uint64_t index) const {
  uint32_t offset;
  std::memcpy(&offset, restarts_.data() + index * 4, sizeof offset);
  return offset;
}

Result<void> NamesTable::Next(size_t* at, std::string* key) const {
  uint32_t shared, rest;
  if (!ReadVarint(entries_, at, &shared) || !ReadVarint(entries_, at, &rest) || shared > key->size() ||
      rest > entries_.size() - *at) {
    return Corrupt(fmt::format("the entry before byte {} is broken", *at));
  }
  key->resize(shared);
  key->append(reinterpret_cast<const char*>(entries_.data()) + *at, rest);
  *at += rest;
  return {};
}

Result<std::string> NamesTable::Key(uint64_t ordinal) const {
  std::string key;
  size_t at = Restart(ordinal / kInterval);
  for (uint64_t i = 0; i <= ordinal % kInterval; ++i) FKDB_TRY(Next(&at, &key));
  return key;
}

Result<std::optional<uint64_t>> NamesTable::Find(std::string_view key) const {
  // The last restart whose key is not after `key`.
  uint64_t low = 0, high = restarts_.size() / 4;
  while (low < high) {
    const uint64_t middle = (low + high) / 2;
    FKDB_ASSIGN(const std::string start, Key(middle * kInterval));
    if (start <= key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return std::nullopt;
  const uint64_t first = (low - 1) * kInterval;
  size_t at = Restart(low - 1);
  std::string candidate;
  for (uint64_t ordinal = first; ordinal < std::min(first + kInterval, count_); ++ordinal) {
    FKDB_TRY(Next(&at, &candidate));
    if (candidate == key) return ordinal;
  }
  return std::nullopt;
}

Result<std::vector<std::string>> NamesTable::AllKeys() const {
  std::vector<std::string> keys;
  keys.reserve(count_);
  std::string key;
  size_t at = 0;
  for (uint64_t ordinal = 0; ordinal < count_; ++ordinal) {
    if (ordinal % kInterval == 0) {
      if (Restart(ordinal / kInterval) != at) return Corrupt(fmt::format("restart of key {} is wrong", ordinal));
      key.clear();
    }
    FKDB_TRY(Next(&at, &key));
    if (!keys.empty() && keys.back() >= key) {
      return Corrupt(fmt::format("key {} is not after the one before it", ordinal));
    }
    keys.push_back(key);
  }
  if (at != entries_.size()) return Corrupt("bytes are left over after the last key");
  return keys;
}

}  // namespace fkdb
