// SPDX-License-Identifier: Apache-2.0
#include "writer/shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>
#include <utility>

#include "db/file_names.h"
#include "db/label_set.h"
#include "format/hash.h"
#include "format/text.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMark = ".shard-";

fs::path FolderOf(const fs::path& out) { return out.has_parent_path() ? out.parent_path() : fs::path("."); }

}  // namespace

fs::path ShardPath(const fs::path& out, uint32_t number) {
  return FolderOf(out) / fmt::format("{}{}{:05}{}", out.stem().string(), kMark, number, out.extension().string());
}

uint32_t ShardNames::next() const {
  return std::max(finished.empty() ? 0 : finished.back() + 1, partial.empty() ? 0 : partial.back() + 1);
}

Result<ShardNames> FindShards(const fs::path& out, uint32_t first) {
  ShardNames names;
  const std::string start = out.stem().string() + kMark;
  std::error_code ec;
  for (auto entry = fs::directory_iterator(FolderOf(out), ec); !ec && entry != fs::directory_iterator(); entry.increment(ec)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(start)) continue;
    uint32_t number = 0;
    if (std::from_chars(name.data() + start.size(), name.data() + name.size(), number).ec != std::errc()) continue;
    if (number < first) continue;
    const fs::path shard = ShardPath(out, number);
    if (name == shard.filename()) names.finished.push_back(number);
    if (name == PartialPath(shard).filename()) names.partial.push_back(number);
  }
  if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot list it: {}", FolderOf(out).string(), ec.message()));
  std::ranges::sort(names.finished);
  std::ranges::sort(names.partial);
  return names;
}

Result<std::vector<bool>> GatherShards(const fs::path& out, uint32_t first, const Manifest& recipe, std::span<const std::string> keys) {
  FKDB_ASSIGN(const ShardNames names, FindShards(out, first));
  std::unordered_map<uint64_t, uint64_t> ordinals;
  for (uint64_t i = 0; i < keys.size() && !names.partial.empty(); ++i) ordinals.emplace(Hash64(keys[i]), i);

  std::vector<bool> done(keys.size());
  const auto mark = [&](const fs::path& shard, std::span<const std::string> labelled) -> Result<void> {
    for (const std::string& key : labelled) {
      const auto at = std::ranges::lower_bound(keys, key);
      const bool known = at != keys.end() && *at == key;
      if (known && !done[static_cast<size_t>(at - keys.begin())]) {
        done[static_cast<size_t>(at - keys.begin())] = true;
        continue;
      }
      return Fail(ErrorCode::kMismatch, fmt::format("{}: image '{}' is {}; --overwrite starts anew", shard.string(), Printable(key),
                                                    known ? "in another shard, too" : "not in the data set"));
    }
    return {};
  };
  for (const uint32_t number : names.finished) {
    const fs::path shard = ShardPath(out, number);
    FKDB_ASSIGN(const LabelSet set, LabelSet::Open(shard));
    if (const std::string what = RecipeDifference(WithoutImages(set.manifest()), WithoutImages(recipe)); !what.empty()) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: cannot resume with another recipe: {}", shard.string(), what));
    }
    FKDB_ASSIGN(const std::vector<std::string> labelled, set.AllKeys());
    FKDB_TRY(mark(shard, labelled));
  }
  for (const uint32_t number : names.partial) {
    const fs::path shard = ShardPath(out, number);
    LabelFileWriterOptions resume;
    resume.resume = resume.shard = true;
    FKDB_ASSIGN(LabelFileWriter writer, LabelFileWriter::Open(shard, recipe, resume));  // checks the recipe
    FKDB_ASSIGN(const std::vector<uint64_t> hashes, writer.CommittedKeyHashes());
    std::vector<std::string> labelled;
    for (const uint64_t hash : hashes) {
      const auto ordinal = ordinals.find(hash);
      if (ordinal == ordinals.end()) return Fail(ErrorCode::kMismatch, fmt::format("{}: it has an image that is not in the data set; --overwrite starts anew", shard.string()));
      labelled.push_back(keys[ordinal->second]);
    }
    FKDB_TRY(mark(shard, labelled));
    if (!labelled.empty()) {
      FKDB_TRY(writer.Finish(labelled));
      continue;
    }
    std::error_code ec;
    fs::remove(PartialPath(shard), ec);
  }
  return done;
}

void RemoveShards(const fs::path& out, uint32_t first, uint32_t end) {
  const auto names = FindShards(out, first);
  if (!names) return;
  std::error_code ec;
  for (const uint32_t number : names->finished) {
    if (number < end) fs::remove(ShardPath(out, number), ec);
  }
  for (const uint32_t number : names->partial) {
    if (number < end) fs::remove(PartialPath(ShardPath(out, number)), ec);
  }
}

Result<void> ShardWriter::Append(uint64_t ordinal, std::vector<std::byte> record) {
  if (!writer_) {
    FKDB_ASSIGN(writer_, LabelFileWriter::Open(path_, recipe_, options_));
  }
  FKDB_TRY(writer_->Append(std::move(record)));
  ordinals_.push_back(ordinal);
  return {};
}

Result<void> ShardWriter::Finish() {
  if (!writer_) return {};
  std::vector<std::string> keys;
  for (const uint64_t ordinal : ordinals_) keys.push_back(keys_[ordinal]);
  FKDB_TRY(writer_->Finish(keys));
  writer_.reset();
  return {};
}

}  // namespace fkdb
