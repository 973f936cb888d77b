// SPDX-License-Identifier: Apache-2.0
#include "db/digest.h"

#include <fmt/format.h>

#include <bit>
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

Sha256::Hash ImageDigest(std::string_view key, const Record& record) {
  static_assert(sizeof(PixelBox) == 16 && sizeof(FractionBox) == 16, "hashed as they lie");
  std::vector<std::byte> message;
  message.reserve(key.size() + 128 + record.flips.size() * (sizeof(PixelBox) + 1) + (record.indices.size() + record.values.size()) * 4);
  AppendText(message, key);
  Append(message, record.width);
  Append(message, record.height);
  Append(message, record.class_index);
  Append(message, record.content_hash);
  Append(message, static_cast<uint8_t>(record.exif));
  AppendText(message, record.skip_reason);
  Append(message, record.num_crops());
  const auto append = [&](const auto& numbers) {
    const auto bytes = std::as_bytes(std::span(numbers));
    message.insert(message.end(), bytes.begin(), bytes.end());
  };
  append(record.pixel_boxes);
  append(record.fraction_boxes);
  append(record.flips);
  append(record.indices);
  append(record.values);
  for (const std::vector<CropOp>& ops : record.ops) {
    std::vector<uint32_t> words;
    AppendOpWords(ops, &words);
    Append(message, static_cast<uint32_t>(words.size()));
    append(words);
  }
  return Sha256::Of(message);
}

LogicalDigest::LogicalDigest(const LabelSpec& spec, std::span<const std::string> class_names) {
  std::vector<std::byte> bytes;
  AppendText(bytes, fmt::format("fkdb labels 1\nkind={}\nnum_classes={}\ntop_k={}\nboxes={}\nvalues={}\n"
                                "temperature_bits={:08x}\n",
                                Name(spec.kind), spec.num_classes, spec.top_k, Name(spec.boxes),
                                Name(spec.values), std::bit_cast<uint32_t>(spec.temperature)));
  if (spec.is_map()) AppendText(bytes, fmt::format("grid={}x{}\n", spec.grid_height, spec.grid_width));
  Append(bytes, uint64_t{class_names.size()});
  for (const std::string& name : class_names) AppendText(bytes, name);
  sha_.Update(bytes);
}

void LogicalDigest::Add(const Sha256::Hash& image_digest) {
  sha_.Update(std::as_bytes(std::span(image_digest)));
}

std::string LogicalDigest::Finish() { return "sha256:" + ToHex(sha_.Finish()); }

void ContentsDigest::Add(const Record& record) {
  (record.content_hash == ContentHash{} ? unknown_ : known_) = true;
  std::vector<std::byte> bytes;
  Append(bytes, record.width);
  Append(bytes, record.height);
  Append(bytes, record.content_hash);
  sha_.Update(bytes);
}

std::string ContentsDigest::Finish() { return known_ && !unknown_ ? ToHex(sha_.Finish()) : std::string(); }

}  // namespace fkdb
