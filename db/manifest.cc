// SPDX-License-Identifier: Apache-2.0
#include "db/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "format/text.h"

namespace fkdb {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFormatName = "fkdb";

// The fields of each part, once for reading and writing: `visit(name, value)` for each of them.
template <class Visit, class Part>
void Describe(Visit& visit, Part& part) {
  using P = std::remove_const_t<Part>;
  if constexpr (std::is_same_v<P, LabelSpec>) {
    visit("kind", part.kind);
    visit("num_classes", part.num_classes);
    visit("top_k", part.top_k);
    visit("boxes", part.boxes);
    visit("values", part.values);
    visit("temperature", part.temperature);
    visit.Optional("grid_height", part.grid_height);
    visit.Optional("grid_width", part.grid_width);
  } else if constexpr (std::is_same_v<P, DataSetInfo>) {
    visit("name", part.name);
    visit("layout", part.layout);
    visit("images", part.num_images);
    visit("channels", part.channels);
    visit("key_list_sha256", part.key_list_sha256);
    visit("class_names", part.class_names);
  } else if constexpr (std::is_same_v<P, TeacherInfo>) {
    visit("name", part.name);
    visit("sha256", part.sha256);
    visit.Optional("weight", part.weight);
    visit.Optional("output", part.output);
    visit.Optional("autocast", part.autocast);
    visit.Optional("input", part.input);
  } else if constexpr (std::is_same_v<P, AveragedInfo>) {
    visit("digest", part.digest);
    visit("weight", part.weight);
  } else if constexpr (std::is_same_v<P, TeacherInputInfo>) {
    visit("height", part.height);
    visit("width", part.width);
    visit("interpolation", part.interpolation);
    visit("mean", part.mean);
    visit("std", part.std);
  } else if constexpr (std::is_same_v<P, AugmentationInfo>) {
    visit("crops", part.crops);
    visit("seed", part.seed);
    visit("scale", part.scale);
    visit("ratio", part.ratio);
    visit("flip_probability", part.flip_probability);
    visit("input_height", part.input_height);
    visit("input_width", part.input_width);
    visit("interpolation", part.interpolation);
    visit("resampling", part.resampling);
    visit("exif", part.exif);
    visit.Optional("wide_samples", part.wide_samples);
    visit("mean", part.mean);
    visit("std", part.std);
    visit.Optional("policy", part.policy);
  } else if constexpr (std::is_same_v<P, AugmentPolicy>) {
    visit("randaugment_ops", part.randaugment_ops);
    visit("randaugment_magnitude", part.randaugment_magnitude);
    visit("brightness", part.brightness);
    visit("contrast", part.contrast);
    visit("saturation", part.saturation);
    visit("hue", part.hue);
    visit("jitter_probability", part.jitter_probability);
    visit("grayscale_probability", part.grayscale_probability);
    visit("blur_probability", part.blur_probability);
    visit("blur_sigma", part.blur_sigma);
    visit("erase_probability", part.erase_probability);
    visit("erase_area", part.erase_area);
    visit("erase_aspect", part.erase_aspect);
    visit("mixup_alpha", part.mixup_alpha);
    visit("cutmix_alpha", part.cutmix_alpha);
    visit("mix_probability", part.mix_probability);
  } else {
    static_assert(std::is_same_v<P, ProvenanceInfo>);
    visit("tool", part.tool);
    visit("created", part.created);
    visit("licence", part.licence);
    visit("notes", part.notes);
  }
}

// The part of a manifest that a resumed build must repeat.
template <class Visit, class M>
void DescribeRecipe(Visit& visit, M& m) {
  visit("labels", m.spec);
  visit("data_set", m.data_set);
  visit("teachers", m.teachers);
  visit.Optional("teacher_average", m.teacher_average);
  visit("augmentation", m.augmentation);
  visit("teacher_batch_size", m.teacher_batch_size);
  visit.Optional("imported_from", m.imported_from);
  visit.Optional("imported_sample", m.imported_sample);
  visit.Optional("averaged", m.averaged);
  visit.Optional("boxes_from", m.boxes_from);
  visit.Optional("extends", m.extends);
}

template <class T>
constexpr bool kIsName =
    std::is_same_v<T, LabelKind> || std::is_same_v<T, BoxEncoding> || std::is_same_v<T, ValueEncoding>;
template <class T>
constexpr bool kIsList = requires(const T& list) { list.begin(); } && !std::is_same_v<T, std::string>;

struct Writer {
  Json json = Json::object();

  template <class T>
  void operator()(const char* name, const T& value) {
    json[name] = ToJsonValue(value);
  }

  // Left out where it says nothing.
  template <class T>
  void Optional(const char* name, const T& value) {
    if (value != T()) (*this)(name, value);
  }

  template <class T>
  static Json ToJsonValue(const T& value) {
    if constexpr (std::is_arithmetic_v<T>) {
      return value;
    } else if constexpr (kIsName<T>) {
      return Name(value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      // Bytes that are not UTF-8 cannot stand in JSON.
      return IsUtf8(value) ? Json(value) : Json{{"b64", ToBase64(value)}};
    } else if constexpr (kIsList<T>) {
      Json list = Json::array();
      for (const auto& item : value) list.push_back(ToJsonValue(item));
      return list;
    } else {
      Writer part;
      Describe(part, value);
      return part.json;
    }
  }
};

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

Result<void> ParseName(std::string_view name, LabelKind* out) {
  FKDB_ASSIGN(*out, ParseLabelKind(name));
  return {};
}
Result<void> ParseName(std::string_view name, BoxEncoding* out) {
  FKDB_ASSIGN(*out, ParseBoxEncoding(name));
  return {};
}
Result<void> ParseName(std::string_view name, ValueEncoding* out) {
  FKDB_ASSIGN(*out, ParseValueEncoding(name));
  return {};
}

// Reads the fields of one object; the first error wins and is kept.
class Fields {
 public:
  // `path`: of the object, with a dot behind it; empty for the whole. Borrows the object.
  Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {}

  template <class T>
  void operator()(const char* name, T& out) {
    if (!done_) return;
    const std::string field = path_ + name;
    if (!object_.is_object() || !object_.contains(name)) {
      done_ = Fail(ErrorCode::kCorruption, fmt::format("manifest: field '{}' is missing", field));
    } else {
      done_ = Read(object_[name], field, &out);
    }
  }

  template <class T>
  void Optional(const char* name, T& out) {
    if (object_.is_object() && object_.contains(name)) (*this)(name, out);
  }

  const Result<void>& done() const { return done_; }

 private:
  template <class T>
  static Result<void> Read(const Json& json, const std::string& field, T* out) {
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
    } else if constexpr (kIsName<T>) {
      FKDB_ASSIGN(const std::string name, ToText(json, field));
      FKDB_TRY(ParseName(name, out));
    } else if constexpr (kIsList<T>) {
      if (!json.is_array()) return BadField(field, "a list");
      if constexpr (requires { out->resize(0); }) {
        out->resize(json.size());
      } else if (json.size() != out->size()) {
        return BadField(field, fmt::format("a list of {}", out->size()));
      }
      for (size_t i = 0; i < json.size(); ++i) FKDB_TRY(Read(json[i], fmt::format("{}[{}]", field, i), &(*out)[i]));
    } else {
      Fields part(json, field + ".");
      Describe(part, *out);
      return part.done();
    }
    return {};
  }

  const Json& object_;
  std::string path_;
  Result<void> done_;
};

Json RecipeJson(const Manifest& m) {
  Writer writer;
  DescribeRecipe(writer, m);
  return writer.json;
}

std::string FirstDifference(const Json& stored, const Json& wanted, const std::string& path, const DifferenceWords& words) {
  if (stored.is_object() && wanted.is_object()) {
    Json names = stored;
    names.update(wanted);
    for (const auto& [name, unused] : names.items()) {
      std::string field = path;
      field += path.empty() ? name : "." + name;
      const std::string found = FirstDifference(stored.value(name, Json()), wanted.value(name, Json()), field, words);
      if (!found.empty()) return found;
    }
    return "";
  }
  if (stored == wanted) return "";
  constexpr size_t kLongList = 8;  // of which one element says more than the whole, as it does of objects
  if (stored.is_array() && wanted.is_array() && stored.size() == wanted.size() && (stored.size() > kLongList || stored[0].is_object())) {
    size_t i = 0;
    while (stored[i] == wanted[i]) ++i;
    return FirstDifference(stored[i], wanted[i], fmt::format("{}[{}]", path, i), words);
  }
  const auto brief = [](const Json& json) {
    const std::string text = json.dump();
    return text.size() <= 80 ? text : text.substr(0, 77) + "...";
  };
  return fmt::format("{}: {} {}, {} {}", path, brief(stored), words.stored, brief(wanted), words.wanted);
}

}  // namespace

std::string ToJson(const Manifest& m) {
  Writer writer;
  writer("format", std::string(kFormatName));
  writer("format_version", kFormatVersion);
  writer("features", std::vector<std::string>());
  DescribeRecipe(writer, m);
  writer.json["counts"] = {{"images", m.num_images}, {"crops", m.num_crops}, {"skipped", m.skipped.size()}};
  writer("skipped", m.skipped);
  writer.Optional("contents_sha256", m.contents_sha256);
  writer("digest", m.digest);
  writer("complete", m.complete);
  writer("provenance", m.provenance);
  return writer.json.dump(2);
}

Manifest WithoutImages(Manifest manifest) {
  manifest.data_set.num_images = 0;
  manifest.data_set.key_list_sha256.clear();
  manifest.averaged.clear();
  manifest.boxes_from.clear();
  manifest.extends.clear();
  return manifest;
}

Result<Manifest> ParseManifest(std::string_view text, std::span<const std::string_view> known) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return Fail(ErrorCode::kCorruption, "manifest: not a JSON object");
  }
  // Version and features come first: the rest may look different in a newer version.
  std::string format;
  uint32_t version = 0;
  std::vector<std::string> features;
  Fields head(json, "");
  head("format", format);
  head("format_version", version);
  head("features", features);
  FKDB_TRY(head.done());
  if (format != kFormatName) return BadField("format", "\"fkdb\"");
  if (version > kFormatVersion) {
    return Fail(ErrorCode::kUnsupported,
                fmt::format("label format version {} is newer than this fkdb reads ({}): update fkdb", version,
                            kFormatVersion));
  }
  if (version < 1) return BadField("format_version", "1 or more");
  for (const std::string& feature : features) {
    if (std::find(known.begin(), known.end(), feature) != known.end()) continue;
    return Fail(ErrorCode::kUnsupported,
                fmt::format("the label set needs feature '{}', which this fkdb (format version {}) does not "
                            "have: update fkdb",
                            Printable(feature), kFormatVersion));
  }

  Manifest m;
  Fields fields(json, "");
  DescribeRecipe(fields, m);
  fields("skipped", m.skipped);
  fields.Optional("contents_sha256", m.contents_sha256);
  fields("digest", m.digest);
  fields("complete", m.complete);
  fields("provenance", m.provenance);
  FKDB_TRY(fields.done());
  const Json counts = json.value("counts", Json());
  Fields count_fields(counts, "counts.");
  count_fields("images", m.num_images);
  count_fields("crops", m.num_crops);
  FKDB_TRY(count_fields.done());

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

std::string RecipeDifference(const Manifest& stored, const Manifest& wanted, const DifferenceWords& words) {
  return FirstDifference(RecipeJson(stored), RecipeJson(wanted), "", words);
}

}  // namespace fkdb
