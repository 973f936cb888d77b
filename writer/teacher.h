// SPDX-License-Identifier: Apache-2.0
// What the label writer asks of a teacher: outputs for a batch of inputs. Torch, CUDA and model files
// are the implementation's business (trainer/torch_teacher.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "format/result.h"
#include "image/crop_inputs.h"

namespace fkdb {

// What a teacher says of a crop, or of each cell of a map.
enum class OutputKind {
  kLogits,         // z; the label set's temperature is applied
  kProbabilities,  // p, a distribution: no negative number, sum 1 within 1e-3
};

// The cells of a label map, over the whole input.
struct Grid {
  uint32_t height = 1, width = 1;
  uint32_t cells() const { return height * width; }
  bool operator==(const Grid&) const = default;
};

class Teacher {
 public:
  virtual ~Teacher() = default;

  virtual const std::string& name() const = 0;            // for the manifest and for messages
  virtual const std::filesystem::path& file() const = 0;  // its weights: their hash tells teachers apart
  virtual const InputSpec& input() const = 0;             // how a crop becomes its input
  virtual uint32_t num_outputs() const = 0;               // C, or the width of a self-supervised head
  virtual OutputKind output_kind() const = 0;
  // A fully convolutional teacher's: it says num_outputs of each cell. None: of the input as a whole.
  virtual std::optional<Grid> grid() const { return std::nullopt; }
  virtual std::string autocast() const { return ""; }  // "bf16" or "fp16": what it computes in where that will do; empty: its own type

  // Outputs for `n` inputs: input (n, channels, height, width) float32 normalized, output
  // (n, num_outputs), or (n, grid height, grid width, num_outputs). May be called from several threads at once; each call computes on its
  // caller's thread, so that the result does not depend on how many there are. The bits of a row
  // may depend on n and on the other rows: callers that want them again repeat the whole batch.
  // Errors: whatever the teacher's runtime reports.
  virtual Result<void> Forward(const float* input, int64_t n, float* output) const = 0;
};

// Batches are padded with zeros to a multiple of this: below it, a row's bits depend on its place
// in the batch.
constexpr int64_t kBatchMultiple = 16;

}  // namespace fkdb
