// SPDX-License-Identifier: Apache-2.0
// What a shared label set is made of besides its columns: index, chunk, keys, manifest, part. The first byte says which.
#include <algorithm>
#include <cstdlib>

#include "db/share/chunk.h"
#include "db/share/shard.h"
#include "db/share/share_manifest.h"
#include "tests/fuzz/fuzz.h"

namespace fkdb {
namespace {

constexpr size_t kColumns = 3;
constexpr char kPart = 'p';

std::string Text(char kind, std::span<const std::byte> bytes) { return kind + std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()); }

void Check(bool good) {
  if (!good) std::abort();
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  ShardIndex index;
  index.groups.resize(2);
  uint64_t at = kShardHeadBytes;
  for (size_t g = 0; g < 2; ++g) {
    GroupPlace& group = index.groups[g];
    group.images = 3;
    group.crops = 12;
    group.first_key = g == 0 ? "a.jpg" : "k.jpg";
    for (uint32_t c = 0; c < 3; ++c, at += 40) group.chunks.push_back({at, 40, {}});
  }
  ChunkCodec codec;
  const Columns columns = {Column(500, 7), {}, {1, 2, 3, 250}};
  const ColumnKind kinds[kColumns] = {ColumnKind::kText, ColumnKind::kText, ColumnKind::kCodes};
  const std::string keys[] = {"a/1.jpg", "a/10.jpg", "b/\xff.jpg"};

  ShareManifest m;
  m.name = "set";
  m.licence = "\xff not UTF-8";
  m.layers = {1, 2, 4};
  const std::string hash(64, '0');
  m.shards = {{"labels-00000.fkp", 0, 2, 8, "a", "b", 100, hash, 60, 40, hash, hash}, {"labels-00001.fkp", 2, 1, 4, "c", "c", 80, hash, 60, 20, hash, hash}};
  m.total_bytes = 180;
  m.label_set.spec.num_classes = 10;
  m.label_set.spec.top_k = 5;
  m.label_set.data_set = {"set", "folder", 3, 3, "00", {"a", "b", "\xff not UTF-8"}};
  m.label_set.augmentation.crops = 4;
  m.label_set.num_images = 3;
  m.label_set.num_crops = 12;
  m.label_set.digest = "sha256:00";
  m.label_set.complete = true;
  const std::vector<uint8_t> key_bytes = EncodeKeys(keys);
  return {Text(0, EncodeIndex(index)), Text(1, codec.Encode(columns, kinds)), Text(2, std::as_bytes(std::span(key_bytes))),
          '\3' + ToShareText(m), "\3{}", "\3[[[[", kPart + ToPartText({{"a", "\xff"}, 4, {"b"}})};
}

}  // namespace fkdb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fkdb;
  if (size < 1) return 0;
  // Exactly as many bytes as there are: a sanitizer sees a read of one more.
  const std::vector<uint8_t> copy(data + 1, data + size);
  const auto bytes = std::as_bytes(std::span(copy));
  const std::string_view text(reinterpret_cast<const char*>(copy.data()), copy.size());
  if (data[0] == kPart) {
    if (const auto part = ParsePartText(text)) Check(ToPartText(*ParsePartText(ToPartText(*part))) == ToPartText(*part));
    return 0;
  }
  switch (data[0] & 3) {
    case 0: {
      const auto index = ParseIndex(bytes, 2, kShardHeadBytes + 240);
      if (index) Check(std::ranges::equal(EncodeIndex(*index), bytes));
      break;
    }
    case 1: {
      static ChunkCodec codec;
      const auto columns = codec.Decode(bytes, kColumns, 64);
      static_cast<void>(columns);
      break;
    }
    case 2: {
      const auto keys = ParseKeys(copy, 3);
      if (keys) Check(ParseKeys(EncodeKeys(*keys), 3) == *keys);
      break;
    }
    default: {
      const auto manifest = ParseShareText(text);
      if (!manifest) break;
      for (const ShareShard& shard : manifest->shards) Check(IsShardName(shard.file));
      const auto again = ParseShareText(ToShareText(*manifest));
      Check(again && ToShareText(*again) == ToShareText(*manifest));
    }
  }
  return 0;
}
