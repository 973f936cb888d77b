// SPDX-License-Identifier: Apache-2.0
#include "trainer/supervision.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "format/compact.h"
#include "format/crop_op.h"

namespace fkdb {
namespace {

class Hard : public Supervision {
 public:
  Hard(const DataSet& images, CropSampler sampler, uint64_t seed, double smoothing) : data_(images), sampler_(sampler), seed_(seed) {
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
    labels->Resize(spec_, step.ordinals.size(), step.ordinals.size() * m);
    for (uint32_t i = 0; i < step.ordinals.size(); ++i) {
      labels->images()[i] = {step.ordinals[i], 0, 0, i * m, m};  // its size is known when it was read
      for (uint32_t n = i * m; n < (i + 1) * m; ++n) {
        PutCompactIndex(spec_, labels->indices(), n, static_cast<uint32_t>(data_.class_index(step.ordinals[i])));
        if (spec_.num_values() > 0) std::memcpy(labels->values() + n * sizeof(float), &of_class_, sizeof(float));
      }
    }
    return {};
  }

  Result<void> AddCrops(const StepPlan& step, size_t image, uint32_t width, uint32_t height,
                        LabelBatch* labels) const override {
    labels->images()[image].width = width;
    labels->images()[image].height = height;
    // The stream is the image, the index the epoch: a crop seen once is not seen again.
    for (uint32_t i = 0; i < step.pass.crops; ++i) {
      const SampledCrop crop =
          sampler_.Sample(seed_, ~step.ordinals[image], step.pass.epoch + i, width, height);
      labels->boxes()[image * step.pass.crops + i] = crop.box;
      labels->flips()[image * step.pass.crops + i] = crop.flip;
    }
    return {};
  }
  Result<void> CheckInput(const InputSpec&) const override { return {}; }

 private:
  const DataSet& data_;
  CropSampler sampler_;
  uint64_t seed_;
  LabelSpec spec_;
  float of_class_;  // a smoothed label's value
  std::vector<uint64_t> images_;
};

class Db : public Supervision {
 public:
  Db(const Reader& labels, CropOrder order, uint64_t seed) : reader_(labels), order_(order), seed_(seed) {
    const auto& skipped = labels.manifest().skipped;
    for (uint64_t i = 0; i < labels.num_images(); ++i) {
      if (!std::binary_search(skipped.begin(), skipped.end(), i)) images_.push_back(i);
    }
  }

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
    if (then.width == width && then.height == height) return {};
    return Fail(reader_.About(step.ordinals[image], {ErrorCode::kMismatch,
                                                     fmt::format("it was {} x {} pixels when labelled and is {} x {} now",
                                                                 then.width, then.height, width, height)}));
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

}  // namespace

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
  auto supervision = std::make_unique<Hard>(images, sampler, seed, smoothing);
  if (supervision->images().empty()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("no image of '{}' has a class to train on", images.name()));
  }
  return std::unique_ptr<Supervision>(std::move(supervision));
}

Result<std::unique_ptr<Supervision>> DbSupervision(const Reader& labels, CropOrder order, uint64_t seed) {
  auto supervision = std::make_unique<Db>(labels, order, seed);
  if (supervision->images().empty()) {
    return Fail(ErrorCode::kMismatch,
                fmt::format("{}: every image in it was skipped", labels.label_set().path().string()));
  }
  return std::unique_ptr<Supervision>(std::move(supervision));
}

}  // namespace fkdb
