// SPDX-License-Identifier: Apache-2.0
// Turns the steps of a training into batches of network input and labels, ahead of their use, on worker
// threads. Batches come in step order and hold the same bits whatever the number of workers.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "format/result.h"
#include "image/data_set.h"
#include "image/normalize.h"
#include "image/resample.h"
#include "reader/label_batch.h"
#include "trainer/schedule.h"
#include "trainer/supervision.h"

namespace fkdb {

struct InputSpec {
  uint32_t height = 224;
  uint32_t width = 224;
  Interpolation interpolation = Interpolation::kBilinear;
  std::vector<double> mean;  // (channels)
  std::vector<double> std;   // (channels)
  PassOrder pass_order = PassOrder::kHorizontalFirst;
};

struct TrainBatch {
  uint64_t pass = 0;          // its number
  uint64_t step = 0;          // of the pass
  std::vector<float> inputs;  // (N, channels, height, width)
  LabelBatch labels;          // N crops
  LabelArrays arrays;         // of `labels`, expanded
  // Seconds of the workers that made it, by what they went into.
  struct Seconds {
    double load = 0;    // label records, image files
    double decode = 0;  // image files to the network's input
    double unpack = 0;  // labels to arrays

    Seconds& operator+=(const Seconds& other) {
      load += other.load;
      decode += other.decode;
      unpack += other.unpack;
      return *this;
    }
  } seconds;

  uint64_t bytes() const;
};

// One pass after another: the first batch of one is made while the last of the one before is used.
// Destroying it stops its workers.
class BatchLoader {
 public:
  // Pass passes[i] has the number first_pass + i. `batch_size` crops a step, rounded up to whole images;
  // the last step of a pass may be smaller. Steps of the first pass before `first_step` are left out.
  // Borrows data and supervision.
  static Result<std::unique_ptr<BatchLoader>> Make(const DataSet& data, const Supervision& supervision,
                                                   const InputSpec& input, uint64_t first_pass, std::vector<Pass> passes,
                                                   uint32_t batch_size, uint64_t seed, uint64_t first_step,
                                                   int workers);
  virtual ~BatchLoader() = default;

  // The next batch, valid until the next call, or null after the last pass. Its memory is used for
  // later batches. Errors: a broken, missing or resized image, a
  // damaged record, Unsupported (operations on crops), ResourceExhausted; no batch comes after an error.
  virtual Result<TrainBatch*> Next() = 0;

  // How many batches there are in memory at most, and of how many bytes the largest so far is.
  virtual uint64_t max_batches() const = 0;
  virtual uint64_t batch_bytes() const = 0;
};

// Steps of a pass.
uint64_t NumSteps(uint64_t num_images, uint32_t crops, uint32_t batch_size);

}  // namespace fkdb
