// SPDX-License-Identifier: Apache-2.0
// Writes one label file, whole or resumable, never half under its final name.
//
// Everything goes to `NAME.partial`, appended in ordinal order and committed (synced) at least every
// 64 MiB or 5 seconds of appending; Finish checks every record again, computes the logical digest,
// adds the names table, and renames to NAME. What was committed survives SIGKILL and power cuts; a
// resumed writer continues behind it. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "db/block_packer.h"
#include "db/manifest.h"
#include "format/result.h"

namespace fkdb {

struct LabelFileWriterOptions {
  // Changes behaviour.
  bool resume = false;     // continue an interrupted build of the same recipe; start if there is none
  bool shard = false;      // its recipe's images are those of all shards: those of a finished one, which it resumes, are fewer
  bool overwrite = false;  // replace a finished output, or throw away an interrupted build of it
  std::string digest;      // what the label set must come to; another one is not published. Empty: whatever it is

  // Changes performance and what a kill can cost, never the digest.
  size_t block_bytes = kDefaultBlockBytes;
  size_t commit_bytes = 64 << 20;
  double commit_seconds = 5;       // between commits of full blocks, as long as records come in
  double short_block_seconds = 60; // a block still open after this long is committed as far as it is
  int threads = 1;  // for the check at the end
  size_t initial_map_bytes = 1 << 30;  // doubles whenever it is full
};

class LabelFileWriter {
 public:
  // `recipe`: the manifest without its outcome. Errors: AlreadyExists (an output or an interrupted
  // build that neither option covers), InvalidArgument (resume with another recipe: names the first
  // field that differs), Mismatch (resume with another key list), Locked, IoError, NotFound (no
  // such folder).
  static Result<LabelFileWriter> Open(const std::filesystem::path& path, const Manifest& recipe,
                                      const LabelFileWriterOptions& options = {});
  // Leaves the `.partial` with what was committed.
  ~LabelFileWriter();
  LabelFileWriter(LabelFileWriter&&) noexcept;
  LabelFileWriter& operator=(LabelFileWriter&&) noexcept;

  // Images appended so far, those of an earlier run included: the next ordinal.
  uint64_t num_images() const;
  // Hash64 of the keys of the images that are committed, in their order: what a shard has, whose keys nobody knows.
  // Errors: Corruption.
  Result<std::vector<uint64_t>> CommittedKeyHashes();
  // The next image's record, as EncodeRecord made it. Errors: ResourceExhausted (disk full: what was
  // committed is intact), IoError.
  Result<void> Append(std::vector<std::byte> record);
  // Commits everything appended: for a clean stop.
  Result<void> Flush();
  // keys: of every image in ordinal order, matching the records; the manifest's data set becomes theirs (a shard's recipe
  // has the whole one). Publishes the file; the writer is then done. Returns the final manifest. Errors: InvalidArgument (keys and records differ),
  // Corruption (a record reads back wrong; another digest than options.digest), ResourceExhausted, AlreadyExists, IoError.
  Result<Manifest> Finish(std::span<const std::string> keys);

 private:
  struct Impl;
  explicit LabelFileWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fkdb
