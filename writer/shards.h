// SPDX-License-Identifier: Apache-2.0
// The shard files in which several processes label one data set, beside the label set OUT that they become. A process writes a
// shard of its own from its start to its end, in ascending order of images; the next one that is started writes another. So
// the shards that lie there say what is labelled, whoever was killed when.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "db/label_file_writer.h"
#include "db/manifest.h"
#include "format/result.h"
#include "writer/ordered_run.h"

namespace fkdb {

// "labels.shard-00007.fkdb" of "labels.fkdb".
std::filesystem::path ShardPath(const std::filesystem::path& out, uint32_t number);

struct ShardNames {
  std::vector<uint32_t> finished, partial;  // numbers, ascending
  uint32_t next() const;                    // the first number that is free, and all behind it
};
// Those from number `first` on: a label set of an earlier job may have shards of lower numbers. Errors: IoError.
Result<ShardNames> FindShards(const std::filesystem::path& out, uint32_t first = 0);

// Finishes what killed processes left, and says of each key whether its image is labelled. recipe: of the whole label set.
// Errors: Mismatch and InvalidArgument (a shard of other images or another recipe), Locked (somebody writes it), those of LabelSet and
// LabelFileWriter.
Result<std::vector<bool>> GatherShards(const std::filesystem::path& out, uint32_t first, const Manifest& recipe, std::span<const std::string> keys);

// Removes the shards of `out` from number `first` to before `end`, finished and not.
void RemoveShards(const std::filesystem::path& out, uint32_t first = 0, uint32_t end = std::numeric_limits<uint32_t>::max());

// A shard being written. There is no file before the first image.
class ShardWriter {
 public:
  // keys: of the whole data set. Borrows recipe and keys.
  ShardWriter(std::filesystem::path path, const Manifest& recipe, std::span<const std::string> keys, const LabelFileWriterOptions& options)
      : path_(std::move(path)), recipe_(recipe), keys_(keys), options_(options) {}

  uint64_t num_images() const { return ordinals_.size(); }
  // ordinal: above those before. Errors: LabelFileWriter's.
  Result<void> Append(uint64_t ordinal, std::vector<std::byte> record);
  Result<void> Flush() { return writer_ ? writer_->Flush() : Result<void>(); }
  Result<void> Finish();

 private:
  std::filesystem::path path_;
  const Manifest& recipe_;
  std::span<const std::string> keys_;
  LabelFileWriterOptions options_;
  std::optional<LabelFileWriter> writer_;
  std::vector<uint64_t> ordinals_;  // of its images, in the data set
};

}  // namespace fkdb
