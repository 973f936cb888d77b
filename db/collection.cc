// SPDX-License-Identifier: Apache-2.0
#include "db/collection.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "db/varint.h"
#include "format/hash.h"
#include "format/text.h"

namespace fkdb {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFeature = "collection";
// The first line is `{`, the second the checksum of all that comes after it.
constexpr std::string_view kHead = "{\n  \"xxh3\": \"0000000000000000\",\n";
constexpr size_t kDigitsAt = 13, kDigits = 16;

std::string Sealed(std::string_view body) {
  std::string text(kHead);
  text.replace(kDigitsAt, kDigits, fmt::format("{:016x}", Hash64(body)));
  text += body;
  return text;
}

tl::unexpected<Error> Corrupt(std::string what) {
  return Fail(ErrorCode::kCorruption, "collection: " + std::move(what));
}

// Pairs of varints: shard, images.
std::string EncodeOrder(const std::vector<CollectionIndex::Run>& order) {
  std::vector<std::byte> bytes;
  for (const CollectionIndex::Run& run : order) {
    AppendVarint(bytes, run.shard);
    AppendVarint(bytes, run.images);
  }
  return ToBase64({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

// The order must take every image of every shard once.
Result<std::vector<CollectionIndex::Run>> DecodeOrder(std::string_view text,
                                                      const std::vector<CollectionIndex::Shard>& shards) {
  const auto decoded = FromBase64(text);
  if (!decoded) return Corrupt("field 'order' is not base64");
  const auto bytes = std::as_bytes(std::span(*decoded));
  std::vector<CollectionIndex::Run> order;
  std::vector<uint64_t> taken(shards.size());
  for (size_t at = 0; at < bytes.size();) {
    uint32_t shard, images;
    if (!ReadVarint(bytes, &at, &shard) || !ReadVarint(bytes, &at, &images) || shard >= shards.size() || images == 0) {
      return Corrupt("field 'order' is not a list of (shard, images)");
    }
    taken[shard] += images;
    order.push_back({shard, images});
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    if (taken[i] != shards[i].images) {
      return Corrupt(fmt::format("shard '{}' has {} images, field 'order' takes {}", Printable(shards[i].file),
                                 shards[i].images, taken[i]));
    }
  }
  return order;
}

Result<std::string> TextField(const Json& object, const char* name, const std::string& path) {
  const Json value = object.is_object() ? object.value(name, Json()) : Json();
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object()) {
    const Json encoded = value.value("b64", Json());
    if (auto bytes = encoded.is_string() ? FromBase64(encoded.get<std::string>()) : std::nullopt) return *bytes;
  }
  return Corrupt(fmt::format("field '{}{}' is not text", path, name));
}

Result<CollectionIndex::Shard> ParseShard(const Json& json, const std::string& path) {
  CollectionIndex::Shard shard;
  FKDB_ASSIGN(shard.file, TextField(json, "file", path));
  FKDB_ASSIGN(shard.digest, TextField(json, "digest", path));
  const Json images = json.value("images", Json());
  if (!images.is_number_unsigned()) return Corrupt(fmt::format("field '{}images' is not a whole number", path));
  shard.images = images.get<uint64_t>();
  if (shard.file.empty()) return Corrupt(fmt::format("field '{}file' is empty", path));
  return shard;
}

}  // namespace

std::string ToIndexText(const CollectionIndex& index) {
  Json json = Json::parse(ToJson(index.manifest));
  json["features"] = {kFeature};
  for (const CollectionIndex::Shard& shard : index.shards) {
    const Json file = IsUtf8(shard.file) ? Json(shard.file) : Json{{"b64", ToBase64(shard.file)}};
    json["shards"].push_back({{"file", file}, {"images", shard.images}, {"digest", shard.digest}});
  }
  json["order"] = EncodeOrder(index.order);
  return Sealed(json.dump(2).substr(2) + "\n");
}

Result<CollectionIndex> ParseIndexFields(std::string_view text) {
  CollectionIndex index;
  FKDB_ASSIGN(index.manifest, ParseManifest(text, {&kFeature, 1}));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const Json shards = json.value("shards", Json());
  if (!shards.is_array() || shards.empty()) return Corrupt("field 'shards' is not a list of label files");
  uint64_t images = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    FKDB_ASSIGN(CollectionIndex::Shard shard, ParseShard(shards[i], fmt::format("shards[{}].", i)));
    images += shard.images;
    index.shards.push_back(std::move(shard));
  }
  FKDB_ASSIGN(const std::string order, TextField(json, "order", ""));
  FKDB_ASSIGN(index.order, DecodeOrder(order, index.shards));
  if (images != index.manifest.num_images) {
    return Corrupt(fmt::format("{} images in the shards, {} in the manifest", images, index.manifest.num_images));
  }
  return index;
}

Result<CollectionIndex> ParseIndexText(std::string_view text) {
  if (text.size() < kHead.size() || text != Sealed(text.substr(kHead.size()))) {
    return Corrupt("its checksum does not match: the index was damaged or edited; fkdb-merge --collection makes it anew");
  }
  return ParseIndexFields(text);
}

}  // namespace fkdb
