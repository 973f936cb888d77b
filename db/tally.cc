// SPDX-License-Identifier: Apache-2.0
#include "db/tally.h"

#include <fmt/format.h>

#include "format/hash.h"
#include "format/text.h"

namespace fkdb {

Tally::Tally(const Manifest& recipe) : spec_(recipe.spec), digest_(recipe.spec, recipe.data_set.class_names) {}

Result<void> Tally::Add(std::string_view key, std::span<const std::byte> bytes) {
  const auto about = [&](Error error) {
    return Fail(error.code, fmt::format("image '{}': {}", Printable(key), error.message));
  };
  auto view = RecordView::Open(bytes, spec_);
  if (!view) return about(std::move(view).error());
  auto record = DecodeRecord(*view);
  if (!record) return about(std::move(record).error());
  if (record->key_hash != Hash64(key)) return about({ErrorCode::kInvalidArgument, "its record belongs to another key"});
  digest_.Add(ImageDigest(key, *record));
  contents_.Add(*record);
  num_crops_ += record->num_crops();
  if (view->skipped()) skipped_.push_back(num_images_);
  ++num_images_;
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
