// SPDX-License-Identifier: Apache-2.0
// Turns the steps of a training into batches of network input and labels, ahead of their use, on worker
// threads. Batches come in step order and hold the same bits whatever the number of workers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "format/result.h"
#include "image/crop_inputs.h"
#include "image/data_set.h"
#include "reader/label_batch.h"
#include "trainer/batch_mix.h"
#include "trainer/decoded_regions.h"
#include "trainer/schedule.h"
#include "trainer/supervision.h"

namespace fkdb {

struct TrainBatch {
  explicit TrainBatch(const BatchMemory& memory = {}) : input_bytes(memory), regions(memory), labels(memory) {}

  uint64_t pass = 0;        // its number
  uint64_t step = 0;        // of the pass
  uint64_t all_steps = 0;   // of the training, before this one
  std::optional<BatchMix> mix;  // what LoaderConfig::mixing drew: done to teacher_inputs where a teacher labels mixed crops, and never to `inputs`
  std::span<float> inputs;  // (N, channels, height, width); none where a device crops
  BatchBuffer input_bytes;  // they lie here
  std::vector<std::vector<float>> teacher_inputs;  // of each of Supervision::teacher_inputs
  DecodedRegions regions;   // of the images, in their order, where a device crops
  LabelBatch labels;        // N crops
  LabelArrays arrays;       // of `labels`, expanded; none where a device expands them
  // Seconds of the workers that made it, by what they went into.
  struct Seconds {
    double load = 0;    // label records, image files
    double decode = 0;  // image files to the network's input
    double unpack = 0;  // labels to arrays
    double teacher = 0; // online

    Seconds& operator+=(const Seconds& other) {
      load += other.load;
      decode += other.decode;
      unpack += other.unpack;
      teacher += other.teacher;
      return *this;
    }
  } seconds;

  uint64_t bytes() const;
};

// One of several processes that train together: each pass deals the images to them in turn. The last few,
// fewer than `ranks`, are left out of it; which ones differs from pass to pass.
struct Shard {
  uint64_t rank = 0, ranks = 1;
  // This process does the work of so many, in turns of one step each: the images are dealt to ranks * parts.
  uint64_t parts = 1;

  uint64_t all() const { return ranks * parts; }
};

struct LoaderConfig {
  InputSpec input;
  uint64_t first_pass = 0;   // the number of passes[0]
  std::vector<Pass> passes;
  uint32_t batch_size = 0;   // crops a step, of each process, rounded up to whole images; a pass's last steps may be smaller
  uint64_t seed = 0;
  uint64_t first_step = 0;   // of the first pass; those before are left out
  int workers = 1;
  Shard shard = {};
  MixingConfig mixing = {};
  uint64_t steps_before = 0; // of the training, before the first pass: mixes are drawn anew in every step
  BatchMemory memory = {};   // of the batches' inputs, regions and labels
  bool crop = true;          // false: a device does it, of the batches' regions
  bool expand = true;        // false: a device does it, of the batches' compact labels
};

// One pass after another: the first batch of one is made while the last of the one before is used.
// Destroying it stops its workers.
class BatchLoader {
 public:
  // Borrows data and supervision. Errors: InvalidArgument (numbers, normalization).
  static Result<std::unique_ptr<BatchLoader>> Make(const DataSet& data, const Supervision& supervision, LoaderConfig config);
  virtual ~BatchLoader() = default;

  // The next batch, valid until the next call, or null after the last pass. Its memory is used for
  // later batches. Errors: a broken, missing or resized image, a
  // damaged record, Unsupported (operations on crops that are another system's, or on a device), ResourceExhausted; no batch comes after an error.
  virtual Result<TrainBatch*> Next() = 0;

  // Takes the batch that Next gave last out of the loader's hands: valid until it is destroyed, or given
  // back for its memory to be used again, from any thread.
  virtual std::unique_ptr<TrainBatch> Release() = 0;
  virtual void Recycle(std::unique_ptr<TrainBatch> batch) = 0;

  // How many batches there are in memory at most, those released apart, and of how many bytes the largest so far is.
  virtual uint64_t max_batches() const = 0;
  virtual uint64_t batch_bytes() const = 0;
};

// Steps of a pass, of each process.
uint64_t NumSteps(uint64_t num_images, uint32_t crops, uint32_t batch_size, const Shard& shard = {});

}  // namespace fkdb
