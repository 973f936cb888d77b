// SPDX-License-Identifier: Apache-2.0
#include "trainer/train.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/cuda.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "format/random.h"
#include "trainer/autocast.h"
#include "trainer/checkpoint.h"
#include "trainer/data_parallel.h"
#include "trainer/device.h"
#include "trainer/device_batches.h"
#include "trainer/discriminator.h"
#include "trainer/evaluate.h"
#include "trainer/label_loss.h"
#include "trainer/mixing.h"
#include "trainer/models.h"
#include "trainer/optimizer.h"
#include "trainer/stopwatch.h"
#include "trainer/student.h"
#include "trainer/weight_average.h"

namespace fkdb {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kJob = "fkdb-train";

// What a resumed run must share with the run that saved.
Json Identity(const TrainConfig& c, const Student& student, const DataSet& data) {
  return {{"model", student.name},
          {"model_file", student.model_file},
          {"initial_weights", student.initial_weights},
          {"new_head", c.new_head},
          {"epochs", c.epochs},
          {"crops_per_image", c.crops_per_image},
          {"batch_size", c.batch_size},
          {"parts", c.launch.ranks * c.accumulate},
          {"schedule", Name(c.schedule.decay)},
          {"learning_rate", c.schedule.rate},
          {"min_learning_rate", c.schedule.min_rate},
          {"step_epochs", c.schedule.step_epochs},
          {"step_factor", c.schedule.step_factor},
          {"warmup_epochs", c.schedule.warmup_epochs},
          {"warmup_learning_rate", c.schedule.warmup_rate},
          {"single_crop_tail", c.schedule.single_crop_tail},
          {"rate_every_step", c.schedule.every_step},
          {"optimizer", c.optimizer.name},
          {"momentum", c.optimizer.momentum},
          {"nesterov", c.optimizer.nesterov},
          {"betas", {c.optimizer.beta1, c.optimizer.beta2}},
          {"epsilon", c.optimizer.epsilon},
          {"weight_decay", c.optimizer.weight_decay},
          {"decay_vectors", c.optimizer.decay_vectors},
          {"no_decay", c.optimizer.no_decay},
          {"clip_norm", c.optimizer.clip_norm},
          {"mixup", c.mixing.mixup_alpha},
          {"cutmix", c.mixing.cutmix_alpha},
          {"mix_probability", c.mixing.probability},
          {"mix_switch", c.mixing.switch_probability},
          {"average_decay", c.average_decay},
          {"autocast", c.autocast},
          {"discriminator_rate", c.discriminator_rate},
          {"temperature", c.temperature},
          {"tau", c.tau},
          {"seed", c.seed},
          {"input_height", c.input.height},
          {"input_width", c.input.width},
          {"interpolation", Name(c.input.interpolation)},
          {"resampling", Name(c.input.pass_order)},
          {"mean", c.input.mean},
          {"std", c.input.std},
          {"supervision", c.supervision},
          {"labels", c.labels},
          {"images", data.size()}};
}

double Number(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number() ? found->get<double>() : 0;
}

// What a checkpoint that is older than these settings was trained with.
const Json& EarlierSettings() {
  static const Json settings = {{"discriminator_rate", 0.0}, {"rate_every_step", false}};
  return settings;
}

// The first thing that two of them differ in, or nothing. "learning_rate was 0.1, now 0.2"
std::string Difference(const Json& stored, const Json& wanted, std::string_view was) {
  for (const auto& [name, value] : wanted.items()) {
    const Json before = stored.value(name, EarlierSettings().value(name, Json()));
    if (before != value) return fmt::format("{} {} {}, now {}", name, was, before.dump(), value.dump());
  }
  return "";
}

// Where training stands, between two steps.
struct Position {
  uint64_t pass = 0;
  uint64_t step = 0;      // of the pass
  double loss_sum = 0;    // over the crops of the pass so far
  uint64_t crops = 0;     // of the pass so far
  double seconds = 0;     // spent on the pass so far
  uint64_t all_steps = 0; // of all passes
  double best_top1 = 0;   // of the passes so far
  double discriminator_sum = 0;  // as loss_sum
};

// Where the seconds of a pass went, as far as this run did it.
struct Profile {
  uint64_t steps = 0;
  double idle = 0;  // the training thread waited for a batch
  double forward = 0, backward = 0, optimizer = 0;
  double all = 0;
  TrainBatch::Seconds workers;  // of all workers together
  uint64_t batches = 0, batch_bytes = 0;  // in memory at most

  Json ToJson() const {
    return {{"steps", steps},
            {"seconds", all},
            {"idle", idle},
            {"forward", forward},
            {"backward", backward},
            {"optimizer", optimizer},
            {"workers", {{"load", workers.load}, {"decode", workers.decode}, {"unpack", workers.unpack}, {"teacher", workers.teacher}}},
            {"batches", batches},
            {"batch_bytes", batch_bytes}};
  }
};

// Over the crops of a step.
struct StepSums {
  double loss = 0, crops = 0;
};

class Training {
 public:
  Training(const TrainConfig& config, const DataSet& data, const Supervision& supervision, const DataSet* validation,
           const TrainHooks& hooks, c10::Device device)
      : config_(config),
        data_(data),
        supervision_(supervision),
        validation_(validation),
        hooks_(hooks),
        device_(device),
        passes_(PlanPasses(config.epochs, config.crops_per_image, config.schedule)),
        shard_{static_cast<uint64_t>(config.launch.rank), static_cast<uint64_t>(config.launch.ranks), config.accumulate} {}

  Result<void> Begin() {
    if (config_.launch.ranks > 1) {
      FKDB_ASSIGN(parallel_, DataParallel::Join(config_.launch, kJob, device_));
    }
    // Everything random in the weights comes from here; crops and order come from counters.
    torch::manual_seed(config_.seed);
    const ModelShape shape = {data_.channels(), config_.input.height, config_.input.width, supervision_.spec().num_classes};
    FKDB_ASSIGN(student_, MakeStudent({config_.model, config_.weights, config_.new_head}, shape));
    model_ = student_.model;
    model_->to(device_);
    if (config_.channels_last) {
      for (torch::Tensor& p : model_->parameters()) {
        if (p.dim() == 4) p.set_data(p.contiguous(at::MemoryFormat::ChannelsLast));
      }
    }
    parameters_ = DistinctParameters(*model_);
    FKDB_ASSIGN(optimizer_, MakeOptimizer(*model_, config_.optimizer));
    if (config_.average_decay > 0) {
      FKDB_ASSIGN(const Student average, MakeStudent({config_.model, {}, false}, shape));
      average.model->to(device_);
      average_.emplace(*model_, average.model, config_.average_decay);
    }
    if (config_.discriminator_rate > 0) discriminator_.emplace(shape.classes, config_.discriminator_rate, device_);
    FKDB_TRY(CheckOthers());
    FKDB_ASSIGN(const std::vector<std::byte> checkpoint, FindCheckpoint());
    if (!checkpoint.empty()) FKDB_TRY(Restore(checkpoint));
    if (leads()) FKDB_TRY(MarkBegun(config_.launch, kJob));
    return parallel_ ? parallel_->Begin(*model_, /*some_unused=*/!student_.model_file.empty()) : Result<void>();
  }

  Result<TrainResult> Run() {
    const LoaderConfig loader = {.input = config_.input,
                                 .first_pass = position_.pass,
                                 .passes = {passes_.begin() + static_cast<ptrdiff_t>(position_.pass), passes_.end()},
                                 .batch_size = PartSize(),
                                 .seed = config_.seed,
                                 .first_step = position_.step * config_.accumulate,
                                 .workers = config_.workers,
                                 .shard = shard_,
                                 .mixing = config_.mixing,
                                 .steps_before = position_.all_steps - position_.step,
                                 .crop = !config_.crop_on_gpu};
    FKDB_ASSIGN(DeviceBatches batches, DeviceBatches::Make(data_, supervision_, loader, device_));
    batches_.emplace(std::move(batches));
    while (position_.pass < passes_.size() && !Stopped()) FKDB_TRY(RunPass());
    result_.finished = position_.pass == passes_.size();
    result_.steps = position_.all_steps;
    result_.best_top1 = position_.best_top1;
    if (result_.finished) FKDB_TRY(WriteWeights(kWeightsFile));
    if (run_epochs_ > 0) result_.seconds_per_epoch = run_seconds_ / run_epochs_;
    return result_;
  }

 private:
  // To the pass's end, or until it is stopped, and saved, before.
  Result<void> RunPass() {
    const Pass pass = passes_[position_.pass];
    const uint64_t steps = StepsOf(pass);
    model_->train();
    profile_ = {};
    Stopwatch watch;
    const double seconds_before = position_.seconds;
    const uint64_t crops_before = position_.crops;
    while (position_.step < steps) {
      const double loss_before = position_.loss_sum, crops_done = static_cast<double>(position_.crops);
      const double rate = config_.schedule.Rate(pass, position_.step, steps, config_.epochs);
      SetRate(optimizer_.get(), rate);
      FKDB_TRY(Step());
      profile_.all += watch.Lap();
      ++profile_.steps;
      position_.seconds = seconds_before + profile_.all;
      if (hooks_.progress && leads()) {
        const double speed = static_cast<double>(position_.crops - crops_before) / std::max(1e-9, profile_.all);
        const double step_loss = (position_.loss_sum - loss_before) / (static_cast<double>(position_.crops) - crops_done);
        hooks_.progress({pass.epoch, config_.epochs, position_.step, steps, MeanLoss(), rate, speed, SecondsLeft(speed), position_.all_steps,
                         step_loss});
      }
      const bool last = position_.step == steps;
      const bool due = config_.checkpoint_steps > 0 && position_.all_steps % config_.checkpoint_steps == 0;
      const bool stop = Stopped() && !last;
      if (stop || (due && !last)) FKDB_TRY(Save());
      if (stop) return {};
    }
    profile_.batches = batches_->loader().max_batches();
    profile_.batch_bytes = batches_->loader().batch_bytes();
    run_seconds_ += profile_.all;
    run_epochs_ += pass.crops * static_cast<double>(position_.crops - crops_before) / static_cast<double>(position_.crops);
    return EndPass(pass, config_.schedule.Rate(pass, steps - 1, steps, config_.epochs));
  }

  bool Stopped() const {
    return (parallel_ ? stopping_ : hooks_.stop && *hooks_.stop) || (config_.max_steps > 0 && position_.all_steps >= config_.max_steps);
  }

  uint64_t StepsOf(const Pass& pass) const {
    return NumSteps(supervision_.images().size(), pass.crops, PartSize(), shard_) / config_.accumulate;
  }

  double SecondsLeft(double crops_per_second) const {
    uint64_t crops = 0;
    for (uint64_t p = position_.pass; p < passes_.size(); ++p) crops += passes_[p].crops * supervision_.images().size();
    return static_cast<double>(crops - std::min(crops, position_.crops)) / std::max(1e-9, crops_per_second);
  }

  Result<void> Step() {
    Stopwatch watch;
    optimizer_->zero_grad();
    StepSums sums;
    for (uint32_t part = 0; part < config_.accumulate; ++part) FKDB_TRY(AddGradients(part, &sums, &watch));
    if (config_.optimizer.clip_norm > 0) torch::nn::utils::clip_grad_norm_(parameters_, config_.optimizer.clip_norm);
    optimizer_->step();
    if (discriminator_) discriminator_->Step();
    if (average_) average_->Update();
    profile_.optimizer += Lap(&watch);
    if (parallel_) {
      FKDB_ASSIGN(const std::vector<double> all, parallel_->FinishSum());
      sums = {all[0], all[1]};
      stopping_ = all[2] > 0;
      FKDB_TRY(CheckLoss(sums.loss));
    }
    position_.loss_sum += sums.loss;
    position_.crops += static_cast<uint64_t>(sums.crops);
    ++position_.step;
    ++position_.all_steps;
    return {};
  }

  // Of the next batch, one part of the step.
  Result<void> AddGradients(uint32_t part, StepSums* sums, Stopwatch* watch) {
    FKDB_ASSIGN(const DeviceBatches::Batch* const batch, batches_->Next());
    profile_.idle += watch->Lap();
    // A model's dropout draws for this part what it would in a run that was never stopped.
    const auto of_all = static_cast<uint32_t>(shard_.rank * shard_.parts + part);
    torch::manual_seed(Philox(config_.seed, position_.all_steps, of_all)[0]);
    std::optional<MixedBatch> mixed;
    if (batch->host->mix) mixed = MixBatch(*batch->host->mix, batch->inputs);
    const MixedRows* const mixed_rows = mixed && !supervision_.labels_mixed_crops() ? &mixed->rows : nullptr;
    const torch::Tensor logits = Forward(mixed ? mixed->inputs : batch->inputs);
    const auto weight = 1.0f / static_cast<float>(config_.accumulate), tau = static_cast<float>(config_.tau);
    auto [loss, gradient] = LabelLoss(logits.detach(), batch->labels, static_cast<float>(config_.temperature), tau, weight, mixed_rows);
    const auto n = static_cast<double>(batch->inputs.size(0));
    if (discriminator_) {
      const torch::Tensor labels = DenseLabels(batch->labels, batch->inputs.size(0), tau, device_, mixed_rows);
      const double told = discriminator_->AddGradient(logits.detach(), labels, weight, &gradient);
      FKDB_TRY(CheckLoss(told, "discriminator's loss", "--discriminator-lr"));
      position_.discriminator_sum += n * told;
    }
    profile_.forward += Lap(watch);
    batches_->Prefetch();
    profile_.idle += watch->Lap();
    const double value = loss.item<double>();
    if (!parallel_) FKDB_TRY(CheckLoss(value));  // of several processes all know it after the step
    *sums = {sums->loss + value * n, sums->crops + n};
    profile_.forward += Lap(watch);
    if (parallel_ && part + 1 == config_.accumulate) {
      FKDB_TRY(parallel_->StartSum({sums->loss, sums->crops, hooks_.stop && *hooks_.stop ? 1.0 : 0.0}));
      FKDB_TRY(parallel_->Backward(logits, gradient));
    } else {
      logits.backward(gradient);
    }
    profile_.backward += Lap(watch);
    profile_.workers += batch->host->seconds;
    return {};
  }

  Result<void> CheckLoss(double loss, const char* name = "loss", const char* flag = "--lr") const {
    if (std::isfinite(loss)) return {};
    return Fail(ErrorCode::kModel,
                fmt::format("the {} is {} at step {} of epoch {}: a lower {} may help; the last checkpoint is {}", name, loss, position_.step,
                            passes_[position_.pass].epoch, flag, (config_.out / kCheckpointFile).string()));
  }

  torch::Tensor Forward(const torch::Tensor& inputs) {
    const Autocast autocast(device_.type(), config_.autocast);
    return model_->forward(config_.channels_last ? inputs.contiguous(at::MemoryFormat::ChannelsLast) : inputs).contiguous();
  }

  // A device works behind the host's back: a profile waits for it.
  double Lap(Stopwatch* watch) const {
    if (config_.profile && device_.is_cuda()) torch::cuda::synchronize(device_.index());
    return watch->Lap();
  }

  double MeanLoss() const { return position_.loss_sum / static_cast<double>(std::max<uint64_t>(1, position_.crops)); }

  // `rate`: of its last step. Or, stopped before the evaluation's end, saves the pass as it stood before that.
  Result<void> EndPass(const Pass& pass, double rate) {
    Json line = {{"pass", position_.pass},
                 {"epoch", pass.epoch + pass.crops},
                 {"crops_per_image", pass.crops},
                 {"steps", position_.all_steps},
                 {"lr", rate},
                 {"loss", MeanLoss()},
                 {"crops", position_.crops},
                 {"seconds", position_.seconds}};
    result_.loss = MeanLoss();
    if (discriminator_) line["discriminator_loss"] = position_.discriminator_sum / static_cast<double>(position_.crops);
    if (parallel_) FKDB_TRY(parallel_->Share(Evaluated().buffers()));  // running statistics are each process's own
    if (validation_) {
      FKDB_ASSIGN(const std::optional<Accuracy> accuracy, EvaluateAll());
      if (!accuracy) return Save();
      line["top1"] = result_.top1 = accuracy->top1();
      line["top5"] = result_.top5 = accuracy->top5();
      if (result_.top1 > position_.best_top1) {
        position_.best_top1 = result_.top1;
        FKDB_TRY(WriteWeights(kBestFile));
      }
    }
    if (config_.profile) line["profile"] = profile_.ToJson();
    ++position_.pass;
    position_ = {position_.pass, 0, 0, 0, 0, position_.all_steps, position_.best_top1};
    metrics_.push_back(line.dump());
    FKDB_TRY(Save());
    FKDB_TRY(WriteMetrics("a", {metrics_.back()}));
    if (hooks_.metrics && leads()) hooks_.metrics(metrics_.back());
    return {};
  }

  // By all processes together. None if one of them was stopped before the end.
  Result<std::optional<Accuracy>> EvaluateAll() {
    FKDB_ASSIGN(const std::optional<Accuracy> own, Evaluate(Evaluated(), *validation_, config_.input, {config_.evaluate_resize, config_.evaluate_crop},
                                                            device_, config_.workers, hooks_.stop, {shard_.rank, shard_.ranks}));
    if (!parallel_) return own;
    const Accuracy counts = own.value_or(Accuracy());
    const auto number = [](uint64_t n) { return static_cast<double>(n); };
    FKDB_TRY(parallel_->StartSum({number(counts.images), number(counts.right1), number(counts.right5), own ? 0.0 : 1.0}));
    FKDB_ASSIGN(const std::vector<double> all, parallel_->FinishSum());
    stopping_ = all[3] > 0;
    if (stopping_) return std::optional<Accuracy>();
    const auto count = [](double n) { return static_cast<uint64_t>(n); };
    return std::optional(Accuracy{count(all[0]), count(all[1]), count(all[2])});
  }

  bool leads() const { return shard_.rank == 0; }
  // Crops of a batch: of a process's part of a step.
  uint32_t PartSize() const { return config_.batch_size / static_cast<uint32_t>(shard_.all()); }

  // For evaluations of the weights on other images. Names need not be UTF-8.
  std::string ClassNames() const { return Json(data_.class_names()).dump(-1, ' ', false, Json::error_handler_t::replace); }

  // The one that is evaluated and handed over.
  Model& Evaluated() const { return average_ ? average_->model() : *model_; }

  Result<void> WriteWeights(const char* name) const {
    if (!leads()) return {};
    TensorFile weights;
    StoreModel(Evaluated(), "", &weights);
    weights.metadata["model"] = student_.name;
    weights.metadata["class_names"] = ClassNames();
    return WriteTensorFile(config_.out / name, weights);
  }

  Result<void> WriteMetrics(const char* mode, const std::vector<std::string>& lines) const {
    if (!leads()) return {};
    const auto path = config_.out / kMetricsFile;
    std::FILE* file = std::fopen(path.c_str(), mode);
    bool written = file != nullptr;
    for (const std::string& line : lines) written = written && std::fprintf(file, "%s\n", line.c_str()) >= 0;
    if (file) written = std::fclose(file) == 0 && written;
    if (written) return {};
    return Fail(ErrorCode::kIoError, fmt::format("{}: cannot write it", path.string()));
  }

  // All processes train alike, or none.
  Result<void> CheckOthers() {
    if (!parallel_) return {};
    const std::string own = Identity(config_, student_, data_).dump();
    const auto* bytes = reinterpret_cast<const std::byte*>(own.data());
    std::vector<std::byte> first(bytes, bytes + own.size());
    FKDB_TRY(parallel_->Share(&first));
    const std::string_view expected(reinterpret_cast<const char*>(first.data()), first.size());
    const bool differs = own != expected;
    FKDB_TRY(parallel_->StartSum({differs ? 1.0 : 0.0}));
    FKDB_ASSIGN(const std::vector<double> others, parallel_->FinishSum());
    if (differs) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("rank {}: {}", config_.launch.rank, Difference(Json::parse(expected), Json::parse(own), "at rank 0")));
    }
    if (others[0] > 0) return Fail(ErrorCode::kIncomplete, "another process was started with another configuration, and has said which");
    return {};
  }

  // The bytes of the checkpoint to go on from, or none: rank 0's, who tells the others.
  Result<std::vector<std::byte>> FindCheckpoint() const {
    const auto find = [&]() -> Result<std::vector<std::byte>> {
      std::error_code ec;
      std::filesystem::create_directories(config_.out, ec);
      if (ec) {
        return Fail(ErrorCode::kIoError, fmt::format("{}: cannot create the folder: {}", config_.out.string(), ec.message()));
      }
      const auto path = config_.out / kCheckpointFile;
      if (!std::filesystem::exists(path, ec)) return std::vector<std::byte>();
      FKDB_ASSIGN(const bool ours, WasBegun(config_.launch, kJob));
      if (config_.resume || ours) return ReadBytes(path);
      return Fail(ErrorCode::kAlreadyExists,
                  fmt::format("{}: a training is there already; --resume continues it, or choose another folder", config_.out.string()));
    };
    if (!parallel_) return find();
    Result<std::vector<std::byte>> found;
    if (leads()) found = find();
    std::vector<std::byte> told;
    if (leads() && found) {
      told = *found;
      told.push_back(std::byte{1});  // never empty, if all is well
    }
    FKDB_TRY(parallel_->Share(&told));
    if (!found) return found;
    if (told.empty()) return Fail(ErrorCode::kIncomplete, "rank 0 could not begin, and has said why");
    told.pop_back();
    return told;
  }

  Result<void> Save() const {
    if (!leads()) return {};
    TensorFile file;
    StoreModel(*model_, "model.", &file);
    StoreOptimizer(*model_, *optimizer_, "optimizer.", &file);
    if (average_) StoreModel(average_->model(), "average.", &file);
    if (discriminator_) discriminator_->Store("discriminator.", &file);
    file.metadata["class_names"] = ClassNames();
    file.metadata["config"] = Identity(config_, student_, data_).dump();
    const Json position = {{"pass", position_.pass},   {"step", position_.step},       {"loss_sum", position_.loss_sum},
                           {"crops", position_.crops}, {"seconds", position_.seconds}, {"all_steps", position_.all_steps},
                           {"best_top1", position_.best_top1}, {"discriminator_sum", position_.discriminator_sum}};
    file.metadata["position"] = position.dump();
    file.metadata["metrics"] = Json(metrics_).dump();
    return WriteTensorFile(config_.out / kCheckpointFile, file);
  }

  Result<void> Restore(const std::vector<std::byte>& checkpoint) {
    const auto path = config_.out / kCheckpointFile;
    const auto in = [&](const Error& error) { return Fail(error.code, fmt::format("{}: {}", path.string(), error.message)); };
    FKDB_ASSIGN(const TensorFile file, ParseTensorFile(checkpoint, path));
    const auto metadata = [&](const char* key) {
      const auto found = file.metadata.find(key);
      return found == file.metadata.end() ? Json() : Json::parse(found->second, nullptr, false);
    };
    const Json stored = metadata("config"), position = metadata("position"), metrics = metadata("metrics");
    const Json wanted = Identity(config_, student_, data_);
    const auto numbers = [](const Json& json) {
      return std::all_of(json.begin(), json.end(), [](const Json& value) { return value.is_number(); });
    };
    const auto texts = [](const Json& json) {
      return std::all_of(json.begin(), json.end(), [](const Json& value) { return value.is_string(); });
    };
    if (!stored.is_object() || !position.is_object() || !numbers(position) || !metrics.is_array() || !texts(metrics)) {
      return in({ErrorCode::kCorruption, "not a checkpoint of fkdb-train"});
    }
    if (const std::string difference = Difference(stored, wanted, "was"); !difference.empty()) {
      return in({ErrorCode::kInvalidArgument, "cannot resume with another configuration: " + difference});
    }
    position_ = {position.value("pass", uint64_t{0}),   position.value("step", uint64_t{0}),
                 position.value("loss_sum", 0.0),       position.value("crops", uint64_t{0}),
                 position.value("seconds", 0.0),        position.value("all_steps", uint64_t{0}),
                 position.value("best_top1", 0.0),      position.value("discriminator_sum", 0.0)};
    if (auto loaded = LoadModel(file, "model.", model_.get()); !loaded) return in(loaded.error());
    if (auto loaded = LoadOptimizer(file, "optimizer.", *model_, optimizer_.get()); !loaded) return in(loaded.error());
    if (average_) {
      if (auto loaded = LoadModel(file, "average.", &average_->model()); !loaded) return in(loaded.error());
    }
    if (discriminator_) {
      if (auto loaded = discriminator_->Load(file, "discriminator."); !loaded) return in(loaded.error());
    }

    // The metrics file may lack the last line, or have lines of passes that are about to be repeated.
    metrics_ = metrics.get<std::vector<std::string>>();
    if (!metrics_.empty()) {
      const Json last = Json::parse(metrics_.back(), nullptr, false);
      if (!last.is_object()) return in({ErrorCode::kCorruption, "not a checkpoint of fkdb-train"});
      result_.loss = Number(last, "loss");
      result_.top1 = Number(last, "top1");
      result_.top5 = Number(last, "top5");
    }
    return WriteMetrics("w", metrics_);
  }

  const TrainConfig& config_;
  const DataSet& data_;
  const Supervision& supervision_;
  const DataSet* validation_;
  const TrainHooks& hooks_;
  const c10::Device device_;
  const std::vector<Pass> passes_;
  const Shard shard_;
  std::unique_ptr<DataParallel> parallel_;  // null: this process alone
  bool stopping_ = false;                   // all processes know that one was told to
  Student student_;
  std::shared_ptr<Model> model_;
  std::vector<torch::Tensor> parameters_;  // of the model
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  std::optional<WeightAverage> average_;
  std::optional<Discriminator> discriminator_;
  std::optional<DeviceBatches> batches_;
  Position position_;
  std::vector<std::string> metrics_;  // a line for each pass done
  TrainResult result_;
  Profile profile_;
  double run_seconds_ = 0, run_epochs_ = 0;
};

Result<void> CheckConfig(const TrainConfig& c, const LabelSpec& labels) {
  const auto bad = [](std::string message) { return Fail(ErrorCode::kInvalidArgument, std::move(message)); };
  if (c.epochs < 1 || c.crops_per_image < 1 || c.batch_size < 1) {
    return bad(fmt::format("{} epochs, {} crops an image, batches of {}: expected 1 or more of each", c.epochs,
                           c.crops_per_image, c.batch_size));
  }
  if (!(c.temperature > 0) || !(c.tau > 0)) return bad("temperatures must be positive");
  const uint64_t parts = uint64_t{c.accumulate} * static_cast<uint32_t>(c.launch.ranks);
  if (parts == 0 || c.batch_size % parts != 0) {
    return bad(fmt::format("batches of {} crops in {} parts: expected parts of the same size", c.batch_size, parts));
  }
  if (parts > 1 && c.batch_size / parts < c.crops_per_image) {
    return bad(fmt::format("batches of {} crops in {} parts: a part would be less than an image of {} crops", c.batch_size, parts, c.crops_per_image));
  }
  if (!(c.average_decay >= 0 && c.average_decay < 1)) return bad(fmt::format("decay {} of the weights' average: expected 0 to 1, 1 excluded", c.average_decay));
  if (!c.autocast.empty() && !IsAutocastType(c.autocast)) return bad(fmt::format("autocast '{}': expected bf16 or fp16", c.autocast));
  if (c.autocast == "fp16") return bad("autocast 'fp16' would need a loss scale: expected bf16");
  if (c.discriminator_rate != 0) {
    FKDB_TRY(CheckDiscriminator(c.discriminator_rate, labels));
    if (c.launch.ranks > 1) return bad(fmt::format("a discriminator is trained by one process: there are {}", c.launch.ranks));
  }
  FKDB_TRY(CheckMixing(c.mixing));
  return c.schedule.Check(c.epochs);
}

}  // namespace

Result<TrainResult> Train(const TrainConfig& config, const DataSet& data, const Supervision& supervision,
                          const DataSet* validation, const TrainHooks& hooks) {
  FKDB_TRY(CheckConfig(config, supervision.spec()));
  FKDB_ASSIGN(const c10::Device device, ParseDevice(config.device));
  if (config.num_threads > 0) at::set_num_threads(config.num_threads);
  Training training(config, data, supervision, validation, hooks, device);
  FKDB_TRY(training.Begin());
  return training.Run();
}

}  // namespace fkdb
