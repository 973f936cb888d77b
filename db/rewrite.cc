// SPDX-License-Identifier: Apache-2.0
#include "db/rewrite.h"

#include <fmt/format.h>

#include <algorithm>

#include "db/collection.h"
#include "db/file_names.h"
#include "db/label_set.h"
#include "db/lock_file.h"
#include "db/publish.h"
#include "db/tally.h"
#include "db/write_images.h"
#include "format/recode.h"
#include "format/text.h"

namespace fkdb {
namespace {

// The parts of one label set, and all their images in key order.
struct Parts {
  std::vector<LabelSet> sets;
  std::vector<SourceImage> images;
};

Result<Parts> OpenParts(std::span<const std::filesystem::path> inputs) {
  if (inputs.empty()) return Fail(ErrorCode::kInvalidArgument, "nothing to merge");
  Parts parts;
  for (const auto& path : inputs) {
    FKDB_ASSIGN(LabelSet set, LabelSet::Open(path));
    if (!parts.sets.empty()) {
      const std::string difference = RecipeDifference(WithoutImages(parts.sets[0].manifest()), WithoutImages(set.manifest()),
                                                      {"in the first", "in the second"});
      if (!difference.empty()) {
        return Fail(ErrorCode::kMismatch,
                    fmt::format("{} and {} are not parts of one label set: {}", inputs[0].string(), path.string(),
                                difference));
      }
    }
    FKDB_ASSIGN(std::vector<std::string> keys, set.AllKeys());
    for (uint64_t i = 0; i < keys.size(); ++i) {
      parts.images.push_back({std::move(keys[i]), static_cast<uint32_t>(parts.sets.size()), i});
    }
    parts.sets.push_back(std::move(set));
  }
  std::stable_sort(parts.images.begin(), parts.images.end(),
                   [](const SourceImage& a, const SourceImage& b) { return a.key < b.key; });
  const auto twice = std::adjacent_find(parts.images.begin(), parts.images.end(),
                                        [](const SourceImage& a, const SourceImage& b) { return a.key == b.key; });
  if (twice != parts.images.end()) {
    return Fail(ErrorCode::kMismatch,
                fmt::format("image '{}' is in both {} and {}", Printable(twice->key), inputs[twice->set].string(),
                            inputs[(twice + 1)->set].string()));
  }
  return parts;
}

// Where `file` is, seen from the folder of `index`.
std::string RelativeTo(const std::filesystem::path& index, const std::filesystem::path& file) {
  std::error_code ec;
  const auto folder = index.has_parent_path() ? index.parent_path() : std::filesystem::path(".");
  return std::filesystem::proximate(file, folder, ec).string();
}

// The shards behind `parts` and the order of their images.
CollectionIndex IndexOf(const Parts& parts, const std::filesystem::path& out) {
  CollectionIndex index;
  std::vector<uint32_t> first_shard;  // of each part: a collection has several
  for (const LabelSet& set : parts.sets) {
    first_shard.push_back(static_cast<uint32_t>(index.shards.size()));
    for (const LabelFile& file : set.files()) {
      index.shards.push_back({RelativeTo(out, file.path()), file.num_images(), file.manifest().digest});
    }
  }
  for (const SourceImage& image : parts.images) {
    const uint32_t shard = first_shard[image.set] + parts.sets[image.set].PlaceOf(image.ordinal).file;
    if (index.order.empty() || index.order.back().shard != shard) index.order.push_back({shard, 0});
    ++index.order.back().images;
  }
  return index;
}

// What the parts have in common: their recipe, and whose crops they have if all say the same.
Manifest RecipeOf(const Parts& parts) {
  const Manifest& first = parts.sets[0].manifest();
  Manifest recipe = WithoutImages(first);
  const auto same = [&](const std::string Manifest::*field) {
    return std::ranges::all_of(parts.sets, [&](const LabelSet& set) { return set.manifest().*field == first.*field; });
  };
  if (same(&Manifest::boxes_from)) recipe.boxes_from = first.boxes_from;
  if (same(&Manifest::extends)) recipe.extends = first.extends;
  return recipe;
}

}  // namespace

Result<Manifest> MergeLabelSets(std::span<const std::filesystem::path> inputs, const std::filesystem::path& out,
                                const RewriteOptions& options) {
  FKDB_ASSIGN(const Parts parts, OpenParts(inputs));
  return WriteImages(out, RecipeOf(parts), parts.images, options,
                  [&](const SourceImage& source) -> Result<std::vector<std::byte>> {
                    FKDB_ASSIGN(const auto bytes, parts.sets[source.set].RecordBytes(source.ordinal));
                    return std::vector<std::byte>(bytes.begin(), bytes.end());
                  });
}

Result<Manifest> CollectLabelSets(std::span<const std::filesystem::path> inputs, const std::filesystem::path& out,
                                  const RewriteOptions& options) {
  FKDB_ASSIGN(const Parts parts, OpenParts(inputs));
  FKDB_TRY(CheckOutput(out, options.file.resume, options.file.overwrite));
  FKDB_ASSIGN(const LockFile lock, LockFile::Acquire(WriterLockPath(out)));
  FKDB_TRY(CheckOutput(out, options.file.resume, options.file.overwrite));

  CollectionIndex index = IndexOf(parts, out);
  index.manifest = OutputRecipe(RecipeOf(parts), parts.images, options);
  Tally tally(index.manifest);
  for (uint64_t i = 0; i < parts.images.size(); ++i) {
    const SourceImage& image = parts.images[i];
    if (options.stop && options.stop->load()) {
      return Fail(ErrorCode::kIncomplete, "stopped before the index was written; the same command starts again");
    }
    FKDB_ASSIGN(const auto bytes, parts.sets[image.set].RecordBytes(image.ordinal));
    if (auto added = tally.Add(image.key, bytes); !added) {
      return Fail(added.error().code, fmt::format("{}: {}", inputs[image.set].string(), added.error().message));
    }
    if (options.progress && i % 256 == 0) options.progress(i, parts.images.size());
  }
  tally.Finish(&index.manifest);

  FKDB_TRY(PublishText(out, ToIndexText(index), options.file.overwrite));
  return index.manifest;
}

Result<Manifest> SubsetLabelSet(const std::filesystem::path& input, const std::filesystem::path& out,
                                const SubsetOptions& options) {
  FKDB_ASSIGN(const LabelSet set, LabelSet::Open(input));
  Manifest recipe = set.manifest();
  recipe.extends.clear();
  const LabelSpec from = recipe.spec;
  if (!options.recode.empty()) {
    FKDB_ASSIGN(recipe.spec, ParseRecode(from, options.recode));
  }
  const LabelSpec to = recipe.spec;
  const uint32_t crops = options.crops > 0 ? options.crops : kMaxCropsPerImage;
  recipe.augmentation.crops = std::min(recipe.augmentation.crops, crops);

  std::vector<SourceImage> sources;
  if (options.images.empty()) {
    FKDB_ASSIGN(std::vector<std::string> keys, set.AllKeys());
    for (uint64_t i = 0; i < keys.size(); ++i) sources.push_back({std::move(keys[i]), 0, i});
  }
  for (const std::string& key : options.images) {
    FKDB_ASSIGN(const uint64_t ordinal, set.Find(key));
    sources.push_back({key, 0, ordinal});
  }
  std::sort(sources.begin(), sources.end(), [](const SourceImage& a, const SourceImage& b) { return a.ordinal < b.ordinal; });
  for (size_t i = 1; i < sources.size(); ++i) {
    if (sources[i].ordinal == sources[i - 1].ordinal) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("image '{}' is named twice", Printable(sources[i].key)));
    }
  }
  return WriteImages(out, recipe, sources, options, [&](const SourceImage& source) -> Result<std::vector<std::byte>> {
    FKDB_ASSIGN(const auto bytes, set.RecordBytes(source.ordinal));
    const auto about = [&](Error error) {
      return Fail(error.code, fmt::format("{}: image '{}': {}", input.string(), Printable(source.key), error.message));
    };
    auto view = RecordView::Open(bytes, from);
    if (!view) return about(std::move(view).error());
    if (from == to && view->num_crops() <= crops) return std::vector<std::byte>(bytes.begin(), bytes.end());
    auto decoded = DecodeRecord(*view);
    if (!decoded) return about(std::move(decoded).error());
    Record record = FirstCrops(from, *std::move(decoded), crops);
    if (from != to) record = RecodeRecord(from, to, std::move(record));
    auto encoded = EncodeRecord(to, record);
    if (!encoded) return about(std::move(encoded).error());
    return encoded;
  });
}

}  // namespace fkdb
