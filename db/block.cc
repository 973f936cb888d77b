// SPDX-License-Identifier: Apache-2.0
#include "db/block.h"

#include <fmt/format.h>

#include <cstring>

#include "format/hash.h"

namespace fkdb {
namespace {

constexpr char kMagic[8] = {'F', 'K', 'D', 'B', 'L', 'O', 'C', 'K'};
constexpr uint32_t kVersion = 1;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t count;
  uint64_t first_ordinal;
  uint64_t total_bytes;
  uint64_t checksum;
  uint8_t zero[24];
};
static_assert(sizeof(Header) == kBlockHeaderBytes);

struct Entry {
  uint32_t offset;
  uint32_t length;
  uint64_t checksum;
};
static_assert(sizeof(Entry) == kBlockEntryBytes);

constexpr size_t kChecksumAt = offsetof(Header, checksum);

// In two parts around the checksum field, so that nothing is copied on the read path.
uint64_t HeaderChecksum(const std::byte* block, size_t head_bytes) {
  uint64_t parts[2] = {Hash64(std::span(block, kChecksumAt)),
                       Hash64(std::span(block + kChecksumAt + 8, head_bytes - kChecksumAt - 8))};
  return Hash64(std::as_bytes(std::span(parts)));
}

}  // namespace

std::vector<std::byte> BuildBlock(uint64_t first_ordinal,
                                  std::span<const std::vector<std::byte>> records) {
  uint64_t record_bytes = 0;
  for (const auto& record : records) record_bytes += record.size();
  std::vector<std::byte> block(BlockBytes(records.size(), record_bytes));

  const size_t head_bytes = BlockBytes(records.size(), 0);
  size_t offset = head_bytes;
  for (size_t i = 0; i < records.size(); ++i) {
    std::memcpy(block.data() + offset, records[i].data(), records[i].size());
    const Entry entry = {static_cast<uint32_t>(offset), static_cast<uint32_t>(records[i].size()),
                         Hash64(records[i])};
    std::memcpy(block.data() + kBlockHeaderBytes + i * sizeof entry, &entry, sizeof entry);
    offset += records[i].size();
  }
  Header header = {};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.count = static_cast<uint32_t>(records.size());
  header.first_ordinal = first_ordinal;
  header.total_bytes = block.size();
  std::memcpy(block.data(), &header, sizeof header);
  header.checksum = HeaderChecksum(block.data(), head_bytes);
  std::memcpy(block.data() + kChecksumAt, &header.checksum, sizeof header.checksum);
  return block;
}

Result<BlockView> BlockView::Open(std::span<const std::byte> bytes, uint64_t first_ordinal) {
  const auto corrupt = [&](std::string what) {
    return Fail(ErrorCode::kCorruption, fmt::format("block of image {}: {}", first_ordinal, what));
  };
  Header header;
  if (bytes.size() < sizeof header) {
    return corrupt(fmt::format("expected at least {} bytes, got {}", sizeof header, bytes.size()));
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) return corrupt("magic bytes are missing");
  if (header.version != kVersion) {
    return Fail(header.version > kVersion ? ErrorCode::kUnsupported : ErrorCode::kCorruption,
                fmt::format("block of image {}: version {}, this fkdb reads {}", first_ordinal,
                            header.version, kVersion));
  }
  if (header.total_bytes != bytes.size()) {
    return corrupt(fmt::format("expected {} bytes, got {}", header.total_bytes, bytes.size()));
  }
  if (header.count == 0 || BlockBytes(header.count, 0) > bytes.size()) {
    return corrupt(fmt::format("a directory of {} images does not fit {} bytes", header.count, bytes.size()));
  }
  if (HeaderChecksum(bytes.data(), BlockBytes(header.count, 0)) != header.checksum) {
    return corrupt("checksum of header and directory does not match");
  }
  if (header.first_ordinal != first_ordinal) {
    return corrupt(fmt::format("it says it begins with image {}", header.first_ordinal));
  }
  return Known(bytes, header.count);
}

BlockView BlockView::Known(std::span<const std::byte> bytes, uint32_t count) {
  BlockView view;
  view.bytes_ = bytes;
  view.count_ = count;
  return view;
}

Result<std::span<const std::byte>> BlockView::Record(uint32_t position) const {
  Entry entry;
  std::memcpy(&entry, bytes_.data() + kBlockHeaderBytes + size_t{position} * sizeof entry, sizeof entry);
  const bool inside = entry.offset % 8 == 0 && entry.offset >= BlockBytes(count_, 0) &&
                      uint64_t{entry.offset} + entry.length <= bytes_.size();
  if (!inside) {
    return Fail(ErrorCode::kCorruption,
                fmt::format("block: record {} lies at {} + {} of {} bytes", position, entry.offset,
                            entry.length, bytes_.size()));
  }
  const auto record = bytes_.subspan(entry.offset, entry.length);
  if (Hash64(record) != entry.checksum) {
    return Fail(ErrorCode::kCorruption, fmt::format("block: checksum of record {} does not match", position));
  }
  return record;
}

std::span<const std::byte> UncheckedRecord(std::span<const std::byte> block, uint64_t position) {
  Entry entry;
  if (BlockBytes(position + 1, 0) > block.size()) return {};
  std::memcpy(&entry, block.data() + BlockBytes(position, 0), sizeof entry);
  if (uint64_t{entry.offset} + entry.length > block.size()) return {};
  return block.subspan(entry.offset, entry.length);
}

}  // namespace fkdb
