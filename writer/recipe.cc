// SPDX-License-Identifier: Apache-2.0
#include "writer/recipe.h"

#include <fmt/format.h>

#include "db/sha256.h"

namespace fkdb {

Result<void> CheckRecordSize(const LabelSpec& spec, uint64_t crops) {
  const uint64_t bound = RecordBytesBound(spec, crops);
  if (bound <= kMaxRecordBytes) return {};
  return Fail(ErrorCode::kResourceExhausted,
              fmt::format("{} crops of {} labels take up to {} bytes an image: at most {}; store fewer crops or a smaller top-k", crops,
                          Name(spec.kind), bound, kMaxRecordBytes));
}

DataSetInfo Describe(const DataSet& data, bool use_classes) {
  DataSetInfo info;
  info.name = data.name();
  info.layout = data.layout();
  info.num_images = data.size();
  info.channels = data.channels();
  info.key_list_sha256 = Sha256OfKeys(data.keys());
  if (use_classes) info.class_names = data.class_names();
  return info;
}

Result<InputSpec> InputOf(const AugmentationInfo& a) {
  FKDB_ASSIGN(const Interpolation interpolation, ParseInterpolation(a.interpolation));
  FKDB_ASSIGN(const PassOrder pass_order, ParsePassOrder(a.resampling));
  return InputSpec{a.input_height, a.input_width, interpolation, a.mean, a.std, pass_order};
}

Result<void> CheckLabelsAreOfCrops(const LabelSpec& spec) {
  if (!spec.is_map()) return {};
  return Fail(ErrorCode::kUnsupported, "label maps are not labels of crops: fkdb-write --label label-map makes them");
}

}  // namespace fkdb
