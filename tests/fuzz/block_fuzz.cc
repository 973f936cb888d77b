// SPDX-License-Identifier: Apache-2.0
// Blocks and names tables. A mutation would die at the checksum: half of the inputs get a right one.
#include <cstring>

#include "db/block.h"
#include "db/names_table.h"
#include "format/hash.h"
#include "tests/fuzz/fuzz.h"

namespace fkdb {
namespace {

constexpr size_t kChecksumAt = 32;  // in both

// XXH3-64 of the hashes of what is before and of what is behind the checksum (FORMAT.md).
void Seal(std::span<std::byte> bytes, size_t covered) {
  if (bytes.size() < kChecksumAt + 8 || covered > bytes.size() || covered < kChecksumAt + 8) return;
  const uint64_t parts[2] = {Hash64(bytes.first(kChecksumAt)), Hash64(bytes.subspan(kChecksumAt + 8, covered - kChecksumAt - 8))};
  const uint64_t checksum = Hash64(std::as_bytes(std::span(parts)));
  std::memcpy(bytes.data() + kChecksumAt, &checksum, 8);
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  std::vector<std::string> seeds;
  const auto add = [&](char kind, const std::vector<std::byte>& bytes) {
    seeds.push_back(kind + std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  };
  const std::vector<std::vector<std::byte>> records = {std::vector<std::byte>(64), std::vector<std::byte>(8)};
  std::vector<std::string> keys;
  for (int i = 0; i < 40; ++i) keys.push_back("class/" + std::to_string(100 + i) + std::string(static_cast<size_t>(i % 5), 'x'));
  for (const char sealed : {0, 1}) {
    add(sealed, BuildBlock(5, records));
    add(static_cast<char>(2 | sealed), *BuildNamesTable(keys));
  }
  return seeds;
}

}  // namespace fkdb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fkdb;
  if (size < 2) return 0;
  std::vector<std::byte> copy(size - 1);
  std::memcpy(copy.data(), data + 1, size - 1);
  const std::span<std::byte> bytes(copy);
  if (data[0] & 2) {
    if (data[0] & 1) Seal(bytes, bytes.size());
    const auto names = NamesTable::Open(bytes);
    if (!names) return 0;
    static_cast<void>(names->AllKeys());
    static_cast<void>(names->Find("class/107"));
    for (uint64_t i = 0; i < std::min<uint64_t>(names->size(), 50); ++i) static_cast<void>(names->Key(i));
    return 0;
  }
  uint32_t count = 0;
  if (bytes.size() >= 16) std::memcpy(&count, bytes.data() + 12, 4);
  if (data[0] & 1) Seal(bytes, BlockBytes(count, 0));
  uint64_t first = 5;
  if (bytes.size() >= 24) std::memcpy(&first, bytes.data() + 16, 8);
  for (uint64_t position = 0; position < 4; ++position) UncheckedRecord(bytes, position);
  const auto block = BlockView::Open(bytes, first);
  if (!block) return 0;
  for (uint32_t i = 0; i < block->count(); ++i) static_cast<void>(block->Record(i));
  return 0;
}
