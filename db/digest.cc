// SPDX-License-Identifier: Apache-2.0
#include "db/digest.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <vector>

namespace fkdb {
namespace {

template <class T>
void Append(std::vector<std::byte>& out, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void AppendText(std::vector<std::byte>& out, std::string_view text) {
  Append(out, uint64_t{text.size()});
  const auto bytes = std::as_bytes(std::span(text));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

}  // namespace

Sha256::Hash ImageDigest(std::string_view key, const RecordView& record) {
  const LabelSpec& spec = record.spec();
  const uint32_t crops = record.num_crops();
  std::vector<std::byte> bytes;
  bytes.reserve(key.size() + 128 + crops * (17 + 4 * (spec.num_indices() + spec.num_values())));
  AppendText(bytes, key);
  Append(bytes, record.width());
  Append(bytes, record.height());
  Append(bytes, record.class_index());
  Append(bytes, record.content_hash());
  Append(bytes, static_cast<uint8_t>(record.exif()));
  AppendText(bytes, record.skip_reason());
  Append(bytes, crops);
  for (uint32_t i = 0; i < crops; ++i) {
    if (spec.boxes == BoxEncoding::kPixel) {
      Append(bytes, record.pixel_box(i));
    } else {
      Append(bytes, record.fraction_box(i));
    }
  }
  for (uint32_t i = 0; i < crops; ++i) Append(bytes, static_cast<uint8_t>(record.flip(i)));
  std::vector<uint32_t> indices(spec.num_indices());
  for (uint32_t i = 0; i < crops && !indices.empty(); ++i) {
    record.CopyIndices(i, indices.data());
    for (const uint32_t index : indices) Append(bytes, index);
  }
  std::vector<float> values(spec.num_values());
  for (uint32_t i = 0; i < crops && !values.empty(); ++i) {
    record.CopyValues(i, values.data());
    for (const float value : values) Append(bytes, value);
  }
  for (uint32_t i = 0; i < crops && record.has_ops(); ++i) {
    const std::span<const uint32_t> words = record.op_words(i);
    Append(bytes, static_cast<uint32_t>(words.size()));
    for (const uint32_t word : words) Append(bytes, word);
  }
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

LogicalDigest::LogicalDigest(const LabelSpec& spec, std::span<const std::string> class_names) {
  std::vector<std::byte> bytes;
  AppendText(bytes, fmt::format("fkdb labels 1\nkind={}\nnum_classes={}\ntop_k={}\nboxes={}\nvalues={}\n"
                                "temperature_bits={:08x}\n",
                                Name(spec.kind), spec.num_classes, spec.top_k, Name(spec.boxes),
                                Name(spec.values), std::bit_cast<uint32_t>(spec.temperature)));
  Append(bytes, uint64_t{class_names.size()});
  for (const std::string& name : class_names) AppendText(bytes, name);
  sha_.Update(bytes);
}

void LogicalDigest::Add(const Sha256::Hash& image_digest) {
  sha_.Update(std::as_bytes(std::span(image_digest)));
}

std::string LogicalDigest::Finish() { return "sha256:" + ToHex(sha_.Finish()); }

}  // namespace fkdb
