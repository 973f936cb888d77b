// SPDX-License-Identifier: Apache-2.0
#include "format/label_spec.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace fkdb {
namespace {

template <class Enum>
struct Named {
  Enum value;
  std::string_view name;
};

constexpr std::array kKinds = {
    Named<LabelKind>{LabelKind::kFull, "full"},
    Named<LabelKind>{LabelKind::kHard, "hard"},
    Named<LabelKind>{LabelKind::kSmoothing, "smoothing"},
    Named<LabelKind>{LabelKind::kMarginalSmoothing, "marginal-smoothing"},
    Named<LabelKind>{LabelKind::kMarginalRenorm, "marginal-renorm"},
    Named<LabelKind>{LabelKind::kLogits, "logits"},
    Named<LabelKind>{LabelKind::kLabelMap, "label-map"},
};
constexpr std::array kBoxes = {
    Named<BoxEncoding>{BoxEncoding::kPixel, "pixel"},
    Named<BoxEncoding>{BoxEncoding::kFractionF32, "fraction-f32"},
    Named<BoxEncoding>{BoxEncoding::kFractionF16, "fraction-f16"},
    Named<BoxEncoding>{BoxEncoding::kGrid, "grid"},
};
constexpr std::array kValues = {
    Named<ValueEncoding>{ValueEncoding::kF32, "f32"},
    Named<ValueEncoding>{ValueEncoding::kF16, "f16"},
    Named<ValueEncoding>{ValueEncoding::kBf16, "bf16"},
    Named<ValueEncoding>{ValueEncoding::kPacked, "packed"},
};

template <class Table, class Enum>
std::string_view NameIn(const Table& table, Enum value) {
  for (const auto& entry : table) {
    if (entry.value == value) return entry.name;
  }
  return "unknown";
}

template <class Enum, class Table>
Result<Enum> ParseIn(const Table& table, std::string_view what, std::string_view name) {
  std::string known;
  for (const auto& entry : table) {
    if (entry.name == name) return entry.value;
    known += known.empty() ? "" : ", ";
    known += entry.name;
  }
  return Fail(ErrorCode::kUnsupported,
              fmt::format("{} '{}' is not known to this version of fkdb; it knows {}", what, name, known));
}

}  // namespace

std::string_view Name(LabelKind kind) { return NameIn(kKinds, kind); }
std::string_view Name(BoxEncoding encoding) { return NameIn(kBoxes, encoding); }
std::string_view Name(ValueEncoding encoding) { return NameIn(kValues, encoding); }

Result<LabelKind> ParseLabelKind(std::string_view name) {
  return ParseIn<LabelKind>(kKinds, "label kind", name);
}
Result<BoxEncoding> ParseBoxEncoding(std::string_view name) {
  return ParseIn<BoxEncoding>(kBoxes, "box encoding", name);
}
Result<ValueEncoding> ParseValueEncoding(std::string_view name) {
  return ParseIn<ValueEncoding>(kValues, "value encoding", name);
}

Result<LabelSpec> CheckLabelSpec(LabelSpec spec) {
  const auto bad = [](std::string message) {
    return Fail(ErrorCode::kInvalidArgument, std::move(message));
  };
  if (spec.num_classes < 1 || spec.num_classes > kMaxClasses) {
    return bad(fmt::format("{} classes: expected 1 to {}", spec.num_classes, kMaxClasses));
  }
  if (!(spec.temperature > 0) || !std::isfinite(spec.temperature)) {
    return bad(fmt::format("temperature {}: expected a positive number", spec.temperature));
  }
  switch (spec.kind) {
    case LabelKind::kFull:
    case LabelKind::kLogits:
      spec.top_k = 0;
      break;
    case LabelKind::kHard:
    case LabelKind::kSmoothing:
      spec.top_k = 1;
      break;
    case LabelKind::kMarginalSmoothing:
    case LabelKind::kMarginalRenorm:
    case LabelKind::kLabelMap:
      if (spec.top_k < 1 || spec.top_k > spec.num_classes) {
        return bad(fmt::format("top-k {}: expected 1 to the number of classes, {}", spec.top_k,
                               spec.num_classes));
      }
      break;
  }
  if (spec.is_map() != (spec.boxes == BoxEncoding::kGrid)) return bad("boxes 'grid' are those of label maps, and of label maps alone");
  if (spec.is_map()) {
    if (spec.grid_height < 1 || spec.grid_width < 1 || uint64_t{spec.grid_height} * spec.grid_width > kMaxCropsPerImage) {
      return bad(fmt::format("label maps of {} x {} cells: expected 1 to {} in all", spec.grid_height, spec.grid_width, kMaxCropsPerImage));
    }
    if (spec.values != ValueEncoding::kF32 && spec.values != ValueEncoding::kF16) {
      return bad(fmt::format("label maps as {}: their scores are stored as f32 or f16", Name(spec.values)));
    }
  } else if (spec.grid_height != 0 || spec.grid_width != 0) {
    return bad("a grid is for label maps only");
  }
  if (spec.is_map() && spec.temperature != 1) return bad("label maps hold scores before softmax: there is no temperature to them");
  if (spec.kind == LabelKind::kLogits && spec.temperature != 1) {
    return bad("logits are stored before softmax: their temperature is chosen at training time");
  }
  if (spec.kind != LabelKind::kLogits && spec.values == ValueEncoding::kBf16) {
    return bad("values bf16 are for logits only: 8 bits of precision are too few for probabilities");
  }
  return spec;
}

uint64_t RecordBytesBound(const LabelSpec& spec, uint64_t crops) {
  // 512: table, skip reason and ops excluded, vector headers and padding; boxes at their widest.
  // Packed indices take no more bits than a class index, with or without a palette.
  const uint64_t index_bytes = spec.packed() || spec.wide_indices() ? 4 : 2;
  const uint64_t value_bytes = spec.values == ValueEncoding::kF32 ? 4 : spec.packed() ? 1 : 2;
  const uint64_t crop_bytes = 1 + 16 + index_bytes * spec.num_indices() + value_bytes * spec.num_values();
  return 512 + crops * (crop_bytes + (spec.packed() ? 8 : 0));
}

}  // namespace fkdb
