// SPDX-License-Identifier: Apache-2.0
// The index file of a collection: label files (shards) that together are one label set. It is the
// label set's manifest as text, with the shards named, and the order in which their images alternate.
// FORMAT.md section "Collections" writes it down.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "db/manifest.h"
#include "format/result.h"

namespace fkdb {

struct CollectionIndex {
  struct Shard {
    std::string file;  // relative to the index file's folder
    uint64_t images = 0;
    std::string digest;
  };
  // The next `images` images of the label set are the next ones of `shard`.
  struct Run {
    uint32_t shard = 0;
    uint64_t images = 0;
  };

  Manifest manifest;  // of the whole label set
  std::vector<Shard> shards;
  std::vector<Run> order;
};

// Tells an index file from a label file by its first byte: a label file begins with zeros.
constexpr char kIndexFirstByte = '{';

// JSON whose first field is a checksum of what follows.
std::string ToIndexText(const CollectionIndex& index);
// Errors: Corruption (a checksum that does not match, not an index; names the field), Unsupported.
Result<CollectionIndex> ParseIndexText(std::string_view text);
// The same without the checksum: for what may be checked otherwise (fuzzing).
Result<CollectionIndex> ParseIndexFields(std::string_view text);

}  // namespace fkdb
