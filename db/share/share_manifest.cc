// SPDX-License-Identifier: Apache-2.0
#include "db/share/share_manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "db/share/shard.h"
#include "format/text.h"

namespace fkdb {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFormatName = "fkdb-share";
constexpr std::string_view kPartFormatName = "fkdb-share-part";
constexpr size_t kMaxDepth = 32;
constexpr uint64_t kMaxIndexesBytes = 1u << 30;  // of all shards: a reader of parts keeps them
constexpr size_t kMaxElements = 20'000'000;  // a parsed one takes up to 100 bytes
constexpr size_t kMaxLayers = 64;
constexpr size_t kMaxTextBytes = 16u << 20;

template <class... Args>
tl::unexpected<Error> Corrupt(fmt::format_string<Args...> format, Args&&... args) {
  return Fail(ErrorCode::kCorruption, "manifest: " + fmt::format(format, std::forward<Args>(args)...));
}

Json Text(const std::string& text) { return IsUtf8(text) ? Json(text) : Json{{"b64", ToBase64(text)}}; }

// How much a parser would make of it, seen before it does.
Result<void> CheckSize(std::string_view text) {
  if (text.size() > kMaxShareManifestBytes) return Corrupt("{} bytes, at most {}", text.size(), kMaxShareManifestBytes);
  size_t depth = 0, elements = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      ++elements;
      if (++depth > kMaxDepth) return Corrupt("lists in lists, {} deep", depth);
    } else if (c == ']' || c == '}') {
      depth -= depth > 0 ? 1 : 0;
    } else if (c == ',' && ++elements > kMaxElements) {
      return Corrupt("more than {} values", kMaxElements);
    }
  }
  return {};
}

bool TextOf(const Json& field, std::string* out) {
  if (field.is_string()) {
    *out = field.get<std::string>();
    return true;
  }
  if (!field.is_object() || !field.contains("b64") || !field["b64"].is_string()) return false;
  auto text = FromBase64(field["b64"].get<std::string>());
  if (text) *out = *std::move(text);
  return text.has_value();
}

// Reads the fields of one object; the first error wins and is kept.
class Fields {
 public:
  Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {}

  void Number(const char* name, uint64_t* out, uint64_t most) {
    const Json* field = Find(name);
    if (field == nullptr) return;
    if (!field->is_number_unsigned() || field->get<uint64_t>() > most) return Wrong(name, fmt::format("a whole number from 0 to {}", most));
    *out = field->get<uint64_t>();
  }
  void Text(const char* name, std::string* out) {
    const Json* field = Find(name);
    if (field != nullptr && !TextOf(*field, out)) Wrong(name, "text");
    if (out->size() > kMaxTextBytes) Wrong(name, "of a sensible length");
  }
  void Texts(const char* name, std::vector<std::string>* out) {
    const Json* list = List(name);
    for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
      if (!TextOf((*list)[i], &out->emplace_back())) return Wrong(name, "a list of texts");
    }
  }
  void Hash(const char* name, std::string* out) {
    Text(name, out);
    const bool hex = out->size() == 64 && std::ranges::all_of(*out, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
    if (done_ && !hex) Wrong(name, "a SHA-256 in hex");
  }
  const Json* List(const char* name) {
    const Json* field = Find(name);
    if (field != nullptr && !field->is_array()) Wrong(name, "a list");
    return done_ ? field : nullptr;
  }
  const Json* Find(const char* name) {
    if (!done_) return nullptr;
    if (object_.is_object() && object_.contains(name)) return &object_[name];
    done_ = Corrupt("field '{}{}' is missing", path_, name);
    return nullptr;
  }
  void Wrong(const char* name, std::string_view expected) { done_ = Corrupt("field '{}{}' is not {}", path_, name, expected); }
  const Result<void>& done() const { return done_; }

 private:
  const Json& object_;
  std::string path_;
  Result<void> done_;
};

constexpr uint64_t kMaxCount = std::numeric_limits<uint32_t>::max();

// Version and features come first: the rest may look different in a newer version.
Result<Json> ParseObject(std::string_view text, std::string_view format_name) {
  FKDB_TRY(CheckSize(text));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) return Corrupt("not a JSON object");
  std::string format;
  uint64_t version = 0;
  Fields head(json, "");
  head.Text("format", &format);
  head.Number("format_version", &version, kMaxCount);
  const Json* features = head.List("features");
  FKDB_TRY(head.done());
  if (format != format_name) return Corrupt("field 'format' is not \"{}\"", format_name);
  if (version > kShareVersion) {
    return Fail(ErrorCode::kUnsupported, fmt::format("share format version {} is newer than this fkdb reads ({}): update fkdb", version, kShareVersion));
  }
  if (version < 1) return Corrupt("field 'format_version' is not 1 or more");
  if (!features->empty()) {
    const std::string feature = (*features)[0].is_string() ? (*features)[0].get<std::string>() : "";
    return Fail(ErrorCode::kUnsupported, fmt::format("the shared label set needs feature '{}', which this fkdb (share format version {}) does not have: update fkdb",
                                                     Printable(feature), kShareVersion));
  }
  return json;
}

Json Head(std::string_view format_name) { return {{"format", format_name}, {"format_version", kShareVersion}, {"features", Json::array()}}; }

Json Texts(const std::vector<std::string>& texts) {
  Json list = Json::array();
  for (const std::string& text : texts) list.push_back(Text(text));
  return list;
}

Result<ShareShard> ParseShard(const Json& json, const std::string& path) {
  ShareShard shard;
  Fields fields(json, path);
  fields.Text("file", &shard.file);
  fields.Number("first_image", &shard.first_image, kMaxCount);
  fields.Number("images", &shard.images, kMaxCount);
  fields.Number("crops", &shard.crops, kMaxCount * UINT16_MAX);
  fields.Text("first_key", &shard.first_key);
  fields.Text("last_key", &shard.last_key);
  fields.Number("bytes", &shard.bytes, kMaxShardBytes);
  fields.Hash("sha256", &shard.sha256);
  fields.Hash("columns_sha256", &shard.columns_sha256);
  const Json* index = fields.Find("index");
  FKDB_TRY(fields.done());
  Fields index_fields(*index, path + "index.");
  index_fields.Number("at", &shard.index_at, kMaxShardBytes);
  index_fields.Number("bytes", &shard.index_bytes, kMaxIndexBytes);
  index_fields.Hash("sha256", &shard.index_sha256);
  FKDB_TRY(index_fields.done());
  if (!IsShardName(shard.file)) return Corrupt("field '{}file' is not labels-NNNNN.fkp, but '{}'", path, Printable(shard.file.substr(0, 100)));
  if (shard.images == 0) return Corrupt("field '{}images' is 0", path);
  if (shard.last_key < shard.first_key) return Corrupt("field '{}last_key' is before its first_key", path);
  if (shard.index_bytes < kMinIndexBytes) return Corrupt("field '{}index.bytes' is {}, at least {}", path, shard.index_bytes, kMinIndexBytes);
  if (shard.index_at < kShardHeadBytes || shard.index_at + shard.index_bytes != shard.bytes) {
    return Corrupt("field '{}index' is from {} to {}, expected to {}", path, shard.index_at, shard.index_at + shard.index_bytes, shard.bytes);
  }
  return shard;
}

Result<void> CheckShards(const ShareManifest& m) {
  uint64_t images = 0, crops = 0, bytes = 0, index_bytes = 0;
  std::set<std::string> names;
  for (size_t i = 0; i < m.shards.size(); ++i) {
    const ShareShard& shard = m.shards[i];
    if (!names.insert(shard.file).second) return Corrupt("{} comes twice", shard.file);
    if (shard.first_image != images) return Corrupt("{} begins with image {}, expected {}", shard.file, shard.first_image, images);
    if (i > 0 && shard.first_key <= m.shards[i - 1].last_key) return Corrupt("{} begins before {} ends", shard.file, m.shards[i - 1].file);
    images += shard.images;
    crops += shard.crops;
    bytes += shard.bytes;
    index_bytes += shard.index_bytes;
  }
  if (index_bytes > kMaxIndexesBytes) return Corrupt("indexes of {} bytes, at most {}", index_bytes, kMaxIndexesBytes);
  if (images != m.label_set.num_images) return Corrupt("shards of {} images, the label set has {}", images, m.label_set.num_images);
  if (crops != m.label_set.num_crops) return Corrupt("shards of {} crops, the label set has {}", crops, m.label_set.num_crops);
  if (bytes != m.total_bytes) return Corrupt("shards of {} bytes, expected {}", bytes, m.total_bytes);
  return {};
}

}  // namespace

std::string ToShareText(const ShareManifest& m) {
  Json json = Head(kFormatName);
  json["name"] = Text(m.name);
  json["licence"] = Text(m.licence);
  json["authors"] = Text(m.authors);
  json["accuracy"] = Text(m.accuracy);
  json["notes"] = Text(m.notes);
  json["revision"] = m.revision;
  json["total_bytes"] = m.total_bytes;
  json["layers"] = m.layers;
  json["shards"] = Json::array();
  for (const ShareShard& shard : m.shards) {
    json["shards"].push_back({{"file", shard.file},
                              {"first_image", shard.first_image},
                              {"images", shard.images},
                              {"crops", shard.crops},
                              {"first_key", Text(shard.first_key)},
                              {"last_key", Text(shard.last_key)},
                              {"bytes", shard.bytes},
                              {"sha256", shard.sha256},
                              {"index", {{"at", shard.index_at}, {"bytes", shard.index_bytes}, {"sha256", shard.index_sha256}}},
                              {"columns_sha256", shard.columns_sha256}});
  }
  json["label_set"] = Json::parse(ToJson(m.label_set));
  return json.dump(2) + "\n";
}

Result<ShareManifest> ParseShareText(std::string_view text) {
  FKDB_ASSIGN(const Json json, ParseObject(text, kFormatName));
  ShareManifest m;
  Fields fields(json, "");
  fields.Text("name", &m.name);
  fields.Text("licence", &m.licence);
  fields.Text("authors", &m.authors);
  fields.Text("accuracy", &m.accuracy);
  fields.Text("notes", &m.notes);
  fields.Number("revision", &m.revision, std::numeric_limits<int64_t>::max());
  fields.Number("total_bytes", &m.total_bytes, std::numeric_limits<uint64_t>::max());
  const Json* layers = fields.List("layers");
  const Json* shards = fields.List("shards");
  const Json* label_set = fields.Find("label_set");
  FKDB_TRY(fields.done());
  if (layers->empty() || layers->size() > kMaxLayers) return Corrupt("{} layers, expected 1 to {}", layers->size(), kMaxLayers);
  for (const Json& end : *layers) {
    const bool number = end.is_number_unsigned() && end.get<uint64_t>() <= kMaxCropsPerImage;
    if (!number || end.get<uint64_t>() <= (m.layers.empty() ? 0 : m.layers.back())) return Corrupt("field 'layers' is not an ascending list of crops");
    m.layers.push_back(end.get<uint32_t>());
  }
  for (size_t i = 0; i < shards->size(); ++i) {
    FKDB_ASSIGN(m.shards.emplace_back(), ParseShard((*shards)[i], fmt::format("shards[{}].", i)));
  }
  if (!label_set->is_object()) return Corrupt("field 'label_set' is not an object");
  auto parsed = ParseManifest(label_set->dump(-1, ' ', false, Json::error_handler_t::replace));
  if (!parsed) return Fail(parsed.error().code, "label_set: " + parsed.error().message);
  m.label_set = *std::move(parsed);
  if (!m.label_set.complete || m.label_set.digest.empty()) return Corrupt("field 'label_set' is that of an unfinished label set");
  FKDB_TRY(CheckShards(m));
  return m;
}

std::string ToPartText(const ShareSelection& part) {
  Json json = Head(kPartFormatName);
  json["images"] = Texts(part.images);
  json["crops"] = part.crops;
  json["classes"] = Texts(part.classes);
  return json.dump(2) + "\n";
}

Result<ShareSelection> ParsePartText(std::string_view text) {
  FKDB_ASSIGN(const Json json, ParseObject(text, kPartFormatName));
  ShareSelection part;
  uint64_t crops = 0;
  Fields fields(json, "");
  fields.Texts("images", &part.images);
  fields.Number("crops", &crops, kMaxCropsPerImage);
  fields.Texts("classes", &part.classes);
  FKDB_TRY(fields.done());
  part.crops = static_cast<uint32_t>(crops);
  return part;
}

}  // namespace fkdb
