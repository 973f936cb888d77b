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
  const uint32_t crops = record.num_crops(), k = spec.num_indices(), v = spec.num_values();
  std::vector<std::byte> bytes;
  bytes.reserve(key.size() + 128 + crops * (17 + 4 * (size_t{k} + v)));
  AppendText(bytes, key);
  Append(bytes, record.width());
  Append(bytes, record.height());
  Append(bytes, record.class_index());
  Append(bytes, record.content_hash());
  Append(bytes, static_cast<uint8_t>(record.exif()));
  AppendText(bytes, record.skip_reason());
  Append(bytes, crops);

  // The arrays are decoded to where they are hashed. Nothing of them is aligned.
  static_assert(sizeof(PixelBox) == 16 && sizeof(FractionBox) == 16);
  const size_t boxes_at = bytes.size(), flips_at = boxes_at + size_t{crops} * 16, indices_at = flips_at + crops;
  const size_t values_at = indices_at + size_t{crops} * k * 4;
  bytes.resize(values_at + size_t{crops} * v * 4);
  std::vector<uint32_t> indices(k);
  std::vector<float> values(v);
  for (size_t i = 0; i < crops; ++i) {
    const auto crop = static_cast<uint32_t>(i);
    if (spec.boxes == BoxEncoding::kPixel) {
      const PixelBox box = record.pixel_box(crop);
      std::memcpy(&bytes[boxes_at + i * 16], &box, 16);
    } else {
      const FractionBox box = record.fraction_box(crop);
      std::memcpy(&bytes[boxes_at + i * 16], &box, 16);
    }
    bytes[flips_at + i] = static_cast<std::byte>(record.flip(crop));
    if (k > 0) {
      record.CopyIndices(crop, indices.data());
      std::memcpy(&bytes[indices_at + i * k * 4], indices.data(), size_t{k} * 4);
    }
    if (v > 0) {
      record.CopyValues(crop, values.data());
      std::memcpy(&bytes[values_at + i * v * 4], values.data(), size_t{v} * 4);
    }
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
