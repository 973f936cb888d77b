// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "db/publish.h"
#include "db/share/ordered_work.h"
#include "db/share/share.h"
#include "db/share/share_plan.h"
#include "db/share/share_reader.h"
#include "db/write_images.h"
#include "format/text.h"

namespace fkdb {
namespace {

using Records = std::vector<std::vector<std::byte>>;

// The records of a part.
Result<Records> ReadPart(const ShareReader& share, const GroupPart& part, uint32_t crops) {
  FKDB_ASSIGN(ShareReader::Group group, share.ReadHeads(part.shard, part.group));
  FKDB_TRY(share.ReadLayers(part.shard, part.group, crops, &group.columns));
  Records records;
  const auto about = [&](uint32_t image, const Error& error) {
    return share.About(part.shard, part.group, {error.code, fmt::format("image '{}': {}", Printable(group.keys[image]), error.message)});
  };
  uint32_t at = 0;
  for (const uint32_t image : part.images) {
    for (; at < image; ++at) {
      if (auto skipped = group.columns.Skip(); !skipped) return about(at, skipped.error());
    }
    auto record = group.columns.Next(Hash64(group.keys[at]));
    if (!record) return about(at, record.error());
    records.push_back(*std::move(record));
    ++at;
  }
  if (at == group.columns.num_images()) {
    if (auto finished = group.columns.Finish(); !finished) return share.About(part.shard, part.group, finished.error());
  }
  return records;
}

// The records of the plan's images in order, from any of them on.
class RecordStream {
 public:
  RecordStream(const ShareReader& share, const SharePlan& plan, uint32_t crops, int threads) : share_(share), plan_(plan), crops_(crops), threads_(threads) {}

  Result<std::vector<std::byte>> Next(const SourceImage& image) {
    if (!work_) {
      next_ = part_ = image.set;
      work_ = std::make_unique<Work>(
          threads_, [this]() -> Result<std::optional<size_t>> { return next_ < plan_.parts.size() ? std::optional(next_++) : std::nullopt; },
          [this](size_t part) { return ReadPart(share_, plan_.parts[part], crops_); });
      FKDB_TRY(NextPart());
    }
    if (image.set != part_) {
      part_ = image.set;
      FKDB_TRY(NextPart());
    }
    return std::move((*records_)[image.ordinal]);
  }

 private:
  using Work = OrderedWork<size_t, Records>;
  Result<void> NextPart() {
    FKDB_ASSIGN(records_, work_->Next());
    return {};
  }

  const ShareReader& share_;
  const SharePlan& plan_;
  const uint32_t crops_;
  const int threads_;
  size_t next_ = 0, part_ = 0;
  std::optional<Records> records_;
  std::unique_ptr<Work> work_;
};

}  // namespace

Result<Manifest> UnpackShare(const std::filesystem::path& folder, const std::filesystem::path& out, const UnpackOptions& options) {
  FKDB_TRY(CheckOutput(out, options.file.resume, options.file.overwrite));  // before all the reading
  FKDB_ASSIGN(ShareReader share, ShareReader::Open(folder, options.trusted));
  const Manifest& packed = share.manifest().label_set;
  ShareSelection selection = options;
  if (const auto& here = share.manifest().part) {  // of a part all of it, unless less of it was asked for
    if (selection.images.empty()) selection.images = here->images;
    if (selection.crops == 0) selection.crops = here->crops;
    if (selection.classes.empty()) selection.classes = here->classes;
  }
  FKDB_ASSIGN(const ShareChoice choice, ShareChoice::Make(packed, folder, selection));
  FKDB_ASSIGN(const SharePlan plan, PlanShare(share, folder, choice, options.threads));

  Manifest recipe = packed;
  RewriteOptions rewrite = options;
  rewrite.file.threads = options.threads;
  if (rewrite.provenance.licence.empty()) rewrite.provenance.licence = share.manifest().licence;
  if (rewrite.provenance.notes.empty()) rewrite.provenance.notes = share.manifest().notes;
  if (selection.all()) {
    rewrite.file.digest = packed.digest;
  } else {
    recipe.extends.clear();
    recipe.augmentation.crops = std::min(recipe.augmentation.crops, choice.crops());
  }
  RecordStream records(share, plan, choice.crops(), options.threads);
  return WriteImages(out, recipe, plan.images, rewrite, [&](const SourceImage& image) { return records.Next(image); });
}

}  // namespace fkdb
