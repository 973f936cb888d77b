// SPDX-License-Identifier: Apache-2.0
#include "trainer/relabel.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "format/label_map.h"
#include "trainer/fresh_crops.h"
#include "trainer/match.h"

namespace fkdb {
namespace {

class Relabel : public Supervision {
 public:
  Relabel(const Reader& maps, FreshCrops crops, const DataSet* images)
      : reader_(maps), crops_(crops), images_(LabelledOrdinals(maps, images)), spec_(PooledSpec(maps)) {}

  const LabelSpec& spec() const override { return spec_; }
  const std::vector<uint64_t>& images() const override { return images_; }
  bool labels_with_crops() const override { return true; }

  Result<void> FillLabels(const StepPlan& step, LabelBatch* labels) const override {
    FreshCrops::Resize(step, spec_, labels);
    return {};
  }

  Result<void> AddCrops(const StepPlan& step, size_t image, uint32_t width, uint32_t height, LabelBatch* labels) const override {
    FKDB_TRY(AddPooledCrops(reader_, crops_, step, image, labels));
    const BatchImage& then = labels->images()[image];
    return CheckSize(reader_, then.ordinal, {then.width, then.height}, {width, height});
  }
  Result<void> CheckInput(const InputSpec&) const override { return {}; }

 private:
  const Reader& reader_;
  FreshCrops crops_;
  std::vector<uint64_t> images_;
  LabelSpec spec_;
};

}  // namespace

LabelSpec PooledSpec(const Reader& maps) {
  LabelSpec spec;
  spec.kind = LabelKind::kFull;
  spec.num_classes = maps.spec().num_classes;
  spec.top_k = 0;
  spec.values = ValueEncoding::kF32;
  return spec;
}

Result<void> AddPooledCrops(const Reader& maps, const FreshCrops& crops, const StepPlan& step, size_t image, LabelBatch* labels) {
  const uint64_t ordinal = step.ordinals[image];
  FKDB_ASSIGN(const RecordView map, maps.Get(ordinal));
  if (map.skipped()) return Fail(maps.About(ordinal, {ErrorCode::kNotFound, fmt::format("it was skipped when labelled ({})", map.skip_reason())}));
  crops.Draw(step, image, map.width(), map.height(), labels);
  auto* const values = reinterpret_cast<float*>(labels->values());
  const size_t c = maps.spec().num_classes;
  for (size_t n = image * step.pass.crops; n < (image + 1) * step.pass.crops; ++n) {
    auto pooled = PoolLabelMap(map, labels->boxes()[n], {values + n * c, c});
    if (!pooled) return Fail(maps.About(ordinal, std::move(pooled).error()));
  }
  return {};
}

Result<std::unique_ptr<Supervision>> RelabelSupervision(const Reader& maps, const CropSampling& sampling, uint64_t seed, const DataSet* images) {
  FKDB_TRY(CheckMaps(maps));
  FKDB_ASSIGN(const CropSampler sampler, CropSampler::Make(sampling));
  auto supervision = std::make_unique<Relabel>(maps, FreshCrops(sampler, seed), images);
  if (supervision->images().empty()) {
    return Fail(ErrorCode::kMismatch, fmt::format("{}: every image in it was skipped", maps.label_set().path().string()));
  }
  return std::unique_ptr<Supervision>(std::move(supervision));
}

}  // namespace fkdb
