// SPDX-License-Identifier: Apache-2.0
#include "trainer/batch_loader.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "cuda/unpack.h"
#include "image/ordered_queue.h"
#include "reader/epoch_plan.h"
#include "trainer/stopwatch.h"

namespace fkdb {
namespace {

uint64_t ImagesAStep(uint32_t crops, uint32_t batch_size) { return (batch_size + crops - 1) / crops; }

class Loader : public BatchLoader {
 public:
  Loader(const DataSet& data, const Supervision& supervision, const InputSpec& input, Normalizer normalizer,
         uint64_t pass_number, Pass pass, uint32_t batch_size, uint64_t seed, uint64_t first_step, int workers)
      : data_(data),
        supervision_(supervision),
        input_(input),
        normalizer_(std::move(normalizer)),
        pass_number_(pass_number),
        pass_(pass),
        images_a_step_(ImagesAStep(pass.crops, batch_size)),
        order_(ImageOrder(supervision.images().size(), seed, pass_number)),
        queue_(first_step, NumSteps(supervision.images().size(), pass.crops, batch_size),
               static_cast<uint64_t>(workers) + kAhead) {
    for (int w = 0; w < workers; ++w) workers_.emplace_back([this] { Work(); });
  }
  ~Loader() override { queue_.Close(); }  // the threads join as they are destroyed, before the rest

  Result<TrainBatch*> Next() override {
    if (current_) {
      const std::lock_guard lock(mutex_);
      spare_.push_back(std::move(current_));
    }
    if (failed_ || queue_.finished()) return nullptr;
    for (;;) {
      auto batch = queue_.Take(std::chrono::milliseconds(1000));
      if (!batch) continue;
      failed_ = !*batch;
      if (failed_) return Fail(std::move(*batch).error());
      current_ = std::move(**batch);
      largest_ = std::max(largest_, current_->bytes());
      return current_.get();
    }
  }

  uint64_t max_batches() const override { return workers_.size() + kAhead + 1; }
  uint64_t batch_bytes() const override { return largest_; }

 private:
  static constexpr uint64_t kAhead = 2;  // ready batches that may wait, beside one a worker

  // A worker's own.
  struct Scratch {
    CropResizer resizer;
    std::vector<uint8_t> pixels;  // of one crop
    Image image;
    StepPlan plan;
  };

  void Work() {
    Scratch scratch = {CropResizer(input_.height, input_.width, input_.interpolation),
                       std::vector<uint8_t>(size_t{data_.channels()} * input_.height * input_.width),
                       {},
                       {pass_number_, pass_, {}}};
    WorkThrough(&queue_, [&](uint64_t step) -> Result<std::unique_ptr<TrainBatch>> {
      std::unique_ptr<TrainBatch> batch = SpareBatch();
      FKDB_TRY(Load(step, &scratch, batch.get()));
      return batch;
    });
  }

  std::unique_ptr<TrainBatch> SpareBatch() {
    const std::lock_guard lock(mutex_);
    if (spare_.empty()) return std::make_unique<TrainBatch>();
    auto batch = std::move(spare_.back());
    spare_.pop_back();
    return batch;
  }

  Result<void> Load(uint64_t step, Scratch* scratch, TrainBatch* batch) const {
    StepPlan& plan = scratch->plan;
    plan.ordinals.clear();
    const uint64_t first = step * images_a_step_, end = std::min(first + images_a_step_, order_.size());
    for (uint64_t i = first; i < end; ++i) plan.ordinals.push_back(supervision_.images()[order_(i)]);

    Stopwatch watch;
    batch->step = step;
    batch->seconds = {};
    FKDB_TRY(supervision_.FillLabels(plan, &batch->labels));
    batch->seconds.load += watch.Lap();
    const LabelSpec& spec = batch->labels.spec();
    batch->arrays.indices.resize(batch->labels.size() * spec.num_indices());
    batch->arrays.values.resize(batch->labels.size() * spec.num_values());
    UnpackLabels(spec, batch->labels.indices(), batch->labels.values(), batch->labels.size(), batch->arrays.indices.data(),
                 batch->arrays.values.data());
    batch->seconds.unpack += watch.Lap();

    const size_t crop_floats = scratch->pixels.size();
    batch->inputs.resize(batch->labels.size() * crop_floats);
    for (size_t i = 0; i < plan.ordinals.size(); ++i) {
      // An image is decoded once for all its crops, and no further than they reach.
      const auto boxes = batch->labels.boxes().subspan(i * pass_.crops, pass_.crops);
      const auto region = [&](uint32_t width, uint32_t height) -> Result<PixelBox> {
        batch->seconds.load += watch.Lap();
        FKDB_TRY(supervision_.AddCrops(plan, i, width, height, &batch->labels));
        return Around(boxes);
      };
      FKDB_TRY(data_.LoadRegion(plan.ordinals[i], region, &scratch->image));
      for (size_t n = i * pass_.crops; n < (i + 1) * pass_.crops; ++n) {
        scratch->resizer.Run(scratch->image, batch->labels.boxes()[n], batch->labels.flips()[n], scratch->pixels.data());
        normalizer_.Run(scratch->pixels.data(), crop_floats / data_.channels(), batch->inputs.data() + n * crop_floats);
      }
      batch->seconds.decode += watch.Lap();
    }
    return {};
  }

  const DataSet& data_;
  const Supervision& supervision_;
  const InputSpec input_;
  const Normalizer normalizer_;
  const uint64_t pass_number_;
  const Pass pass_;
  const uint64_t images_a_step_;
  const Permutation order_;
  bool failed_ = false;
  uint64_t largest_ = 0;  // bytes of a batch
  std::unique_ptr<TrainBatch> current_;  // the caller's
  std::mutex mutex_;
  std::vector<std::unique_ptr<TrainBatch>> spare_;  // behind mutex_
  OrderedQueue<Result<std::unique_ptr<TrainBatch>>> queue_;
  std::vector<std::jthread> workers_;  // last: joined first
};

}  // namespace

uint64_t TrainBatch::bytes() const {
  return inputs.size() * sizeof(float) + labels.bytes().size() + arrays.indices.size() * sizeof(uint32_t) +
         arrays.values.size() * sizeof(float);
}

uint64_t NumSteps(uint64_t num_images, uint32_t crops, uint32_t batch_size) {
  const uint64_t images = ImagesAStep(crops, batch_size);
  return (num_images + images - 1) / images;
}

Result<std::unique_ptr<BatchLoader>> BatchLoader::Make(const DataSet& data, const Supervision& supervision,
                                                       const InputSpec& input, uint64_t pass_number, Pass pass,
                                                       uint32_t batch_size, uint64_t seed, uint64_t first_step,
                                                       int workers) {
  FKDB_ASSIGN(Normalizer normalizer, Normalizer::Make(input.mean, input.std));
  if (normalizer.channels() != data.channels()) {
    return Fail(ErrorCode::kInvalidArgument, "means and deviations: one for each channel of the images");
  }
  return std::unique_ptr<BatchLoader>(std::make_unique<Loader>(data, supervision, input, std::move(normalizer),
                                                               pass_number, pass, batch_size, seed, first_step,
                                                               workers));
}

}  // namespace fkdb
