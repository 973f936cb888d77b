// SPDX-License-Identifier: Apache-2.0
// Writes a label set as the folder of label files that FKD's original training code reads.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "db/label_set.h"
#include "format/result.h"

namespace fkdb {

struct ExportOptions {
  // The folder that the images will lie in when they are trained on: a label file is named by the last three parts
  // of its image's path (OUT/train/n01440764/x.tar). Empty: the data set's name.
  std::filesystem::path images;
  bool resume = false;     // leave files that are there, which must hold these labels
  bool overwrite = false;  // replace them
  bool dry_run = false;    // everything but writing

  int threads = 1;
  std::function<void(uint64_t done, uint64_t all)> progress;
  const std::atomic<bool>* stop = nullptr;
};

struct ExportSummary {
  uint64_t images = 0, crops = 0;  // written by this run
  uint64_t skipped = 0;            // without labels in the label set: they get no file
  uint64_t kept = 0;               // files that were there
  uint64_t bytes = 0;
  bool interrupted = false;
  double seconds = 0;
};

// Errors: Unsupported (logits, further augmentation), Mismatch (names that the original code could not find or
// tell apart: says which), AlreadyExists (a file that is there, unless resume or overwrite; Mismatch: one of other labels), Corruption, IoError.
// A file is whole or not there, whatever interrupts.
Result<ExportSummary> ExportFkd(const LabelSet& set, const std::filesystem::path& out, const ExportOptions& options);

}  // namespace fkdb
