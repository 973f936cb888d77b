// SPDX-License-Identifier: Apache-2.0
// One label set, opened to be read: a label file, or the shards that the index file of a collection
// names. Images are numbered in key order over all of them.
//
// What label_file.h says of one file holds for all: checked at open and at each read, immutable,
// thread-safe, usable in forked children.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "db/label_file.h"
#include "db/manifest.h"
#include "db/range_index.h"
#include "format/result.h"

namespace fkdb {

class LabelSet {
 public:
  // Errors: those of LabelFile::Open; of an index file also Corruption (damaged; a shard is not the
  // one it was made of) and NotFound (no such shard). Messages begin with the path of the file at fault.
  static Result<LabelSet> Open(const std::filesystem::path& path, const LabelFileOptions& options = {});

  const std::filesystem::path& path() const { return path_; }  // the label file, or the index file
  const Manifest& manifest() const { return collection_ ? *collection_ : files_[0].manifest(); }
  bool partial() const { return files_[0].partial(); }
  uint64_t num_images() const { return num_images_; }
  // The label file, or the shards.
  std::span<const LabelFile> files() const { return files_; }
  bool is_collection() const { return collection_.has_value(); }

  // Where image `ordinal` < num_images() lies.
  struct Place {
    uint32_t file;     // of files()
    uint64_t ordinal;  // in that file
  };
  Place PlaceOf(uint64_t ordinal) const {
    if (runs_.empty()) return {0, ordinal};
    const size_t run = run_index_.Find(ordinal);
    return {runs_[run].file, runs_[run].first + (ordinal - run_index_.start(run))};
  }

  // The same in the steps of LabelFile::Slot.
  struct Slot {
    const LabelFile* file;
    LabelFile::Slot in_file;
  };
  Slot SlotOf(uint64_t ordinal) const {
    const Place place = PlaceOf(ordinal);
    return {&files_[place.file], files_[place.file].SlotOf(place.ordinal)};
  }

  // As of a label file.
  Result<std::span<const std::byte>> RecordBytes(uint64_t ordinal) const;
  Result<uint64_t> Find(std::string_view key) const;
  Result<std::optional<std::string>> Key(uint64_t ordinal) const;
  // Every key in order, empty for a `.partial`. Errors: Corruption (also where keys are not strictly
  // ascending).
  Result<std::vector<std::string>> AllKeys() const;
  // Of all files together.
  Result<FileUse> Use() const;

 private:
  // Consecutive images that lie in one file one after the other.
  struct Run {
    uint32_t file;
    uint64_t first;  // ordinal in that file
  };

  LabelSet() = default;
  static Result<LabelSet> OpenCollection(const std::filesystem::path& path);

  std::filesystem::path path_;
  std::vector<LabelFile> files_;
  uint64_t num_images_ = 0;

  // Of a collection.
  std::optional<Manifest> collection_;
  uint64_t index_bytes_ = 0;
  std::vector<Run> runs_;
  RangeIndex run_index_;  // ordinal -> run
};

}  // namespace fkdb
