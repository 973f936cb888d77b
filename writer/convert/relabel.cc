// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/relabel.h"

#include <fmt/format.h>

#include "writer/convert/file_source.h"

namespace fkdb {

Result<ImageLabels> ParseRelabel(const PickleValue& root) {
  const bool is_array = root.type() == PickleValue::Type::kArray;
  const auto shape = is_array ? root.array().shape() : std::vector<uint64_t>();
  const bool good = shape.size() == 4 && shape[0] == 2 && IsFloat(root.array().dtype()) && root.array().size() > 0 && shape[1] <= kMaxClasses &&
                    shape[2] <= kMaxCropsPerImage && shape[3] <= kMaxCropsPerImage / shape[2];
  if (!good) return Fail(ErrorCode::kCorruption, fmt::format("{}, expected floats (2, K, H, W): scores and classes", root.What()));
  const Array& map = root.array();
  const size_t k = shape[1], cells = shape[2] * shape[3];
  ImageLabels labels;
  labels.form = LabelForm::kLabelMap;
  labels.num_values = static_cast<uint32_t>(k);
  labels.grid_height = static_cast<uint32_t>(shape[2]);
  labels.grid_width = static_cast<uint32_t>(shape[3]);
  labels.half_values = map.dtype() == DType::kF16;
  labels.flips.resize(cells);
  const std::vector<float> scores = map.Rows(0, 1).Floats();
  FKDB_ASSIGN(const std::vector<uint32_t> classes, ClassesOf(map.Rows(1, 1)));
  // From (K, cells) to (cells, K).
  labels.values.resize(cells * k);
  labels.indices.resize(cells * k);
  for (size_t i = 0; i < k; ++i) {
    for (size_t cell = 0; cell < cells; ++cell) {
      labels.values[cell * k + i] = scores[i * cells + cell];
      labels.indices[cell * k + i] = classes[i * cells + cell];
    }
  }
  return labels;
}

Result<std::unique_ptr<LabelSource>> OpenRelabel(const std::filesystem::path& root, const std::filesystem::path& folder, const LabelledImages& images) {
  return OpenLabelFiles(root, folder, images, ".pt", ParseRelabel);
}

}  // namespace fkdb
