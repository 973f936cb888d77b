// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "db/publish.h"
#include "db/share/ordered_work.h"
#include "db/share/share.h"
#include "db/share/share_reader.h"
#include "db/write_images.h"
#include "format/record.h"
#include "format/text.h"

namespace fkdb {
namespace {

// What is wanted of a group.
struct GroupPart {
  size_t shard, group;
  std::vector<uint32_t> images;  // in it, ascending
};

using Records = std::vector<std::vector<std::byte>>;

// Class names, or numbers where no class is called so, as class indices.
Result<std::vector<bool>> ChosenClasses(const ShareReader& share, const std::filesystem::path& folder, const std::vector<std::string>& names) {
  const std::vector<std::string>& known = share.manifest().label_set.data_set.class_names;
  std::vector<bool> chosen(names.empty() ? 0 : known.size());
  for (const std::string& name : names) {
    auto index = static_cast<size_t>(std::find(known.begin(), known.end(), name) - known.begin());
    if (index == known.size()) {
      const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
      if (error != std::errc() || end != name.data() + name.size() || index >= known.size()) {
        return Fail(ErrorCode::kNotFound, fmt::format("{}: no class '{}' among its {}", folder.string(), Printable(name), known.size()));
      }
    }
    chosen[index] = true;
  }
  return chosen;
}

// The keys that are asked for, sorted.
Result<std::vector<std::string>> ChosenKeys(std::vector<std::string> keys) {
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice != keys.end()) return Fail(ErrorCode::kInvalidArgument, fmt::format("image '{}' is named twice", Printable(*twice)));
  return keys;
}

class Choice {
 public:
  static Result<Choice> Make(const ShareReader& share, const std::filesystem::path& folder, const UnpackOptions& options) {
    Choice choice;
    FKDB_ASSIGN(choice.keys_, ChosenKeys(options.images));
    FKDB_ASSIGN(choice.classes_, ChosenClasses(share, folder, options.classes));
    return choice;
  }
  bool all() const { return keys_.empty() && classes_.empty(); }
  bool has_keys() const { return !keys_.empty(); }
  const std::vector<std::string>& keys() const { return keys_; }

  // Whether an image of keys [first, behind) can be wanted; an empty `behind` is the end.
  bool MayHave(const std::string& first, const std::string* behind) const {
    if (keys_.empty()) return true;
    const auto at = std::lower_bound(keys_.begin(), keys_.end(), first);
    return at != keys_.end() && (behind == nullptr || *at < *behind);
  }
  bool MayHave(int32_t lowest, int32_t highest) const {
    if (classes_.empty() || has_keys()) return true;  // of an image that was named one wants to know whether it is there
    for (int64_t c = std::max(lowest, 0); c <= highest && c < static_cast<int64_t>(classes_.size()); ++c) {
      if (classes_[static_cast<size_t>(c)]) return true;
    }
    return false;
  }
  bool Has(const std::string& key, int32_t class_index) const {
    if (!keys_.empty() && !std::binary_search(keys_.begin(), keys_.end(), key)) return false;
    return classes_.empty() || (class_index >= 0 && static_cast<size_t>(class_index) < classes_.size() && classes_[static_cast<size_t>(class_index)]);
  }

 private:
  std::vector<std::string> keys_;  // sorted; empty: all
  std::vector<bool> classes_;      // empty: all
};

// The images that are wanted, and the groups they lie in.
struct Plan {
  std::vector<GroupPart> parts;
  std::vector<SourceImage> images;  // `set`: of parts; `ordinal`: of the part's images
};

Result<Plan> MakePlan(ShareReader& share, const std::filesystem::path& folder, const Choice& choice, int threads) {
  const ShareManifest& manifest = share.manifest();
  std::vector<GroupPart> candidates;
  for (size_t s = 0; s < manifest.shards.size(); ++s) {
    // The next shard begins behind this one's last key: what lies between is in neither.
    if (!choice.MayHave(manifest.shards[s].first_key, s + 1 < manifest.shards.size() ? &manifest.shards[s + 1].first_key : nullptr)) continue;
    FKDB_TRY(share.OpenShard(s));
    const std::vector<GroupPlace>& groups = share.index(s).groups;
    for (size_t g = 0; g < groups.size(); ++g) {
      const std::string* behind = g + 1 < groups.size() ? &groups[g + 1].first_key : nullptr;
      if (choice.MayHave(groups[g].first_key, behind) && choice.MayHave(groups[g].lowest_class, groups[g].highest_class)) candidates.push_back({s, g, {}});
    }
  }
  struct Found {
    GroupPart part;
    std::vector<std::string> keys;
    std::vector<std::string> named;  // asked for by name, of another class
  };
  size_t next = 0;
  OrderedWork<GroupPart, Found> work(
      threads, [&]() -> Result<std::optional<GroupPart>> { return next < candidates.size() ? std::optional(candidates[next++]) : std::nullopt; },
      [&](GroupPart part) -> Result<Found> {
        FKDB_ASSIGN(ShareReader::Group group, share.ReadHeads(part.shard, part.group));
        Found found = {std::move(part), {}, {}};
        for (uint32_t i = 0; i < group.columns.num_images(); ++i) {
          const std::string& key = group.keys[i];
          if (choice.Has(key, group.columns.head(i).class_index)) {
            found.part.images.push_back(i);
            found.keys.push_back(key);
          } else if (choice.has_keys() && std::ranges::binary_search(choice.keys(), key)) {
            found.named.push_back(key);
          }
        }
        return found;
      });
  Plan plan;
  std::vector<std::string> named;
  for (;;) {
    FKDB_ASSIGN(std::optional<Found> found, work.Next());
    if (!found) break;
    named.insert(named.end(), found->named.begin(), found->named.end());
    if (found->keys.empty()) continue;
    if (!plan.images.empty() && found->keys.front() <= plan.images.back().key) {
      return Fail(ErrorCode::kCorruption, fmt::format("{}: image '{}' is not behind the one before", share.PathOf(found->part.shard).string(), Printable(found->keys.front())));
    }
    for (size_t i = 0; i < found->keys.size(); ++i) plan.images.push_back({std::move(found->keys[i]), static_cast<uint32_t>(plan.parts.size()), i});
    plan.parts.push_back(std::move(found->part));
  }
  // Every image that was named is in it, whatever its class.
  const auto is = [&](const std::string& key) {
    const auto at = std::ranges::lower_bound(plan.images, key, {}, &SourceImage::key);
    return (at != plan.images.end() && at->key == key) || std::ranges::find(named, key) != named.end();
  };
  for (const std::string& key : choice.keys()) {
    if (!is(key)) return Fail(ErrorCode::kNotFound, fmt::format("{}: no image '{}' in it", folder.string(), Printable(key)));
  }
  if (plan.images.empty() && !choice.all()) return Fail(ErrorCode::kNotFound, fmt::format("{}: no image of the classes asked for", folder.string()));
  return plan;
}

// The records of a part, each checked for what it means.
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
    const auto view = RecordView::Open(*record, share.rule().spec);
    if (!view) return about(at, view.error());
    if (auto valid = view->Validate(); !valid) return about(at, valid.error());
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
  RecordStream(const ShareReader& share, const Plan& plan, uint32_t crops, int threads) : share_(share), plan_(plan), crops_(crops), threads_(threads) {}

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
  const Plan& plan_;
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
  FKDB_ASSIGN(const Choice choice, Choice::Make(share, folder, options));
  const uint32_t crops = options.crops > 0 ? options.crops : kMaxCropsPerImage;
  if (packed.spec.is_map() && options.crops > 0) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: a label map's cells belong together: --crops does not apply", folder.string()));
  }
  FKDB_ASSIGN(const Plan plan, MakePlan(share, folder, choice, options.threads));

  Manifest recipe = packed;
  RewriteOptions rewrite = options;
  rewrite.file.threads = options.threads;
  if (rewrite.provenance.licence.empty()) rewrite.provenance.licence = share.manifest().licence;
  if (rewrite.provenance.notes.empty()) rewrite.provenance.notes = share.manifest().notes;
  if (choice.all() && options.crops == 0) {
    rewrite.file.digest = packed.digest;
  } else {
    recipe.extends.clear();
    recipe.augmentation.crops = std::min(recipe.augmentation.crops, crops);
  }
  RecordStream records(share, plan, crops, options.threads);
  return WriteImages(out, recipe, plan.images, rewrite, [&](const SourceImage& image) { return records.Next(image); });
}

}  // namespace fkdb
