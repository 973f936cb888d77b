// SPDX-License-Identifier: Apache-2.0
// The training loop: one for hard labels, label sets, and whatever else a Supervision gives.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "format/result.h"
#include "image/data_set.h"
#include "image/crop_inputs.h"
#include "trainer/launch.h"
#include "trainer/mixing_config.h"
#include "trainer/optimizer_config.h"
#include "trainer/schedule.h"
#include "trainer/supervision.h"

namespace fkdb {

struct TrainConfig {
  // Changes the result. All of it is stored in checkpoints and must be the same at a resume.
  std::string model;             // a name of model_names.h, or the file of a scripted module
  std::filesystem::path weights; // initial ones; empty: fresh, or the scripted module's own
  bool new_head = false;         // `weights` are of other classes: the last layer is drawn
  uint32_t epochs = 1;
  uint32_t crops_per_image = 1;  // m
  uint32_t batch_size = 256;     // crops a step, of all processes
  uint32_t accumulate = 1;       // parts that each process computes its share of a step in, as so many processes would
  Schedule schedule;
  OptimizerConfig optimizer;
  MixingConfig mixing;
  double average_decay = 0;      // of the weights' moving average, which is then the student that counts; 0: none
  std::string autocast;          // "bf16", "fp16" (GPUs): of the forward pass; empty: float32
  double discriminator_rate = 0; // learning rate of MEAL V2's discriminator, whose loss is added; 0: none. One process trains it
  double temperature = 1;        // of the student's softmax
  double tau = 1;                // of the softmax over stored logits
  uint64_t seed = 0;             // weights, image order, crop order
  InputSpec input;
  std::string supervision;       // "hard", "db": for the checkpoint and the metrics
  std::string labels;            // digest of the label set, empty without one

  // Changes performance, or when to save. Weights may depend on num_threads in their last bits.
  bool channels_last = false;    // how Torch keeps images and their activations
  int num_threads = 0;           // of Torch on the CPU; 0: one a processor
  int workers = 1;               // that load batches
  std::string device = "cpu";
  Launch launch;                 // of several processes: they train this student together, each on its share of every step
  bool crop_on_gpu = false;      // workers only decode, the device that trains crops: the same bits
  std::filesystem::path out;     // folder: checkpoint, weights, metrics
  bool resume = false;           // from the checkpoint in `out`; begin if there is none
  uint64_t checkpoint_steps = 0; // save every so many steps as well; 0: at the end of a pass only
  bool profile = false;          // measure where the time goes: metrics get a "profile"
  uint64_t max_steps = 0;        // stop, saved, after so many steps in all; 0: no limit
  uint32_t evaluate_resize = 256;  // 0: validation images as they are
  uint32_t evaluate_crop = 224;
};

// The files a training leaves in its folder.
constexpr const char* kCheckpointFile = "checkpoint.safetensors";
constexpr const char* kWeightsFile = "weights.safetensors";  // of the finished student, under torchvision's, timm's or the module's names
constexpr const char* kBestFile = "best.safetensors";        // the same of the pass whose top-1 was highest
constexpr const char* kMetricsFile = "metrics.jsonl";

struct TrainProgress {
  uint32_t epoch = 0;  // done before this pass
  uint32_t epochs = 0;
  uint64_t step = 0;   // of this pass
  uint64_t steps = 0;
  double loss = 0;     // running mean of this pass
  double learning_rate = 0;
  double crops_per_second = 0;
  double seconds_left = 0;   // of all passes, at this speed, evaluations apart
  uint64_t all_steps = 0;    // of all passes so far
  double step_loss = 0;      // of this step alone
};

struct TrainHooks {
  std::function<void(const TrainProgress&)> progress;
  std::function<void(const std::string&)> metrics;  // each line of metrics.jsonl, without newline
  const std::atomic<bool>* stop = nullptr;          // when true: save a checkpoint and end
};

struct TrainResult {
  bool finished = false;     // false: stopped by max_steps or `stop`, to be resumed
  uint64_t steps = 0;        // of all passes so far
  double loss = 0;           // mean over the last pass
  double top1 = 0, top5 = 0; // of the last evaluation, 0 to 1
  double best_top1 = 0;
  double seconds_per_epoch = 0;  // training alone, mean over this run's epochs
};

// `validation` may be null. Errors: InvalidArgument, AlreadyExists (a checkpoint in `out` without
// `resume`), Mismatch (a resume with another configuration: names the first difference), Model (the
// loss became NaN: names the step), IoError (another process of the launch ended), and those of loading. Of several processes
// rank 0 alone writes, and calls hooks.progress and hooks.metrics.
Result<TrainResult> Train(const TrainConfig& config, const DataSet& data, const Supervision& supervision,
                          const DataSet* validation, const TrainHooks& hooks = {});

}  // namespace fkdb
