// SPDX-License-Identifier: Apache-2.0
// What the labels of one label set are: their kind (paper section 3.5) and how they are stored.
// One spec holds for every record of a label set; the manifest carries it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "format/result.h"

namespace fkdb {

// C classes, p = softmax(z / temperature) of the teacher's logits z, K = top_k.
enum class LabelKind : uint8_t {
  kFull,               // C values p
  kHard,               // the index of the largest p (Eq. 3)
  kSmoothing,          // that index and its p (Eq. 4)
  kMarginalSmoothing,  // K indices and their p, p descending (Eq. 5)
  kMarginalRenorm,     // the same bytes, recovered as p / sum of the K (Eq. 6, 7)
  kLogits,             // C values z, before softmax (section 3.4, self-supervised teachers)
  kLabelMap,           // K indices and their scores, before softmax, for each cell of a grid over the image (ReLabel):
                       // a record's crops are the cells, row by row
};

// How boxes are stored: whole pixels, or fractions of the image's sides (imports).
enum class BoxEncoding : uint8_t {
  kPixel,
  kFractionF32,
  kFractionF16,
  kGrid,  // not at all: a label map's cells, grid_height x grid_width over the whole image
};

// How values are stored. kPacked is an encoding of the whole crop: box, flip, indices and coded
// values in as few bits as the image needs (format/packed.h).
enum class ValueEncoding : uint8_t {
  kF32,
  kF16,
  kBf16,    // logits only
  kPacked,
};

struct LabelSpec {
  LabelKind kind = LabelKind::kMarginalSmoothing;
  uint32_t num_classes = 0;  // C; for logits the width D of the teacher's output
  uint32_t top_k = 0;        // K of the marginal kinds; 1 for hard and smoothing; 0 for full, logits
  BoxEncoding boxes = BoxEncoding::kPixel;
  ValueEncoding values = ValueEncoding::kPacked;
  float temperature = 1;     // of the softmax that made p; 1 for logits and label maps
  uint32_t grid_height = 0;  // of label maps
  uint32_t grid_width = 0;

  bool operator==(const LabelSpec&) const = default;

  // Indices and values a crop holds.
  uint32_t num_indices() const {
    return kind == LabelKind::kFull || kind == LabelKind::kLogits ? 0 : top_k;
  }
  uint32_t num_values() const {
    if (kind == LabelKind::kHard) return 0;
    return num_indices() == 0 ? num_classes : top_k;
  }
  uint32_t num_cells() const { return grid_height * grid_width; }
  bool is_map() const { return kind == LabelKind::kLabelMap; }
  bool packed() const { return values == ValueEncoding::kPacked; }
  // Outside packed records indices are u16 as long as they fit.
  bool wide_indices() const { return num_classes > 65536; }
  // Stored probabilities leave some to the classes outside the K (Eq. 4, 5).
  bool has_tail() const {
    return (kind == LabelKind::kSmoothing || kind == LabelKind::kMarginalSmoothing) && top_k < num_classes;
  }
};

constexpr uint32_t kMaxClasses = 1u << 24;
constexpr uint32_t kMaxCropsPerImage = 65535;
constexpr uint64_t kMaxRecordBytes = 1ull << 30;

// The spec with top_k set as its kind wants it, or what is wrong with it (InvalidArgument).
Result<LabelSpec> CheckLabelSpec(LabelSpec spec);

// An upper bound of a record's size for `crops` crops, whatever the image.
uint64_t RecordBytesBound(const LabelSpec& spec, uint64_t crops);

// Names as users and the manifest spell them: "marginal-smoothing", "fraction-f32", "f16".
// Parsing an unknown name is Unsupported: a newer version may know it.
std::string_view Name(LabelKind kind);
std::string_view Name(BoxEncoding encoding);
std::string_view Name(ValueEncoding encoding);
Result<LabelKind> ParseLabelKind(std::string_view name);
Result<BoxEncoding> ParseBoxEncoding(std::string_view name);
Result<ValueEncoding> ParseValueEncoding(std::string_view name);

}  // namespace fkdb
