// SPDX-License-Identifier: Apache-2.0
#include "format/crop_op.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>

namespace fkdb {
namespace {

const std::vector<OpInfo>& Infos() {
  static const std::vector<OpInfo> infos = {
      {"brightness", false, {"factor"}},
      {"contrast", false, {"factor"}},
      {"saturation", false, {"factor"}},
      {"hue", false, {"shift"}},
      {"sharpness", false, {"factor"}},
      {"shear-x", false, {"degrees"}},
      {"shear-y", false, {"degrees"}},
      {"translate-x", false, {"pixels"}},
      {"translate-y", false, {"pixels"}},
      {"rotate", false, {"degrees"}},
      {"posterize", false, {"bits"}},
      {"solarize", false, {"threshold"}},
      {"auto-contrast", false, {}},
      {"equalize", false, {}},
      {"invert", false, {}},
      {"grayscale", false, {}},
      {"blur", false, {"sigma"}},
      {"erase", false, {"top", "left", "height", "width"}},
      {"mixup", true, {"lambda"}},
      {"cutmix", true, {"lambda", "top", "left", "height", "width"}},
      {"partner-crop", false, {"top", "left", "height", "width", "flip"}},
      {"replay", false, {"seed_high", "seed_low"}},
      {"listed", false, {"index", "applied", "value"}},
  };
  return infos;
}

size_t WordsOf(const OpInfo& info) { return (info.has_partner ? 2 : 0) + info.values.size(); }

Result<void> CheckOp(const OpInfo& info, const CropOp& op) {
  for (size_t i = 0; i < info.values.size(); ++i) {
    const float v = op.values[i];
    const std::string_view name = info.values[i];
    const bool side = name == "height" || name == "width";
    const bool truth = name == "flip" || name == "applied";
    const bool bits = name == "seed_high" || name == "seed_low";
    const bool good = std::isfinite(v) && (name != "lambda" || (v >= 0 && v <= 1)) && (!(name == "top" || name == "left") || v >= 0) &&
                      (!side || v > 0) && (!truth || v == 0 || v == 1) && (!bits || (v >= 0 && v <= 65535 && v == std::trunc(v)));
    if (!good) return Fail(ErrorCode::kCorruption, fmt::format("operation {}: {} is {}", info.name, name, v));
  }
  return {};
}

}  // namespace

const OpInfo* InfoOf(OpKind kind) {
  const auto at = static_cast<size_t>(kind);
  return at < Infos().size() ? &Infos()[at] : nullptr;
}

void AppendOpWords(std::span<const CropOp> ops, std::vector<uint32_t>* words) {
  for (const CropOp& op : ops) {
    const OpInfo& info = *InfoOf(op.kind);
    words->push_back(static_cast<uint32_t>(op.kind) | static_cast<uint32_t>(WordsOf(info)) << 16);
    if (info.has_partner) {
      words->push_back(static_cast<uint32_t>(op.partner));
      words->push_back(static_cast<uint32_t>(op.partner >> 32));
    }
    for (size_t i = 0; i < info.values.size(); ++i) words->push_back(std::bit_cast<uint32_t>(op.values[i]));
  }
}

Result<std::vector<CropOp>> ParseOpWords(std::span<const uint32_t> words) {
  std::vector<CropOp> ops;
  while (!words.empty()) {
    CropOp op;
    op.kind = static_cast<OpKind>(words[0] & 0xffff);
    const size_t count = words[0] >> 16;
    words = words.subspan(1);
    const OpInfo* info = InfoOf(op.kind);
    if (info == nullptr) {
      return Fail(ErrorCode::kUnsupported,
                  fmt::format("operation {} is not known to this version of fkdb", static_cast<unsigned>(op.kind)));
    }
    if (count != WordsOf(*info) || count > words.size()) {
      return Fail(ErrorCode::kCorruption, fmt::format("operation {}: {} words, expected {} of the {} left", info->name,
                                                      count, WordsOf(*info), words.size()));
    }
    if (ops.size() == kMaxOpsPerCrop) {
      return Fail(ErrorCode::kCorruption, fmt::format("more than {} operations", kMaxOpsPerCrop));
    }
    size_t at = 0;
    if (info->has_partner) {
      op.partner = words[0] | uint64_t{words[1]} << 32;
      at = 2;
    }
    for (size_t i = 0; i < info->values.size(); ++i) op.values[i] = std::bit_cast<float>(words[at + i]);
    FKDB_TRY(CheckOp(*info, op));
    words = words.subspan(count);
    ops.push_back(op);
  }
  return ops;
}

}  // namespace fkdb
