// SPDX-License-Identifier: Apache-2.0
#include "trainer/batch_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <limits>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "cuda/unpack.h"
#include "format/compact.h"
#include "format/crop_op.h"
#include "format/text.h"
#include "image/ordered_queue.h"
#include "image/partner_images.h"
#include "reader/epoch_plan.h"
#include "trainer/stopwatch.h"

namespace fkdb {
namespace {

constexpr uint64_t kMixingSeed = 0x6d69'7869'6e67'0000;  // apart from the draws of crops and orders

uint64_t ImagesAStep(uint32_t crops, uint32_t batch_size) { return (uint64_t{batch_size} + crops - 1) / crops; }

// Workers share the steps under way: each takes one image at a time, of the earliest step that has one
// left. So there are few batches in memory however many workers there are, and the next one is ready as
// soon as it can be.
class Loader : public BatchLoader {
 public:
  Loader(const DataSet& data, const Supervision& supervision, CropInputs inputs, std::vector<CropInputs> teacher_inputs, LoaderConfig config)
      : data_(data),
        partners_(data),
        supervision_(supervision),
        inputs_(std::move(inputs)),
        teacher_inputs_(std::move(teacher_inputs)),
        config_(std::move(config)),
        ahead_(2 + static_cast<uint64_t>(config_.workers) / FewestImagesAStep()),
        next_step_(config_.first_step),
        steps_before_(config_.steps_before) {
    SkipDonePasses();
  }
  Result<void> Start() { return StartThreads(config_.workers, [this] { Work(); }, &workers_); }
  ~Loader() override {  // the threads join as they are destroyed, before the rest
    const std::lock_guard lock(mutex_);
    closed_ = true;
    work_.notify_all();
  }

  Result<TrainBatch*> Next() override {
    std::unique_lock lock(mutex_);
    if (current_) spare_.push_back(std::move(current_));
    work_.notify_all();
    if (failed_) return nullptr;
    ready_.wait(lock, [&] {
      return !broken_ || (steps_.empty() ? next_pass_ == config_.passes.size() : steps_.front()->ready());
    });
    failed_ = !broken_;
    if (failed_) return Fail(broken_.error());
    if (steps_.empty()) return nullptr;
    const std::unique_ptr<Step> step = std::move(steps_.front());
    steps_.pop_front();
    work_.notify_all();
    failed_ = !step->outcome;
    if (failed_) return Fail(step->outcome.error());
    current_ = std::move(step->batch);
    largest_ = std::max(largest_, current_->bytes());
    return current_.get();
  }

  std::unique_ptr<TrainBatch> Release() override { return std::move(current_); }

  void Recycle(std::unique_ptr<TrainBatch> batch) override {
    const std::lock_guard lock(mutex_);
    if (spare_.size() <= ahead_) spare_.push_back(std::move(batch));  // as many as ever were under way
  }

  uint64_t max_batches() const override { return ahead_ + 1; }
  uint64_t batch_bytes() const override { return largest_; }

 private:
  // Under way, or ready and not yet taken. Its plan and batch belong to those who work on it; the rest is
  // behind mutex_.
  struct Step {
    StepPlan plan;
    std::unique_ptr<TrainBatch> batch;
    bool labelled = false;        // the batch has its labels: images may be taken
    size_t taken = 0, done = 0;   // images
    bool to_judge = false, judged = false;  // by the online teacher, if there is one, when all images are done
    Result<void> outcome;         // of the first image that failed, in the step's order, whoever was faster
    size_t failed_image = std::numeric_limits<size_t>::max();

    bool decoded() const { return labelled && done == plan.ordinals.size(); }
    bool ready() const { return decoded() && judged; }
  };
  static constexpr size_t kLabels = std::numeric_limits<size_t>::max(), kTeacher = kLabels - 1;
  struct Task {
    Step* step;
    size_t image;  // or kLabels, kTeacher
  };

  uint64_t FewestImagesAStep() const {
    uint64_t fewest = config_.batch_size;
    for (const Pass& pass : config_.passes) fewest = std::min(fewest, ImagesAStep(pass.crops, config_.batch_size));
    return fewest;
  }

  void SkipDonePasses() {
    while (next_pass_ < config_.passes.size()) {
      const uint64_t steps = NumSteps(supervision_.images().size(), config_.passes[next_pass_].crops, config_.batch_size, config_.shard);
      if (next_step_ < steps) return;
      ++next_pass_;
      next_step_ = 0;
      steps_before_ += steps / config_.shard.parts;
    }
  }

  // A worker's own.
  struct Scratch {
    CropInputs inputs;
    std::vector<CropInputs> teacher_inputs;
    Image image;
  };

  void Work() {
    Result<void> outcome = Guarded([&]() -> Result<void> { return WorkOnTasks(), Result<void>(); });
    if (outcome) return;
    const std::lock_guard lock(mutex_);
    broken_ = std::move(outcome);
    ready_.notify_one();
  }

  void WorkOnTasks() {
    Scratch scratch = {inputs_, teacher_inputs_, {}};
    std::unique_lock lock(mutex_);
    for (;;) {
      std::optional<Task> task;
      work_.wait(lock, [&] { return closed_ || (task = TakeTask()); });
      if (closed_) return;
      lock.unlock();
      TrainBatch::Seconds seconds;
      Result<void> outcome = Guarded([&]() -> Result<void> {
        if (task->image == kLabels) return LoadLabels(task->step, &seconds);
        if (task->image == kTeacher) return AskTeacher(task->step, &seconds);
        return LoadImage(task->step, task->image, &scratch, &seconds);
      });
      lock.lock();
      Finish(*task, std::move(outcome), seconds);
    }
  }

  std::optional<Task> TakeTask() {
    for (const auto& step : steps_) {
      if (step->to_judge) {
        step->to_judge = false;
        return Task{step.get(), kTeacher};
      }
      if (step->labelled && step->taken < step->plan.ordinals.size()) return Task{step.get(), step->taken++};
    }
    if (steps_.size() == ahead_ || next_pass_ == config_.passes.size()) return std::nullopt;
    auto step = std::make_unique<Step>();
    if (spare_.empty()) {
      step->batch = std::make_unique<TrainBatch>(config_.memory);
    } else {
      step->batch = std::move(spare_.back());
      spare_.pop_back();
    }
    step->plan = {config_.first_pass + next_pass_, config_.passes[next_pass_], {}};
    step->batch->pass = step->plan.pass_number;
    step->batch->all_steps = steps_before_ + next_step_ / config_.shard.parts;
    step->batch->step = next_step_++;
    step->batch->seconds = {};
    SkipDonePasses();
    steps_.push_back(std::move(step));
    return Task{steps_.back().get(), kLabels};
  }

  void Finish(const Task& task, Result<void> outcome, const TrainBatch::Seconds& seconds) {
    Step& step = *task.step;
    step.batch->seconds += seconds;
    if (task.image == kLabels) {
      step.labelled = true;
      if (!outcome) step.taken = step.done = step.plan.ordinals.size();  // there is nothing to be done
      work_.notify_all();
    } else if (task.image == kTeacher) {
      step.judged = true;
    } else {
      ++step.done;
    }
    if (!outcome && task.image <= step.failed_image) {
      step.failed_image = task.image;
      step.outcome = std::move(outcome);
    }
    if (step.decoded() && !step.judged) {
      const bool ask = !teacher_inputs_.empty() && step.outcome;
      step.judged = !ask;
      step.to_judge = ask;
      if (ask) work_.notify_one();
    }
    if (step.ready()) ready_.notify_one();
  }

  Result<void> LoadLabels(Step* step, TrainBatch::Seconds* seconds) const {
    Stopwatch watch;
    TrainBatch& batch = *step->batch;
    const Permutation order = ImageOrder(supervision_.images().size(), config_.seed, step->plan.pass_number);
    const Shard& shard = config_.shard;
    const uint64_t images = ImagesAStep(step->plan.pass.crops, config_.batch_size), first = batch.step / shard.parts * images;
    const uint64_t of_each = order.size() / shard.all(), part = shard.rank * shard.parts + batch.step % shard.parts;
    for (uint64_t i = first; i < std::min(first + images, of_each); ++i) {
      step->plan.ordinals.push_back(supervision_.images()[order(i * shard.all() + part)]);
    }
    FKDB_TRY(supervision_.FillLabels(step->plan, &batch.labels));
    if (batch.labels.has_ops()) FKDB_TRY(supervision_.CheckInput(config_.input));
    if (batch.labels.has_ops() && !config_.crop) return Fail(ErrorCode::kUnsupported, "crops with operations are made on the CPU: --crop-on cpu");
    seconds->load += watch.Lap();
    const size_t crops = batch.labels.size();
    batch.mix = DrawBatchMix(config_.mixing, crops, config_.input.height, config_.input.width, CounterRandom(config_.seed ^ kMixingSeed, batch.all_steps, part));
    if (config_.expand) MakeArrays(&batch);
    if (config_.expand && teacher_inputs_.empty() && !supervision_.labels_with_crops()) Expand(&batch, 0, crops);
    batch.teacher_inputs.resize(teacher_inputs_.size());
    for (size_t i = 0; i < teacher_inputs_.size(); ++i) batch.teacher_inputs[i].assign(PaddedRows(crops) * teacher_inputs_[i].samples(), 0);
    if (config_.crop) {
      batch.input_bytes.Resize(crops * inputs_.samples() * sizeof(float));
      batch.inputs = {reinterpret_cast<float*>(batch.input_bytes.data()), crops * inputs_.samples()};
    } else {
      batch.regions.Clear(step->plan.ordinals.size());
    }
    seconds->unpack += watch.Lap();
    return {};
  }

  static void MakeArrays(TrainBatch* batch) {
    const LabelSpec& spec = batch->labels.spec();
    batch->arrays.indices.resize(batch->labels.size() * spec.num_indices());
    batch->arrays.values.resize(batch->labels.size() * spec.num_values());
  }
  static void Expand(TrainBatch* batch, size_t first, size_t crops) {
    const LabelSpec& spec = batch->labels.spec();
    UnpackLabels(spec, batch->labels.indices() + first * CompactIndexBytes(spec), batch->labels.values() + first * CompactValueBytes(spec), crops,
                 batch->arrays.indices.data() + first * spec.num_indices(), batch->arrays.values.data() + first * spec.num_values());
  }

  Result<void> AskTeacher(Step* step, TrainBatch::Seconds* seconds) const {
    Stopwatch watch;
    TrainBatch& batch = *step->batch;
    const BatchMix* const mix = batch.mix && supervision_.labels_mixed_crops() ? &*batch.mix : nullptr;
    std::vector<const float*> inputs;
    for (size_t i = 0; i < teacher_inputs_.size(); ++i) {
      const CropInputs& of = teacher_inputs_[i];
      if (mix != nullptr) MixInputs(*mix, of.channels(), of.height(), of.width(), batch.teacher_inputs[i]);
      inputs.push_back(batch.teacher_inputs[i].data());
    }
    FKDB_TRY(supervision_.AskTeacher(inputs, step->plan, mix, &batch.labels));
    seconds->teacher += watch.Lap();
    if (config_.expand) Expand(&batch, 0, batch.labels.size());
    seconds->unpack += watch.Lap();
    return {};
  }

  // An image is decoded once for all its crops, and no further than they reach.
  Result<void> LoadImage(Step* step, size_t image, Scratch* scratch, TrainBatch::Seconds* seconds) const {
    Stopwatch watch;
    TrainBatch& batch = *step->batch;
    const size_t crops = step->plan.pass.crops, first = image * crops;
    const auto boxes = batch.labels.boxes().subspan(first, crops);
    PixelBox around;
    const auto region = [&](uint32_t width, uint32_t height) -> Result<PixelBox> {
      seconds->load += watch.Lap();
      FKDB_TRY(supervision_.AddCrops(step->plan, image, width, height, &batch.labels));
      if (supervision_.labels_with_crops()) {
        if (config_.expand && teacher_inputs_.empty()) Expand(&batch, first, crops);
        seconds->unpack += watch.Lap();
      }
      return around = Around(boxes);
    };
    FKDB_TRY(data_.LoadRegion(step->plan.ordinals[image], region, &scratch->image));
    if (config_.crop) {
      if (const auto made = MakeCrops(batch, first, crops, scratch); !made) {
        return Fail(made.error().code, fmt::format("image '{}': {}", Printable(data_.keys()[step->plan.ordinals[image]]), made.error().message));
      }
    } else {
      batch.regions.Add(image, scratch->image, around);
    }
    seconds->decode += watch.Lap();
    return {};
  }

  // Of an image that is in the scratch memory, as the student sees them and as teachers do.
  Result<void> MakeCrops(TrainBatch& batch, size_t first, size_t crops, Scratch* scratch) const {
    FKDB_TRY(MakeCrops(batch.labels, first, crops, scratch->image, &scratch->inputs, batch.inputs.data()));
    for (size_t i = 0; i < batch.teacher_inputs.size(); ++i) {
      FKDB_TRY(MakeCrops(batch.labels, first, crops, scratch->image, &scratch->teacher_inputs[i], batch.teacher_inputs[i].data()));
    }
    return {};
  }

  Result<void> MakeCrops(const LabelBatch& labels, size_t first, size_t crops, const Image& image, CropInputs* inputs, float* batch) const {
    float* const out = batch + first * inputs->samples();
    const auto boxes = labels.boxes().subspan(first, crops);
    const auto flips = labels.flips().subspan(first, crops);
    if (!labels.has_ops()) {
      inputs->Run(image, boxes, flips, out);
      return {};
    }
    for (size_t i = 0; i < crops; ++i) {
      FKDB_ASSIGN(const std::vector<CropOp> ops, ParseOpWords(labels.ops(first + i)));
      FKDB_TRY(inputs->Run(image, boxes[i], flips[i], ops, partners_, out + i * inputs->samples()));
    }
    return {};
  }

  const DataSet& data_;
  const PartnerImages partners_;
  const Supervision& supervision_;
  const CropInputs inputs_;  // each worker has a copy, of the next too
  const std::vector<CropInputs> teacher_inputs_;
  const LoaderConfig config_;
  const uint64_t ahead_;  // steps under way or ready

  bool failed_ = false;                  // the caller's, like the next two
  uint64_t largest_ = 0;                 // bytes of a batch
  std::unique_ptr<TrainBatch> current_;

  std::mutex mutex_;
  std::condition_variable work_, ready_;
  size_t next_pass_ = 0;  // of config_.passes
  uint64_t next_step_;    // of that pass
  uint64_t steps_before_; // of the training, before that pass
  std::deque<std::unique_ptr<Step>> steps_;  // in their order
  std::vector<std::unique_ptr<TrainBatch>> spare_;
  bool closed_ = false;
  Result<void> broken_;  // a worker that could not go on
  std::vector<std::jthread> workers_;  // last: joined first
};

}  // namespace

uint64_t TrainBatch::bytes() const {
  size_t of_teachers = 0;
  for (const auto& input : teacher_inputs) of_teachers += input.size() * sizeof(float);
  return inputs.size() * sizeof(float) + of_teachers + regions.bytes() + labels.bytes().size() + arrays.indices.size() * sizeof(uint32_t) +
         arrays.values.size() * sizeof(float);
}

uint64_t NumSteps(uint64_t num_images, uint32_t crops, uint32_t batch_size, const Shard& shard) {
  const uint64_t images = ImagesAStep(crops, batch_size);
  return (num_images / shard.all() + images - 1) / images * shard.parts;
}

Result<std::unique_ptr<BatchLoader>> BatchLoader::Make(const DataSet& data, const Supervision& supervision, LoaderConfig config) {
  FKDB_ASSIGN(CropInputs inputs, CropInputs::Make(config.input));
  if (inputs.channels() != data.channels()) {
    return Fail(ErrorCode::kInvalidArgument, "means and deviations: one for each channel of the images");
  }
  if (config.workers < 1) return Fail(ErrorCode::kInvalidArgument, fmt::format("{} workers: expected 1 or more", config.workers));
  const Shard& shard = config.shard;
  if (shard.rank >= shard.ranks) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("rank {} of {}: expected one of 0 to {}", shard.rank, shard.ranks, shard.ranks - 1));
  }
  if (config.batch_size == 0) return Fail(ErrorCode::kInvalidArgument, "batches of 0 crops: expected 1 or more");
  if (shard.parts == 0) return Fail(ErrorCode::kInvalidArgument, "steps in 0 parts: expected 1 or more");
  if (supervision.images().size() < shard.all()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{} images for {} {}", supervision.images().size(), shard.all(),
                                                         shard.parts == 1 ? "processes" : "parts of all processes"));
  }
  std::vector<CropInputs> teacher_inputs;
  for (const InputSpec& spec : supervision.teacher_inputs()) {
    FKDB_ASSIGN(CropInputs make, CropInputs::Make(spec));
    if (make.channels() != data.channels()) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("a teacher of {} channels for images of {}", make.channels(), data.channels()));
    }
    if (supervision.labels_mixed_crops() && config.mixing.cuts() && (spec.height != config.input.height || spec.width != config.input.width)) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("CutMix's boxes are of the student's {} x {} pixels: a teacher that sees {} x {} cannot be asked of mixed crops; mixup alone, or an --input-size of the teacher's, is possible",
                                                           config.input.height, config.input.width, spec.height, spec.width));
    }
    teacher_inputs.push_back(std::move(make));
  }
  if (!teacher_inputs.empty() && !config.crop) return Fail(ErrorCode::kUnsupported, "crops for a teacher are made on the CPU: --crop-on cpu");
  auto loader = std::make_unique<Loader>(data, supervision, std::move(inputs), std::move(teacher_inputs), std::move(config));
  FKDB_TRY(loader->Start());
  return std::unique_ptr<BatchLoader>(std::move(loader));
}

}  // namespace fkdb
