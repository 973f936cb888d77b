// SPDX-License-Identifier: Apache-2.0
// Internal to format/: which columns a layer of crops has. Columns that a record does not need stay empty.
//
//   bits          pixel boxes and flips (box_code.h), or flips alone; none of a label map, or where they were drawn
//   box planes    fractions: 4 numbers x 4 or 2 bytes
//   ranks         min(K, kMaxSeparate): of index k; the last also of all behind it, crop after crop. 255: see `escapes`
//   escapes       ranks of 255 and more, 4 bytes
//   packed        tail; min(K - 1, kMaxSeparate) of ratios, the last also of all behind it | codes of full and logits
//                 | before those of logits 8 planes of largest and step
//   else          min(K, kMaxSeparate) times, of full and logits once, as many planes as a value has bytes
//   op counts     2 planes: words of each crop, where the image has operations
//   op words      4 planes
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "format/label_spec.h"
#include "format/packed.h"

namespace fkdb {

constexpr uint32_t kMaxSeparate = 16;
constexpr uint8_t kEscapedRank = 255;
constexpr uint32_t kMaxSide = 1u << 31;  // pixels, so that the number of places of a box fits 64 bits

enum HeadColumn : size_t {
  kHeadFields,    // planes of as many bytes as there are images: width 4, height 4, class 4, crops 2, palette size 4, flags 1, reason 2
  kHeadHashes,    // content hashes, 16 bytes each
  kHeadPalette,   // 3 columns: the classes' lowest, middle and upper bytes
  kHeadReasons = kHeadPalette + 3,  // why images were skipped, one behind the other
};
// An image of kHeadFields.
struct HeadFields {
  uint32_t width = 0, height = 0, class_index = 0, crops = 0, palette = 0, flags = 0, reason = 0;

  // each(field, bytes) in their order.
  template <class Each>
  static void ForEach(Each each) {
    each(&HeadFields::width, 4);
    each(&HeadFields::height, 4);
    each(&HeadFields::class_index, 4);
    each(&HeadFields::crops, 2);
    each(&HeadFields::palette, 4);
    each(&HeadFields::flags, 1);
    each(&HeadFields::reason, 2);
  }
};
constexpr size_t kHeadFieldBytes = 4 + 4 + 4 + 2 + 4 + 1 + 2;

// Whether the ranks of an image with such a palette are counted among those that the crop's ranks before left over.
inline bool RanksExclude(const LabelSpec& spec, size_t palette) {
  return spec.num_indices() > 1 && spec.num_indices() <= kMaxSeparate && palette <= kEscapedRank;
}

// An image's flags.
constexpr uint8_t kDrawnFlag = 1;     // boxes and flips are those that the recipe's seed stands for
constexpr uint8_t kExpectedFlag = 2;  // all widths lie in the recipe's range
constexpr uint8_t kOpsFlag = 4;
constexpr uint8_t kAllFlags = 7;

struct CropLayout {
  size_t box_planes = 0;    // bytes of a box
  size_t ranks = 0;         // columns
  size_t tail = 0;          // 0 or 1
  size_t ratios = 0;        // columns
  size_t code_heads = 0;    // planes before the codes: of logits
  size_t codes = 0;         // 0 or 1
  size_t value_groups = 0;  // columns of value_bytes planes each
  size_t value_bytes = 0;
  // Where they begin; the bits are column 0.
  size_t box_at = 1, rank_at = 0, value_at = 0, op_at = 0, all = 0;

  explicit CropLayout(const LabelSpec& spec) {
    box_planes = spec.boxes == BoxEncoding::kFractionF32 ? 16 : spec.boxes == BoxEncoding::kFractionF16 ? 8 : 0;
    ranks = std::min(spec.num_indices(), kMaxSeparate);
    const bool coded = spec.packed() && spec.num_values() > 0;
    if (coded && spec.num_indices() > 0) {
      tail = spec.has_tail() ? 1 : 0;
      ratios = std::min(spec.top_k - 1, kMaxSeparate);
    } else if (coded) {
      code_heads = spec.kind == LabelKind::kLogits ? 8 : 0;
      codes = 1;
    } else if (spec.num_values() > 0) {
      value_groups = spec.num_indices() > 0 ? ranks : 1;
      value_bytes = spec.values == ValueEncoding::kF32 ? 4 : 2;
    }
    rank_at = box_at + box_planes;
    value_at = rank_at + ranks + (ranks > 0 ? 1 : 0);
    op_at = value_at + tail + ratios + code_heads + codes + value_groups * value_bytes;
    all = op_at + 6;
  }
  // The column of number k of a crop's, of so many columns.
  static size_t Of(size_t k, size_t columns) { return std::min(k, columns - 1); }
};

}  // namespace fkdb
