// SPDX-License-Identifier: Apache-2.0
#include "db/label_set.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "db/collection.h"
#include "db/file_names.h"
#include "format/text.h"

namespace fkdb {
namespace {

// Whether `path` is an index file. What cannot be read is not: opening it as a label file says why.
bool IsIndex(const std::filesystem::path& path) {
  std::error_code ec;
  if (path.extension() == ".partial" || !std::filesystem::is_regular_file(path, ec)) return false;
  std::ifstream in(path, std::ios::binary);
  return in.get() == kIndexFirstByte;
}

Result<std::string> ReadIndex(const std::filesystem::path& path) {
  std::error_code ec;
  if (const uint64_t bytes = std::filesystem::file_size(path, ec); !ec && bytes > kMaxManifestBytes) {
    return Fail(ErrorCode::kCorruption, fmt::format("collection: an index of {} bytes, at most {}", bytes, kMaxManifestBytes));
  }
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in) return Fail(ErrorCode::kIoError, "cannot read it");
  return text;
}

Result<void> CheckShard(const CollectionIndex& index, const CollectionIndex::Shard& expected, const LabelFile& file) {
  const auto other = [&](std::string what) {
    return Fail(ErrorCode::kCorruption,
                fmt::format("{}: not the shard this collection was made of: {}; fkdb-merge --collection makes the index anew",
                            file.path().string(), what));
  };
  if (file.manifest().digest != expected.digest) {
    return other(fmt::format("{}, expected {}", Printable(file.manifest().digest), Printable(expected.digest)));
  }
  if (file.num_images() != expected.images) {
    return other(fmt::format("{} images, expected {}", file.num_images(), expected.images));
  }
  const std::string difference = RecipeDifference(WithoutImages(file.manifest()), WithoutImages(index.manifest),
                                                  {"in the shard", "in the index"});
  if (!difference.empty()) return other(difference);
  return {};
}

}  // namespace

Result<LabelSet> LabelSet::Open(const std::filesystem::path& path, const LabelFileOptions& options) {
  if (IsIndex(path)) return OpenCollection(path);
  LabelSet set;
  set.path_ = path;
  FKDB_ASSIGN(LabelFile file, LabelFile::Open(path, options));
  set.num_images_ = file.num_images();
  set.files_.push_back(std::move(file));
  return set;
}

Result<LabelSet> LabelSet::OpenCollection(const std::filesystem::path& path) {
  const auto in = [&](Error error) {
    return Fail(error.code, fmt::format("{}: {}", path.string(), error.message));
  };
  const auto text = ReadIndex(path);
  if (!text) return in(text.error());
  auto index = ParseIndexText(*text);
  if (!index) return in(std::move(index).error());

  LabelSet set;
  set.path_ = path;
  set.index_bytes_ = text->size();
  for (const CollectionIndex::Shard& shard : index->shards) {
    auto file = LabelFile::Open(path.parent_path() / shard.file);
    if (!file) return in(std::move(file).error());
    if (auto checked = CheckShard(*index, shard, *file); !checked) return in(std::move(checked).error());
    set.files_.push_back(*std::move(file));
  }
  std::vector<uint64_t> starts, taken(index->shards.size());
  for (const CollectionIndex::Run& run : index->order) {
    starts.push_back(set.num_images_);
    set.runs_.push_back({run.shard, taken[run.shard]});
    taken[run.shard] += run.images;
    set.num_images_ += run.images;
  }
  set.run_index_ = RangeIndex(std::move(starts), set.num_images_);
  set.collection_ = std::move(index->manifest);
  return set;
}

Result<std::span<const std::byte>> LabelSet::RecordBytes(uint64_t ordinal) const {
  if (ordinal >= num_images_) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no image {}: the label set has {} (counted from 0)", path_.string(),
                                                  ordinal, num_images_));
  }
  const Place place = PlaceOf(ordinal);
  return files_[place.file].RecordBytes(place.ordinal);
}

Result<uint64_t> LabelSet::Find(std::string_view key) const {
  if (!is_collection()) return files_[0].Find(key);
  uint64_t low = 0, high = num_images_;  // keys ascend over the shards
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    const auto found = Key(middle);
    if (!found) return Fail(found.error());
    const int order = (*found)->compare(key);
    if (order == 0) return middle;
    (order < 0 ? low : high) = order < 0 ? middle + 1 : middle;
  }
  return Fail(ErrorCode::kNotFound, fmt::format("{}: no image '{}' in it", path_.string(), Printable(key)));
}

Result<std::optional<std::string>> LabelSet::Key(uint64_t ordinal) const {
  const Place place = PlaceOf(ordinal);
  return files_[place.file].Key(place.ordinal);
}

Result<std::vector<std::string>> LabelSet::AllKeys() const {
  std::vector<std::vector<std::string>> of_file;
  for (const LabelFile& file : files_) {
    auto keys = file.names().AllKeys();
    if (!keys) return Fail(keys.error().code, fmt::format("{}: {}", file.path().string(), keys.error().message));
    of_file.push_back(*std::move(keys));
  }
  if (!is_collection()) return std::move(of_file[0]);
  std::vector<std::string> keys;
  keys.reserve(num_images_);
  for (uint64_t ordinal = 0; ordinal < num_images_; ++ordinal) {
    const Place place = PlaceOf(ordinal);
    keys.push_back(std::move(of_file[place.file][place.ordinal]));
    if (ordinal > 0 && keys[ordinal] <= keys[ordinal - 1]) {
      return Fail(ErrorCode::kCorruption, fmt::format("{}: collection: image '{}' comes after '{}'", path_.string(),
                                                      Printable(keys[ordinal]), Printable(keys[ordinal - 1])));
    }
  }
  return keys;
}

Result<FileUse> LabelSet::Use() const {
  FileUse sum;
  for (const LabelFile& file : files_) {
    FKDB_ASSIGN(const FileUse use, file.Use());
    sum += use;
  }
  sum.file_bytes += index_bytes_;
  sum.manifest_bytes += index_bytes_;
  return sum;
}

}  // namespace fkdb
