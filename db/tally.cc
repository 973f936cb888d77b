// SPDX-License-Identifier: Apache-2.0
#include "db/tally.h"

#include <fmt/format.h>

#include "format/hash.h"
#include "format/text.h"

namespace fkdb {

Tally::Tally(const Manifest& recipe) : spec_(recipe.spec), digest_(recipe.spec, recipe.data_set.class_names) {}

Result<Tally::Image> Tally::Look(std::string_view key, std::span<const std::byte> bytes, std::vector<std::byte>* message) const {
  const auto about = [&](Error error) {
    return Fail(error.code, fmt::format("image '{}': {}", Printable(key), error.message));
  };
  auto view = RecordView::Open(bytes, spec_);
  if (!view) return about(std::move(view).error());
  auto record = DecodeRecord(*view);
  if (!record) return about(std::move(record).error());
  if (record->key_hash != Hash64(key)) return about({ErrorCode::kInvalidArgument, "its record belongs to another key"});
  *message = ImageMessage(key, *record);
  Image image = {{}, {}, record->num_crops(), view->skipped()};
  image.size_and_file.width = record->width;
  image.size_and_file.height = record->height;
  image.size_and_file.content_hash = record->content_hash;
  return image;
}

Result<std::vector<Tally::Image>> Tally::Check(std::span<const std::string> keys, std::span<const std::span<const std::byte>> records) const {
  std::vector<Image> images;
  std::vector<std::vector<std::byte>> messages(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    FKDB_ASSIGN(Image image, Look(keys[i], records[i], &messages[i]));
    images.push_back(std::move(image));
  }
  const std::vector<std::span<const std::byte>> views(messages.begin(), messages.end());
  const std::vector<Sha256::Hash> digests = Sha256Many(views);
  for (size_t i = 0; i < images.size(); ++i) images[i].digest = digests[i];
  return images;
}

void Tally::Add(const Image& image) {
  digest_.Add(image.digest);
  contents_.Add(image.size_and_file);
  num_crops_ += image.crops;
  if (image.skipped) skipped_.push_back(num_images_);
  ++num_images_;
}

Result<void> Tally::Add(std::string_view key, std::span<const std::byte> bytes) {
  const std::string keys[] = {std::string(key)};
  FKDB_ASSIGN(const std::vector<Image> images, Check(keys, {&bytes, 1}));
  Add(images[0]);
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
