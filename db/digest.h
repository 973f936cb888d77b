// SPDX-License-Identifier: Apache-2.0
// The logical digest: what a label set IS, whatever its file looks like. Two files with one digest
// have the same spec, class names, images and labels; transactions, blocks, threads, kills and
// resumes leave no trace in it. FORMAT.md section "Digest" writes it down byte for byte.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "db/sha256.h"
#include "format/label_spec.h"
#include "format/record.h"

namespace fkdb {

// SHA-256 of one image's key and decoded fields: independent of every other image, so that images
// can be hashed on many threads.
// The record is one that was decoded (DecodeRecord): values as readers see them.
Sha256::Hash ImageDigest(std::string_view key, const Record& record);

class LogicalDigest {
 public:
  LogicalDigest(const LabelSpec& spec, std::span<const std::string> class_names);
  void Add(const Sha256::Hash& image_digest);  // in ordinal order
  std::string Finish();                        // "sha256:.."

 private:
  Sha256 sha_;
};

// What of the images themselves a label set was made of: their sizes and the hashes of their files.
class ContentsDigest {
 public:
  void Add(const Record& record);  // in ordinal order
  std::string Finish();            // hex; empty where a file's hash is not known, or there is no image

 private:
  Sha256 sha_;
  bool known_ = false, unknown_ = false;
};

}  // namespace fkdb
