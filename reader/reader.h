// SPDX-License-Identifier: Apache-2.0
// Serves the label records of one label set, a file or a collection, without copying them.
// Thread-safe. A RecordView borrows the map and is valid as long as the Reader. Usable in forked
// children; after spawning or pickling, open anew.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "db/label_set.h"
#include "format/record.h"
#include "format/result.h"

namespace fkdb {

class Reader {
 public:
  // Checks size, structure, version, manifest and names before any label is served.
  // Errors: NotFound, Unsupported (newer format), Corruption, Incomplete (a `.partial`, unless
  // options.allow_partial).
  static Result<Reader> Open(const std::filesystem::path& path, const LabelFileOptions& options = {});

  const LabelSet& label_set() const { return labels_; }
  const Manifest& manifest() const { return labels_.manifest(); }
  const LabelSpec& spec() const { return labels_.manifest().spec; }
  uint64_t num_images() const { return labels_.num_images(); }

  // The image's record, its checksum and structure verified; call ValidateCrop on it before using a
  // crop (FillBatch does). Errors: NotFound, Corruption: name the file and the image.
  Result<RecordView> Get(uint64_t ordinal) const;
  // The same, where `slot` is label_set().SlotOf(ordinal).
  Result<RecordView> Get(uint64_t ordinal, const LabelSet::Slot& slot) const;
  // Errors: NotFound, Corruption.
  Result<uint64_t> Find(std::string_view key) const { return labels_.Find(key); }
  Result<std::optional<std::string>> Key(uint64_t ordinal) const { return labels_.Key(ordinal); }

  // `error` with the file and the image in front, for messages about a record.
  Error About(uint64_t ordinal, Error error) const;

 private:
  Result<RecordView> View(uint64_t ordinal, std::span<const std::byte> record) const;
  explicit Reader(LabelSet labels) : labels_(std::move(labels)) {}
  LabelSet labels_;
};

}  // namespace fkdb
