// SPDX-License-Identifier: Apache-2.0
#include "db/tally.h"

#include <fmt/format.h>

#include "format/hash.h"
#include "format/text.h"

namespace fkdb {

Tally::Tally(const Manifest& recipe) : spec_(recipe.spec), digest_(recipe.spec, recipe.data_set.class_names) {}

Result<Tally::Image> Tally::Check(std::string_view key, std::span<const std::byte> bytes) const {
  const auto about = [&](Error error) {
    return Fail(error.code, fmt::format("image '{}': {}", Printable(key), error.message));
  };
  auto view = RecordView::Open(bytes, spec_);
  if (!view) return about(std::move(view).error());
  auto record = DecodeRecord(*view);
  if (!record) return about(std::move(record).error());
  if (record->key_hash != Hash64(key)) return about({ErrorCode::kInvalidArgument, "its record belongs to another key"});
  Image image = {ImageDigest(key, *record), {}, record->num_crops(), view->skipped()};
  image.size_and_file.width = record->width;
  image.size_and_file.height = record->height;
  image.size_and_file.content_hash = record->content_hash;
  return image;
}

void Tally::Add(const Image& image) {
  digest_.Add(image.digest);
  contents_.Add(image.size_and_file);
  num_crops_ += image.crops;
  if (image.skipped) skipped_.push_back(num_images_);
  ++num_images_;
}

Result<void> Tally::Add(std::string_view key, std::span<const std::byte> bytes) {
  FKDB_ASSIGN(const Image image, Check(key, bytes));
  Add(image);
  return {};
}

void Tally::Finish(Manifest* manifest) {
  manifest->num_images = num_images_;
  manifest->num_crops = num_crops_;
  manifest->skipped = std::move(skipped_);
  manifest->contents_sha256 = contents_.Finish();
  manifest->digest = digest_.Finish();
  manifest->complete = true;
}

}  // namespace fkdb
