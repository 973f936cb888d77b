// SPDX-License-Identifier: Apache-2.0
// Where the crops of a training step and their labels come from: the same training loop runs on hard
// labels (plain training), on a label set (FKD) and on label maps (trainer/relabel.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "format/result.h"
#include "image/crop_inputs.h"
#include "format/crop_sampler.h"
#include "image/data_set.h"
#include "reader/epoch_plan.h"
#include "reader/label_batch.h"
#include "reader/reader.h"
#include "trainer/batch_mix.h"
#include "trainer/schedule.h"
#include "writer/ensemble.h"

namespace fkdb {

// The images of one step, in batch order. The batch holds pass.crops crops of the first image, then
// those of the second, and so on.
struct StepPlan {
  uint64_t pass_number;
  Pass pass;
  std::vector<uint64_t> ordinals;
};

// Thread-safe.
class Supervision {
 public:
  virtual ~Supervision() = default;

  // Of every label it gives.
  virtual const LabelSpec& spec() const = 0;
  // Ordinals of the images that have labels, ascending.
  virtual const std::vector<uint64_t>& images() const = 0;
  // Sizes `labels` for the step and fills its labels. Boxes and flips are complete after AddCrops
  // was called for each image of the step.
  virtual Result<void> FillLabels(const StepPlan& step, LabelBatch* labels) const = 0;
  // Whether its labels come with AddCrops instead.
  virtual bool labels_with_crops() const { return false; }
  // Completes boxes and flips of the step's image number `image`, which turned out to have this
  // size. May be called for several images of a step at a time. Errors: Mismatch (not the size it had when it was labelled).
  virtual Result<void> AddCrops(const StepPlan& step, size_t image, uint32_t width, uint32_t height,
                                LabelBatch* labels) const = 0;
  // What a teacher wants to see of each crop besides.
  virtual std::vector<InputSpec> teacher_inputs() const { return {}; }
  // Whether teachers are to see the crops of a mixed batch mixed: its labels are then of what the student sees, and are not mixed.
  virtual bool labels_mixed_crops() const { return false; }
  // Fills the labels of a step whose crops are made. inputs: of each of teacher_inputs (PaddedRows(N), channels, height, width), the
  // rows behind N zero. mix: what was done to them, or null. Errors: a teacher's.
  virtual Result<void> AskTeacher(std::span<const float* const> inputs, const StepPlan& step, const BatchMix* mix, LabelBatch* labels) const {
    static_cast<void>(inputs), static_cast<void>(step), static_cast<void>(mix), static_cast<void>(labels);
    return {};
  }
  // Whether crops with operations can be made for such an input. Errors: InvalidArgument (they are of pixels of another one).
  virtual Result<void> CheckInput(const InputSpec& input) const = 0;
};

// One-hot labels of the data set's classes and fresh random crops at each visit. Borrows `images`.
// smoothing: the share of a label that is spread evenly over all classes. Errors: InvalidArgument (a data set without classes;
// the sampling; the smoothing).
Result<std::unique_ptr<Supervision>> HardSupervision(const DataSet& images, const CropSampling& sampling, uint64_t seed, double smoothing = 0);

// The stored crops and labels. Borrows `labels`, which must match the data set (CheckMatch). images: only of those that it has; null: of all.
// Errors: Unsupported (CheckCrops), Mismatch (no image).
Result<std::unique_ptr<Supervision>> DbSupervision(const Reader& labels, CropOrder order, uint64_t seed, const DataSet* images = nullptr);

// Vanilla knowledge distillation (Eq. 1): the crops of `crops`, labelled by the teachers in every step: a label is
// lambda * their probabilities + (1 - lambda) * the image's class. temperature: of the teachers' softmax. Borrows all of them;
// `images` only for lambda < 1. mixed: crops that are mixed (mixup, CutMix) are labelled as the student sees them (FunMatch, Beyer et al.
// 2022), and not each by itself with the labels mixed after. Errors: InvalidArgument (teachers that do not go together or with
// `images`' classes; lambda).
struct OnlineTeacher {
  const Ensemble* teachers;
  float temperature = 1;
  double lambda = 1;
  bool mixed = false;
};
Result<std::unique_ptr<Supervision>> TeacherSupervision(const Supervision& crops, const OnlineTeacher& teacher, const DataSet& images);

}  // namespace fkdb
