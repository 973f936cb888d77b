// SPDX-License-Identifier: Apache-2.0
// A shared label set on its way into a folder, whoever brings it. What arrives is compared with its hash before it goes to its
// place, and what is there already need not come again: not after a kill, and not where a part grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "db/share/share.h"
#include "db/share/share_manifest.h"
#include "format/result.h"

namespace fkdb {

struct IncomingOptions {
  ShareSelection part;  // what of it shall come
  TrustedKeys trusted;
  bool overwrite = false;  // replace another share that is there, or another revision
};

class IncomingShare {
 public:
  // The texts of a manifest and of its signature (none: it is not signed), as they came from `where`. Locks the folder, which is made if
  // it is not there. Errors: Corruption (also one that no trusted key signed, and a revision older than the one that is there, or was before an
  // overwrite that did not end), Unsupported, AlreadyExists (another share), NotFound (a class), InvalidArgument, Locked, IoError.
  static Result<IncomingShare> Begin(const std::filesystem::path& folder, const std::string& where, std::string manifest, std::optional<std::string> signature,
                                     const IncomingOptions& options);
  ~IncomingShare();
  IncomingShare(IncomingShare&&) noexcept;
  IncomingShare& operator=(IncomingShare&&) noexcept;

  const ShareManifest& manifest() const;
  const std::vector<size_t>& shards() const;  // those that may hold something of the part

  // A stretch of a shard's file: chunks one behind the other, or, from 0 on, all of it.
  struct Stretch {
    size_t shard = 0;
    uint64_t at = 0, bytes = 0;
  };
  Stretch IndexOf(size_t shard) const;
  Stretch WholeOf(size_t shard) const;
  // Of the shard's index, before Missing: the one that is here, if it is; or as it came. Errors of TakeIndex: Corruption. For several
  // threads, with a shard each; and so is Missing.
  bool FindIndex(size_t shard);
  Result<void> TakeIndex(size_t shard, std::vector<std::byte> bytes);
  // What is not here of the part, in stretches of at most `most` bytes unless a chunk is larger. Reads what is here.
  Result<std::vector<Stretch>> Missing(size_t shard, uint64_t most) const;

  // Up to here the folder is as it was. Now what it has of another share goes, and shards get their place. Errors: ResourceExhausted, IoError.
  Result<void> Prepare();

  // Where the bytes of a stretch go, in any pieces. One thread each, several at a time; the share outlives them.
  class Receiver {
   public:
    virtual ~Receiver() = default;
    // Errors: Corruption (a chunk, or a whole file, that has another hash), ResourceExhausted (disk full), IoError.
    virtual Result<void> Take(std::span<const std::byte> bytes) = 0;
    // Up to where the stretch is in its place: from there on it may be received again.
    virtual uint64_t done() const = 0;
  };
  Result<std::unique_ptr<Receiver>> Receive(const Stretch& stretch) const;

  // Once all is there: makes it a share. Its manifest says what of it the folder has: the part, unless more was there. Errors: NotFound (an image
  // that is not in it), Corruption, ResourceExhausted, IoError.
  Result<ShareManifest> Finish(int threads);

 private:
  struct Impl;
  explicit IncomingShare(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fkdb
