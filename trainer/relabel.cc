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
  Relabel(const Reader& maps, FreshCrops crops, const DataSet* images) : reader_(maps), crops_(crops), images_(LabelledOrdinals(maps, images)) {
    spec_.kind = LabelKind::kFull;
    spec_.num_classes = maps.spec().num_classes;
    spec_.top_k = 0;
    spec_.values = ValueEncoding::kF32;
  }

  const LabelSpec& spec() const override { return spec_; }
  const std::vector<uint64_t>& images() const override { return images_; }
  bool labels_with_crops() const override { return true; }

  Result<void> FillLabels(const StepPlan& step, LabelBatch* labels) const override {
    FreshCrops::Resize(step, spec_, labels);
    return {};
  }

  Result<void> AddCrops(const StepPlan& step, size_t image, uint32_t width, uint32_t height, LabelBatch* labels) const override {
    const uint64_t ordinal = step.ordinals[image];
    FKDB_ASSIGN(const RecordView map, reader_.Get(ordinal));
    if (map.skipped()) return Fail(reader_.About(ordinal, {ErrorCode::kNotFound, fmt::format("it was skipped when labelled ({})", map.skip_reason())}));
    FKDB_TRY(CheckSize(reader_, ordinal, {map.width(), map.height()}, {width, height}));
    crops_.Draw(step, image, width, height, labels);
    if (labels->spec() != spec_) return {};  // a teacher labels these crops
    auto* const values = reinterpret_cast<float*>(labels->values());
    const size_t c = spec_.num_classes;
    for (size_t n = image * step.pass.crops; n < (image + 1) * step.pass.crops; ++n) {
      auto pooled = PoolLabelMap(map, labels->boxes()[n], {values + n * c, c});
      if (!pooled) return Fail(reader_.About(ordinal, std::move(pooled).error()));
    }
    return {};
  }
  Result<void> CheckInput(const InputSpec&) const override { return {}; }

 private:
  const Reader& reader_;
  FreshCrops crops_;
  std::vector<uint64_t> images_;
  LabelSpec spec_;
};

}  // namespace

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
