// SPDX-License-Identifier: Apache-2.0
// Label sets in the form in which they travel: a folder of shards and a manifest, as small as the labels allow, which
// lies on any static host, tells by itself whether it is whole, and gives back the very label set that was packed, or
// a part of it. SHARE_FORMAT.md is the contract.
//
// Foreign bytes never reach LMDB: unpacking decodes every record, checks what it means and writes a new file.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "db/manifest.h"
#include "db/rewrite.h"
#include "db/share/share_manifest.h"
#include "format/result.h"

namespace fkdb {

// Public keys (signature.h): one of them must have signed the manifest. None: whoever made it, signed or not.
using TrustedKeys = std::vector<std::filesystem::path>;

struct ShareWork {
  int threads = 1;
  // Called now and then, from the calling thread: done, in all; images, or bytes where a file is hashed.
  std::function<void(uint64_t, uint64_t)> progress;
  // When it turns true, Incomplete is returned.
  const std::atomic<bool>* stop = nullptr;
};

struct PackOptions : ShareWork {
  // Changes behaviour. Texts: what the manifest says; none: what the label set's own says.
  std::optional<std::string> name, licence, authors, accuracy, notes;
  uint64_t revision = 0;              // 0: 1, or one more than that of the share that is replaced
  uint64_t shard_bytes = 256u << 20;  // at most, of more than one group
  bool overwrite = false;             // replace a share that is there
  std::filesystem::path sign;         // with this private key (signature.h); empty: not signed
  bool store_boxes = false;           // also those that could be drawn again; for tests
};

struct PackReport {
  ShareManifest manifest;
  uint64_t drawn_images = 0;  // whose boxes are not stored
};

// Packs a label file or a collection into `folder`, which is made if it is not there. The manifest comes last: without
// it there is no share, and what an interrupted pack left is written anew. Errors: AlreadyExists, Locked, Incomplete (a
// `.partial`), those of LabelSet, ResourceExhausted, IoError.
Result<PackReport> PackLabelSet(const std::filesystem::path& input, const std::filesystem::path& folder, const PackOptions& options);

// The manifest of these bytes, once a trusted key has signed them; `signature`: what is in its file, none if there is no file. where: for
// messages. Errors: Corruption, Unsupported, those of IsSignatureOf.
Result<ShareManifest> CheckShareText(const std::string& where, std::string_view text, const std::optional<std::string>& signature, const TrustedKeys& trusted);

// Errors: NotFound (no share there), Corruption (also one that no trusted key signed), Unsupported, those of IsSignatureOf.
Result<ShareManifest> ReadShareManifest(const std::filesystem::path& folder, const TrustedKeys& trusted = {});

// Signs the manifest as it is now, in place of a signature it had: what people say in it can be edited before. Errors: those of
// ReadShareManifest, SignText, Locked, IoError.
Result<ShareManifest> SignShare(const std::filesystem::path& folder, const std::filesystem::path& private_key);

struct VerifyShareOptions : ShareWork {
  bool deep = false;  // also decode every chunk, check every record, and compare what the labels come to
  TrustedKeys trusted;
};

// Compares sizes and hashes of manifest, indexes and shards, of a part those of its chunks. Errors: Corruption (the first claim that is not true), NotFound
// (a shard), Unsupported, Incomplete.
Result<ShareManifest> VerifyShare(const std::filesystem::path& folder, const VerifyShareOptions& options = {});

struct UnpackOptions : RewriteOptions, ShareSelection {
  TrustedKeys trusted;
  int threads = 1;
};

// Writes the label set that was packed, or the part of it that SubsetLabelSet would give; reads the shards, groups and layers
// that this needs. Of a folder that has a part, what is not selected is that part. Errors: Corruption (nothing is published then), NotFound
// (an image or class that is not in it), Incomplete (a part that has less), InvalidArgument (an image named twice), those of LabelFileWriter.
Result<Manifest> UnpackShare(const std::filesystem::path& folder, const std::filesystem::path& out, const UnpackOptions& options = {});

}  // namespace fkdb
