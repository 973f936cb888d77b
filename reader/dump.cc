// SPDX-License-Identifier: Apache-2.0
#include "reader/dump.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "format/text.h"
#include "format/recover.h"

namespace fkdb {
namespace {

// Numbers are written by hand: JSON libraries print a float as a double, twice as long.
void AppendFloats(std::string& out, std::span<const float> values) {
  out += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ',';
    out += ShortestFloat(values[i]);
  }
  out += ']';
}

// [{"op":"mixup","partner":"0123456789abcdef","lambda":0.3},..]
Result<std::string> OpsJson(const RecordView& record, uint32_t crop) {
  FKDB_ASSIGN(const std::vector<CropOp> ops, record.Ops(crop));
  std::string out = "[";
  for (const CropOp& op : ops) {
    const OpInfo& info = *InfoOf(op.kind);
    out += fmt::format("{}{{\"op\":\"{}\"", out.size() > 1 ? "," : "", info.name);
    if (info.has_partner) out += fmt::format(",\"partner\":\"{:016x}\"", op.partner);
    for (size_t i = 0; i < info.values.size(); ++i) {
      out += fmt::format(",\"{}\":{}", info.values[i], ShortestFloat(op.values[i]));
    }
    out += '}';
  }
  return out + "]";
}

std::string Quoted(std::string_view text) { return nlohmann::json(text).dump(); }

}  // namespace

std::string ShortestFloat(float value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

Result<std::string> DumpImage(const Reader& reader, uint64_t ordinal, const DumpOptions& options) {
  FKDB_ASSIGN(const RecordView record, reader.Get(ordinal));
  const LabelSpec& spec = record.spec();
  if (options.dense && spec.kind == LabelKind::kLogits && !(options.tau && *options.tau > 0)) {
    return Fail(ErrorCode::kInvalidArgument, "dense labels from logits need a temperature: --tau T, above 0");
  }
  if (options.crop && *options.crop >= record.num_crops()) {
    return Fail(reader.About(ordinal, {ErrorCode::kNotFound, fmt::format("no crop {}: it has {} (counted from 0)",
                                                                         *options.crop, record.num_crops())}));
  }
  FKDB_ASSIGN(const std::optional<std::string> key, reader.Key(ordinal));
  std::string out = "{";
  if (key && IsUtf8(*key)) {
    out += fmt::format("\"key\":{},", Quoted(*key));
  } else if (key) {
    out += fmt::format("\"key_b64\":\"{}\",", ToBase64(*key));
  } else {
    out += "\"key\":null,";  // a `.partial` has no names yet
  }
  const bool pixel = spec.boxes == BoxEncoding::kPixel;
  out += fmt::format("\"ordinal\":{},\"width\":{},\"height\":{},\"class\":{},\"kind\":\"{}\",\"box_unit\":\"{}\",",
                     ordinal, record.width(), record.height(),
                     record.class_index() == kNoClass ? "null" : std::to_string(record.class_index()),
                     Name(spec.kind), pixel ? "pixel" : "fraction");
  if (record.skipped()) out += fmt::format("\"skipped\":{},", Quoted(Printable(record.skip_reason())));
  out += "\"crops\":[";
  std::vector<uint32_t> indices(spec.num_indices());
  std::vector<float> values(spec.num_values()), dense(spec.num_classes);
  const uint32_t first = options.crop.value_or(0);
  const uint32_t end = options.crop ? first + 1 : record.num_crops();
  for (uint32_t crop = first; crop < end; ++crop) {
    if (auto valid = record.ValidateCrop(crop); !valid) return Fail(reader.About(ordinal, std::move(valid).error()));
    if (crop > first) out += ',';
    if (pixel) {
      const PixelBox b = record.pixel_box(crop);
      out += fmt::format("{{\"box\":[{},{},{},{}]", b.top, b.left, b.height, b.width);
    } else {
      const FractionBox b = record.fraction_box(crop);
      out += "{\"box\":";
      AppendFloats(out, std::array{b.top, b.left, b.height, b.width});
    }
    FKDB_ASSIGN(const std::string ops, OpsJson(record, crop));
    out += fmt::format(",\"flip\":{},\"ops\":{}", record.flip(crop), ops);
    if (!indices.empty()) {
      record.CopyIndices(crop, indices.data());
      out += fmt::format(",\"indices\":[{}]", fmt::join(indices, ","));
    }
    if (!values.empty()) record.CopyValues(crop, values.data());
    out += ",\"values\":";
    if (spec.kind == LabelKind::kHard) {
      out += "[1]";
    } else {
      AppendFloats(out, values);
    }
    if (options.dense) {
      RecoverCrop(spec, indices, values, options.tau.value_or(1), dense);
      out += ",\"dense\":";
      AppendFloats(out, dense);
    }
    out += '}';
  }
  out += "]}";
  return out;
}

}  // namespace fkdb
