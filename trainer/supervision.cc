// SPDX-License-Identifier: Apache-2.0
#include "trainer/supervision.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "format/compact.h"
#include "format/crop_op.h"
#include "format/quantize.h"
#include "trainer/fresh_crops.h"
#include "trainer/match.h"
#include "writer/crop_output.h"

namespace fkdb {
namespace {

class Hard : public Supervision {
 public:
  Hard(const DataSet& images, FreshCrops crops, double smoothing) : data_(images), crops_(crops) {
    spec_.kind = smoothing > 0 ? LabelKind::kSmoothing : LabelKind::kHard;
    spec_.num_classes = static_cast<uint32_t>(images.class_names().size());
    spec_.top_k = 1;
    spec_.values = ValueEncoding::kF32;
    of_class_ = static_cast<float>(1 - smoothing + smoothing / spec_.num_classes);
    for (uint64_t i = 0; i < images.size(); ++i) {
      if (images.class_index(i) >= 0) images_.push_back(i);
    }
  }

  const LabelSpec& spec() const override { return spec_; }
  const std::vector<uint64_t>& images() const override { return images_; }

  Result<void> FillLabels(const StepPlan& step, LabelBatch* labels) const override {
    const uint32_t m = step.pass.crops;
    FreshCrops::Resize(step, spec_, labels);
    for (uint32_t i = 0; i < step.ordinals.size(); ++i) {
      for (uint32_t n = i * m; n < (i + 1) * m; ++n) {
        PutCompactIndex(spec_, labels->indices(), n, static_cast<uint32_t>(data_.class_index(step.ordinals[i])));
        if (spec_.num_values() > 0) std::memcpy(labels->values() + n * sizeof(float), &of_class_, sizeof(float));
      }
    }
    return {};
  }

  Result<void> AddCrops(const StepPlan& step, size_t image, uint32_t width, uint32_t height,
                        LabelBatch* labels) const override {
    crops_.Draw(step, image, width, height, labels);
    return {};
  }
  Result<void> CheckInput(const InputSpec&) const override { return {}; }

 private:
  const DataSet& data_;
  FreshCrops crops_;
  LabelSpec spec_;
  float of_class_;  // a smoothed label's value
  std::vector<uint64_t> images_;
};

class Db : public Supervision {
 public:
  Db(const Reader& labels, CropOrder order, uint64_t seed, const DataSet* images)
      : reader_(labels), order_(order), seed_(seed), images_(LabelledOrdinals(labels, images)) {}

  const LabelSpec& spec() const override { return reader_.spec(); }
  const std::vector<uint64_t>& images() const override { return images_; }

  Result<void> FillLabels(const StepPlan& step, LabelBatch* labels) const override {
    const auto choose = [&](size_t image, uint32_t num_crops, std::span<uint32_t> crops) {
      SelectCrops(order_, seed_, step.pass_number, step.ordinals[image], num_crops, step.pass.epoch, crops);
    };
    FKDB_TRY(FillBatch(reader_, step.ordinals, step.pass.crops, choose, labels));
    return labels->has_ops() && !reader_.manifest().imported_from.empty() ? CannotApply(*labels) : Result<void>();
  }
  Result<void> CheckInput(const InputSpec& input) const override {
    const AugmentationInfo& a = reader_.manifest().augmentation;
    if (input.height == a.input_height && input.width == a.input_width) return {};
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: its crops were changed as {} x {} pixels: an input of {} x {} cannot be made of them",
                                                         reader_.label_set().path().string(), a.input_height, a.input_width, input.height, input.width));
  }

  Result<void> AddCrops(const StepPlan& step, size_t image, uint32_t width, uint32_t height,
                        LabelBatch* labels) const override {
    const BatchImage& then = labels->images()[image];
    return CheckSize(reader_, step.ordinals[image], {then.width, then.height}, {width, height});
  }

 private:
  // A student that does not see what the teacher saw would learn wrong labels.
  Result<void> CannotApply(const LabelBatch& labels) const {
    for (const BatchImage& image : labels.images()) {
      for (uint32_t n = image.first_crop; n < image.first_crop + image.num_crops; ++n) {
        FKDB_ASSIGN(const std::vector<CropOp> ops, ParseOpWords(labels.ops(n)));
        if (ops.empty()) continue;
        return Fail(reader_.About(image.ordinal, {ErrorCode::kUnsupported,
                                                  fmt::format("its crops were changed by '{}' of the system that they were imported "
                                                              "from, which cannot be done to a student's",
                                                              InfoOf(ops[0].kind)->name)}));
      }
    }
    return {};
  }

  const Reader& reader_;
  CropOrder order_;
  uint64_t seed_;
  std::vector<uint64_t> images_;
};

// Takes whatever crops another supervision gives, and asks the teachers instead of it.
class Online : public Supervision {
 public:
  Online(const Supervision& crops, const OnlineTeacher& teacher, const DataSet& images)
      : crops_(crops), teacher_(teacher), data_(images), inputs_(*teacher.teachers) {
    spec_.kind = LabelKind::kFull;
    spec_.num_classes = teacher.teachers->num_outputs();
    spec_.values = ValueEncoding::kF32;
    spec_.temperature = teacher.temperature;
    for (const uint64_t ordinal : crops.images()) {
      if (teacher.lambda == 1 || images.class_index(ordinal) >= 0) images_.push_back(ordinal);
    }
  }

  const LabelSpec& spec() const override { return spec_; }
  const std::vector<uint64_t>& images() const override { return images_; }
  std::vector<InputSpec> teacher_inputs() const override { return inputs_.specs; }
  Result<void> CheckInput(const InputSpec& input) const override {
    for (const InputSpec& of_teacher : inputs_.specs) FKDB_TRY(crops_.CheckInput(of_teacher));
    return crops_.CheckInput(input);
  }

  Result<void> FillLabels(const StepPlan& step, LabelBatch* labels) const override {
    LabelBatch crops;
    FKDB_TRY(crops_.FillLabels(step, &crops));
    labels->Resize(spec_, step.ordinals.size(), crops.size());
    std::ranges::copy(crops.images(), labels->images().begin());
    std::ranges::copy(crops.boxes(), labels->boxes().begin());
    std::ranges::copy(crops.flips(), labels->flips().begin());
    for (size_t n = 0; n < crops.size() && crops.has_ops(); ++n) labels->SetOps(n, crops.ops(n));
    return {};
  }
  Result<void> AddCrops(const StepPlan& step, size_t image, uint32_t width, uint32_t height, LabelBatch* labels) const override {
    return crops_.AddCrops(step, image, width, height, labels);
  }

  bool labels_mixed_crops() const override { return teacher_.mixed; }
  Result<void> AskTeacher(std::span<const float* const> inputs, const StepPlan& step, const BatchMix* mix, LabelBatch* labels) const override {
    std::unique_ptr<EnsembleOutputs> outputs = Borrow();
    FKDB_TRY(outputs->Run(inputs, labels->size()));
    const size_t c = spec_.num_classes;
    auto* const values = reinterpret_cast<float*>(labels->values());
    for (size_t n = 0; n < labels->size(); ++n) {
      const std::span label(values + n * c, c);
      const auto said = outputs->output(n);
      const bool logits = outputs->kind() == OutputKind::kLogits;
      const bool good = logits ? Softmax(said, teacher_.temperature, label) : IsDistribution(said);
      if (!good) return Fail(ErrorCode::kModel, fmt::format("teacher '{}' gave NaN, infinity or no probabilities: check it and its card", outputs->Culprit(n).name()));
      if (!logits) std::ranges::copy(said, label.begin());
      if (teacher_.lambda == 1) continue;
      const auto lambda = static_cast<float>(teacher_.lambda);
      for (float& p : label) p *= lambda;
      const auto add = [&](size_t crop, float share) { label[static_cast<size_t>(data_.class_index(step.ordinals[crop / step.pass.crops]))] += share; };
      const auto own = mix == nullptr ? 1 : static_cast<float>(mix->share);
      add(n, (1 - lambda) * own);
      if (mix != nullptr) add(mix->partners[n], (1 - lambda) * (1 - own));
    }
    const std::lock_guard lock(mutex_);
    spare_.push_back(std::move(outputs));
    return {};
  }

 private:
  std::unique_ptr<EnsembleOutputs> Borrow() const {
    const std::lock_guard lock(mutex_);
    if (spare_.empty()) return std::make_unique<EnsembleOutputs>(*teacher_.teachers, teacher_.temperature);
    auto outputs = std::move(spare_.back());
    spare_.pop_back();
    return outputs;
  }

  const Supervision& crops_;
  const OnlineTeacher teacher_;
  const DataSet& data_;
  const EnsembleInputs inputs_;
  LabelSpec spec_;
  std::vector<uint64_t> images_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<EnsembleOutputs>> spare_;
};

}  // namespace

Result<std::unique_ptr<Supervision>> TeacherSupervision(const Supervision& crops, const OnlineTeacher& teacher, const DataSet& images) {
  if (!(teacher.lambda >= 0 && teacher.lambda <= 1)) return Fail(ErrorCode::kInvalidArgument, fmt::format("lambda {}: expected 0 to 1", teacher.lambda));
  if (!(teacher.temperature > 0)) return Fail(ErrorCode::kInvalidArgument, "temperatures must be positive");
  LabelSpec spec;
  spec.kind = LabelKind::kFull;
  spec.temperature = teacher.temperature;
  FKDB_TRY(CheckEnsemble(*teacher.teachers, spec));
  const size_t classes = images.class_names().size();
  if (classes > 0 && classes != teacher.teachers->num_outputs()) {
    return Fail(ErrorCode::kMismatch, fmt::format("teacher '{}' has {} outputs, '{}' {} classes", teacher.teachers->name(), teacher.teachers->num_outputs(),
                                                  images.name(), classes));
  }
  if (teacher.lambda < 1 && classes == 0) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("'{}' has no classes for the share of 1 - lambda", images.name()));
  }
  return std::make_unique<Online>(crops, teacher, images);
}

Result<std::unique_ptr<Supervision>> HardSupervision(const DataSet& images, const CropSampling& sampling,
                                                     uint64_t seed, double smoothing) {
  if (!(smoothing >= 0 && smoothing < 1)) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("label smoothing {}: expected 0 to 1, 1 excluded", smoothing));
  }
  if (images.class_names().empty()) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' has no classes to train on: expected a folder for each class, or an IDX label file "
                            "beside the images",
                            images.name()));
  }
  FKDB_ASSIGN(const CropSampler sampler, CropSampler::Make(sampling));
  auto supervision = std::make_unique<Hard>(images, FreshCrops(sampler, seed), smoothing);
  if (supervision->images().empty()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("no image of '{}' has a class to train on", images.name()));
  }
  return std::unique_ptr<Supervision>(std::move(supervision));
}

Result<std::unique_ptr<Supervision>> DbSupervision(const Reader& labels, CropOrder order, uint64_t seed, const DataSet* images) {
  FKDB_TRY(CheckCrops(labels));
  auto supervision = std::make_unique<Db>(labels, order, seed, images);
  if (supervision->images().empty()) {
    return Fail(ErrorCode::kMismatch,
                fmt::format("{}: every image in it was skipped", labels.label_set().path().string()));
  }
  return std::unique_ptr<Supervision>(std::move(supervision));
}

}  // namespace fkdb
