// SPDX-License-Identifier: Apache-2.0
// Indexes of tar archives. A mutation would die at a header's checksum: half of the inputs get right ones.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "image/tar_index.h"
#include "tests/fuzz/fuzz.h"

namespace fkdb {
namespace {

constexpr size_t kBlock = 512;

void Seal(char* header) {
  std::memset(header + 148, ' ', 8);
  unsigned sum = 0;
  for (size_t i = 0; i < kBlock; ++i) sum += static_cast<unsigned char>(header[i]);
  std::snprintf(header + 148, 8, "%06o", sum);
}

std::string Member(const std::string& path, const std::string& bytes, char type) {
  std::string member(kBlock, '\0');
  path.copy(member.data(), 100);
  std::snprintf(member.data() + 124, 12, "%011zo", bytes.size());
  member[156] = type;
  std::memcpy(member.data() + 257, "ustar\0" "00", 8);
  Seal(member.data());
  return member + bytes + std::string((kBlock - bytes.size() % kBlock) % kBlock, '\0');
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  const std::string pax = Member("p", "17 path=a/b/c.jpg\n12 size=0003\n", 'x') + Member("short", "abc", '0');
  const std::string gnu = Member("././@LongLink", std::string(200, 'n') + ".png", 'L') + Member("n", "0123456789", '0');
  std::string big = Member("base256", "x", '0');
  std::memcpy(big.data() + 124, "\x80\0\0\0\0\0\0\0\0\0\0\x01", 12);
  Seal(big.data());
  std::vector<std::string> seeds;
  for (const char sealed : {'\0', '\x01'}) {
    for (const std::string& tar : {pax + gnu + Member("d/", "", '5'), gnu + pax, big + std::string(2 * kBlock, '\0')}) seeds.push_back(sealed + tar);
  }
  return seeds;
}

}  // namespace fkdb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  std::string bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  for (size_t at = 0; (data[0] & 1) && at + fkdb::kBlock <= bytes.size(); at += fkdb::kBlock) fkdb::Seal(bytes.data() + at);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(::fmemopen(bytes.data(), bytes.size(), "rb"), std::fclose);
  const auto members = fkdb::IndexTar(file.get(), bytes.size());
  if (!members) return 0;
  for (const fkdb::TarMember& member : *members) {
    if (member.offset > bytes.size() || member.size > bytes.size() - member.offset) std::abort();
  }
  return 0;
}
