// SPDX-License-Identifier: Apache-2.0
#include "db/manifest.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <type_traits>

#include "format/text.h"

namespace fkdb {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFormatName = "fkdb";

// Raw bytes as a JSON string, or as {"b64": ..} where they are not UTF-8.
Json FromText(const std::string& text) {
  if (IsUtf8(text)) return text;
  return Json{{"b64", ToBase64(text)}};
}

tl::unexpected<Error> BadField(std::string_view field, std::string_view expected) {
  return Fail(ErrorCode::kCorruption, fmt::format("manifest: field '{}' is not {}", field, expected));
}

Result<std::string> ToText(const Json& json, std::string_view field) {
  if (json.is_string()) return json.get<std::string>();
  if (json.is_object() && json.contains("b64") && json["b64"].is_string()) {
    if (auto text = FromBase64(json["b64"].get<std::string>())) return *text;
  }
  return BadField(field, "text");
}

// Reads the fields of one object into C++ values; the first error wins and is kept.
class Fields {
 public:
  Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {}

  template <class T>
  void Read(const char* name, T* out) {
    if (!error_.message.empty()) return;
    const std::string field = path_ + name;
    const auto found = object_.is_object() ? object_.find(name) : object_.end();
    if (!object_.is_object() || found == object_.end()) {
      error_ = Error{ErrorCode::kCorruption, fmt::format("manifest: field '{}' is missing", field)};
      return;
    }
    if (auto value = Convert(*found, field, out); !value) error_ = std::move(value).error();
  }

  Result<void> Done() const {
    if (error_.message.empty()) return {};
    return Fail(error_);
  }

 private:
  template <class T>
  static Result<void> Convert(const Json& json, const std::string& field, T* out) {
    if constexpr (std::is_same_v<T, bool>) {
      if (!json.is_boolean()) return BadField(field, "true or false");
      *out = json.get<bool>();
    } else if constexpr (std::is_unsigned_v<T>) {
      if (!json.is_number_unsigned() || json.get<uint64_t>() > std::numeric_limits<T>::max()) {
        return BadField(field, fmt::format("a whole number from 0 to {}", std::numeric_limits<T>::max()));
      }
      *out = json.get<T>();
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!json.is_number()) return BadField(field, "a number");
      *out = json.get<T>();
    } else if constexpr (std::is_same_v<T, std::string>) {
      FKDB_ASSIGN(*out, ToText(json, field));
    } else if constexpr (std::is_same_v<T, LabelKind>) {
      FKDB_ASSIGN(const std::string name, ToText(json, field));
      FKDB_ASSIGN(*out, ParseLabelKind(name));
    } else if constexpr (std::is_same_v<T, BoxEncoding>) {
      FKDB_ASSIGN(const std::string name, ToText(json, field));
      FKDB_ASSIGN(*out, ParseBoxEncoding(name));
    } else if constexpr (std::is_same_v<T, ValueEncoding>) {
      FKDB_ASSIGN(const std::string name, ToText(json, field));
      FKDB_ASSIGN(*out, ParseValueEncoding(name));
    } else if constexpr (requires { out->data(); out->size(); }) {
      if (!json.is_array()) return BadField(field, "a list");
      if constexpr (requires { out->resize(0); }) {
        out->resize(json.size());
      } else if (json.size() != out->size()) {
        return BadField(field, fmt::format("a list of {}", out->size()));
      }
      for (size_t i = 0; i < json.size(); ++i) {
        FKDB_TRY(Convert(json[i], fmt::format("{}[{}]", field, i), &(*out)[i]));
      }
    } else {  // an object of ours
      FKDB_TRY(ReadObject(json, field + ".", out));
    }
    return {};
  }

  static Result<void> ReadObject(const Json& json, const std::string& path, TeacherInfo* out) {
    Fields fields(json, path);
    fields.Read("name", &out->name);
    fields.Read("sha256", &out->sha256);
    return fields.Done();
  }
  static Result<void> ReadObject(const Json& json, const std::string& path, LabelSpec* out) {
    Fields fields(json, path);
    fields.Read("kind", &out->kind);
    fields.Read("num_classes", &out->num_classes);
    fields.Read("top_k", &out->top_k);
    fields.Read("boxes", &out->boxes);
    fields.Read("values", &out->values);
    fields.Read("temperature", &out->temperature);
    return fields.Done();
  }
  static Result<void> ReadObject(const Json& json, const std::string& path, DataSetInfo* out) {
    Fields fields(json, path);
    fields.Read("name", &out->name);
    fields.Read("layout", &out->layout);
    fields.Read("images", &out->num_images);
    fields.Read("channels", &out->channels);
    fields.Read("key_list_sha256", &out->key_list_sha256);
    fields.Read("class_names", &out->class_names);
    return fields.Done();
  }
  static Result<void> ReadObject(const Json& json, const std::string& path, AugmentationInfo* out) {
    Fields fields(json, path);
    fields.Read("crops", &out->crops);
    fields.Read("seed", &out->seed);
    fields.Read("scale", &out->scale);
    fields.Read("ratio", &out->ratio);
    fields.Read("flip_probability", &out->flip_probability);
    fields.Read("input_height", &out->input_height);
    fields.Read("input_width", &out->input_width);
    fields.Read("interpolation", &out->interpolation);
    fields.Read("resampling", &out->resampling);
    fields.Read("exif", &out->exif);
    fields.Read("mean", &out->mean);
    fields.Read("std", &out->std);
    return fields.Done();
  }
  static Result<void> ReadObject(const Json& json, const std::string& path, ProvenanceInfo* out) {
    Fields fields(json, path);
    fields.Read("tool", &out->tool);
    fields.Read("created", &out->created);
    fields.Read("licence", &out->licence);
    fields.Read("notes", &out->notes);
    return fields.Done();
  }

  const Json& object_;
  std::string path_;
  Error error_{};
};

// The part that a resumed build must repeat.
Json RecipeJson(const Manifest& m) {
  Json class_names = Json::array();
  for (const std::string& name : m.data_set.class_names) class_names.push_back(FromText(name));
  Json teachers = Json::array();
  for (const TeacherInfo& t : m.teachers) {
    teachers.push_back({{"name", FromText(t.name)}, {"sha256", t.sha256}});
  }
  const AugmentationInfo& a = m.augmentation;
  return {
      {"labels",
       {{"kind", Name(m.spec.kind)},
        {"num_classes", m.spec.num_classes},
        {"top_k", m.spec.top_k},
        {"boxes", Name(m.spec.boxes)},
        {"values", Name(m.spec.values)},
        {"temperature", m.spec.temperature}}},
      {"data_set",
       {{"name", FromText(m.data_set.name)},
        {"layout", m.data_set.layout},
        {"images", m.data_set.num_images},
        {"channels", m.data_set.channels},
        {"key_list_sha256", m.data_set.key_list_sha256},
        {"class_names", std::move(class_names)}}},
      {"teachers", std::move(teachers)},
      {"augmentation",
       {{"crops", a.crops},
        {"seed", a.seed},
        {"scale", a.scale},
        {"ratio", a.ratio},
        {"flip_probability", a.flip_probability},
        {"input_height", a.input_height},
        {"input_width", a.input_width},
        {"interpolation", a.interpolation},
        {"resampling", a.resampling},
        {"exif", a.exif},
        {"mean", a.mean},
        {"std", a.std}}},
      {"teacher_batch_size", m.teacher_batch_size},
  };
}

std::string FirstDifference(const Json& stored, const Json& wanted, const std::string& path) {
  if (stored.is_object() && wanted.is_object()) {
    for (const auto& [name, value] : stored.items()) {
      std::string field = path;
      field += path.empty() ? name : "." + name;
      const std::string found = FirstDifference(value, wanted.value(name, Json()), field);
      if (!found.empty()) return found;
    }
    return "";
  }
  if (stored == wanted) return "";
  const auto brief = [](const Json& json) {
    const std::string text = json.dump();
    return text.size() <= 80 ? text : text.substr(0, 77) + "...";
  };
  return fmt::format("{}: {} in the file, {} asked for", path, brief(stored), brief(wanted));
}

}  // namespace

std::string ToJson(const Manifest& m) {
  Json json = {{"format", kFormatName}, {"format_version", kFormatVersion}, {"features", Json::array()}};
  json.update(RecipeJson(m));
  json["counts"] = {{"images", m.num_images}, {"crops", m.num_crops}, {"skipped", m.skipped.size()}};
  json["skipped"] = m.skipped;
  json["digest"] = m.digest;
  json["complete"] = m.complete;
  json["provenance"] = {{"tool", FromText(m.provenance.tool)},
                        {"created", m.provenance.created},
                        {"licence", FromText(m.provenance.licence)},
                        {"notes", FromText(m.provenance.notes)}};
  return json.dump(2);
}

Result<Manifest> ParseManifest(std::string_view text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return Fail(ErrorCode::kCorruption, "manifest: not a JSON object");
  }
  // Version and features come first: the rest may look different in a newer version.
  std::string format;
  uint32_t version = 0;
  std::vector<std::string> features;
  Fields head(json, "");
  head.Read("format", &format);
  head.Read("format_version", &version);
  head.Read("features", &features);
  FKDB_TRY(head.Done());
  if (format != kFormatName) return BadField("format", "\"fkdb\"");
  if (version > kFormatVersion) {
    return Fail(ErrorCode::kUnsupported,
                fmt::format("label format version {} is newer than this fkdb reads ({}): update fkdb", version,
                            kFormatVersion));
  }
  if (version < 1) return BadField("format_version", "1 or more");
  if (!features.empty()) {
    return Fail(ErrorCode::kUnsupported,
                fmt::format("the label set needs feature '{}', which this fkdb (format version {}) does not "
                            "have: update fkdb",
                            Printable(features[0]), kFormatVersion));
  }

  Manifest m;
  Fields fields(json, "");
  fields.Read("labels", &m.spec);
  fields.Read("data_set", &m.data_set);
  fields.Read("teachers", &m.teachers);
  fields.Read("augmentation", &m.augmentation);
  fields.Read("teacher_batch_size", &m.teacher_batch_size);
  fields.Read("skipped", &m.skipped);
  fields.Read("digest", &m.digest);
  fields.Read("complete", &m.complete);
  fields.Read("provenance", &m.provenance);
  FKDB_TRY(fields.Done());
  const Json counts = json.value("counts", Json());
  Fields count_fields(counts, "counts.");
  count_fields.Read("images", &m.num_images);
  count_fields.Read("crops", &m.num_crops);
  FKDB_TRY(count_fields.Done());

  auto spec = CheckLabelSpec(m.spec);
  if (!spec) return Fail(ErrorCode::kCorruption, "manifest: labels: " + spec.error().message);
  if (*spec != m.spec) return BadField("labels.top_k", "what its kind asks for");
  for (size_t i = 0; i < m.skipped.size(); ++i) {
    if (m.skipped[i] >= m.num_images || (i > 0 && m.skipped[i] <= m.skipped[i - 1])) {
      return BadField("skipped", "an ascending list of ordinals");
    }
  }
  if (m.data_set.channels != 1 && m.data_set.channels != 3) return BadField("data_set.channels", "1 or 3");
  return m;
}

std::string RecipeDifference(const Manifest& stored, const Manifest& wanted) {
  return FirstDifference(RecipeJson(stored), RecipeJson(wanted), "");
}

}  // namespace fkdb
