// SPDX-License-Identifier: Apache-2.0
#include "db/share/share_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "db/share/ordered_work.h"
#include "format/text.h"

namespace fkdb {
namespace {

// Class names, or numbers where no class is called so, as class indices.
Result<std::vector<bool>> ChosenClasses(const std::vector<std::string>& known, const std::filesystem::path& folder, const std::vector<std::string>& names) {
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

}  // namespace

Result<ShareChoice> ShareChoice::Make(const Manifest& label_set, const std::filesystem::path& folder, const ShareSelection& selection) {
  ShareChoice choice;
  FKDB_ASSIGN(choice.keys_, ChosenKeys(selection.images));
  FKDB_ASSIGN(choice.classes_, ChosenClasses(label_set.data_set.class_names, folder, selection.classes));
  if (selection.crops > 0) choice.crops_ = selection.crops;
  if (label_set.spec.is_map() && selection.crops > 0) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: a label map's cells belong together: --crops does not apply", folder.string()));
  }
  return choice;
}

bool ShareChoice::MayHave(const std::string& first, const std::string* behind) const {
  if (keys_.empty()) return true;
  const auto at = std::lower_bound(keys_.begin(), keys_.end(), first);
  return at != keys_.end() && (behind == nullptr || *at < *behind);
}

bool ShareChoice::MayHave(int32_t lowest, int32_t highest) const {
  if (classes_.empty() || !keys_.empty()) return true;  // of an image that was named one wants to know whether it is there
  for (int64_t c = std::max(lowest, 0); c <= highest && c < static_cast<int64_t>(classes_.size()); ++c) {
    if (classes_[static_cast<size_t>(c)]) return true;
  }
  return false;
}

bool ShareChoice::Has(const std::string& key, int32_t class_index) const {
  if (!keys_.empty() && !std::binary_search(keys_.begin(), keys_.end(), key)) return false;
  return classes_.empty() || (class_index >= 0 && static_cast<size_t>(class_index) < classes_.size() && classes_[static_cast<size_t>(class_index)]);
}

std::vector<size_t> ShareChoice::Shards(const ShareManifest& manifest) const {
  const std::vector<ShareShard>& shards = manifest.shards;
  std::vector<size_t> chosen;
  for (size_t s = 0; s < shards.size(); ++s) {
    // The next shard begins behind this one's last key: what lies between is in neither.
    if (MayHave(shards[s].first_key, s + 1 < shards.size() ? &shards[s + 1].first_key : nullptr)) chosen.push_back(s);
  }
  return chosen;
}

std::vector<size_t> ShareChoice::Groups(const ShardIndex& index) const {
  const std::vector<GroupPlace>& groups = index.groups;
  std::vector<size_t> chosen;
  for (size_t g = 0; g < groups.size(); ++g) {
    const std::string* behind = g + 1 < groups.size() ? &groups[g + 1].first_key : nullptr;
    if (MayHave(groups[g].first_key, behind) && MayHave(groups[g].lowest_class, groups[g].highest_class)) chosen.push_back(g);
  }
  return chosen;
}

Result<SharePlan> PlanShare(ShareReader& share, const std::filesystem::path& folder, const ShareChoice& choice, int threads) {
  std::vector<GroupPart> candidates;
  for (const size_t s : choice.Shards(share.manifest())) {
    FKDB_TRY(share.OpenShard(s));
    for (const size_t g : choice.Groups(share.index(s))) candidates.push_back({s, g, {}});
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
          } else if (std::ranges::binary_search(choice.keys(), key)) {
            found.named.push_back(key);
          }
        }
        return found;
      });
  SharePlan plan;
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
  std::ranges::sort(named);
  const auto is = [&](const std::string& key) {
    const auto at = std::ranges::lower_bound(plan.images, key, {}, &SourceImage::key);
    return (at != plan.images.end() && at->key == key) || std::ranges::binary_search(named, key);
  };
  for (const std::string& key : choice.keys()) {
    if (!is(key)) return Fail(ErrorCode::kNotFound, fmt::format("{}: no image '{}' in it", folder.string(), Printable(key)));
  }
  if (plan.images.empty() && !choice.all_images()) return Fail(ErrorCode::kNotFound, fmt::format("{}: no image of the classes asked for", folder.string()));
  return plan;
}

}  // namespace fkdb
