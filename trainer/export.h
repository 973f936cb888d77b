// SPDX-License-Identifier: Apache-2.0
// The weights of a training, finished or not, as a file of their own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "format/result.h"

namespace fkdb {

struct ExportOptions {
  bool checkpoint = false;  // those of the last checkpoint even where the training is finished
  bool overwrite = false;
};

struct Exported {
  std::string model;       // as the training named it
  uint64_t tensors = 0;
  uint64_t numbers = 0;    // in all tensors together, buffers too
  bool finished = false;   // false: from a checkpoint
  uint64_t steps = 0;      // that the checkpoint has seen
};

// From `run`, the folder of a training, to the safetensors file `out`, under the names torchvision,
// timm or the scripted module gave them. An unfinished training has a checkpoint only: that is taken.
// Errors: NotFound (no such training), AlreadyExists, Corruption, and those of writing.
Result<Exported> ExportWeights(const std::filesystem::path& run, const std::filesystem::path& out, const ExportOptions& options = {});

}  // namespace fkdb
