// SPDX-License-Identifier: Apache-2.0
#include "format/recode.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "format/quantize.h"

namespace fkdb {
namespace {

bool Marginal(LabelKind kind) { return kind == LabelKind::kMarginalSmoothing || kind == LabelKind::kMarginalRenorm; }

bool Derivable(const LabelSpec& from, const LabelSpec& to) {
  if (from.kind == LabelKind::kLogits || to.kind == LabelKind::kLogits) return from.kind == to.kind;
  if (from.is_map() || to.is_map()) return from.kind == to.kind && from.top_k == to.top_k;
  if (to.kind == LabelKind::kHard || from.kind == LabelKind::kFull) return true;
  if (to.kind == LabelKind::kFull || to.top_k > from.top_k) return false;
  if (from.kind == LabelKind::kSmoothing) return to.kind == LabelKind::kSmoothing;
  // Packed renormalized values have lost what the other classes had.
  const bool lost_tail = from.kind == LabelKind::kMarginalRenorm && from.packed();
  return Marginal(from.kind) && (to.kind == LabelKind::kMarginalRenorm || !lost_tail);
}

}  // namespace

Result<LabelSpec> ParseRecode(const LabelSpec& from, std::string_view recode) {
  std::optional<LabelKind> kind;
  std::optional<ValueEncoding> values;
  std::optional<uint32_t> top_k;
  const auto bad = [&](std::string_view word) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("recode '{}': '{}' is not a kind, an encoding or top-k=K, or comes twice", recode, word));
  };
  for (size_t at = 0; at <= recode.size();) {
    const size_t end = std::min(recode.find(',', at), recode.size());
    const std::string_view word = recode.substr(at, end - at);
    at = end + 1;
    constexpr std::string_view kTopK = "top-k=";
    if (const auto parsed = ParseLabelKind(word); parsed && !kind) {
      kind = *parsed;
    } else if (const auto encoding = ParseValueEncoding(word); encoding && !values) {
      values = *encoding;
    } else if (word.starts_with(kTopK) && !top_k) {
      uint32_t k = 0;
      const char* last = word.data() + word.size();
      if (std::from_chars(word.data() + kTopK.size(), last, k).ptr != last || k == 0) return bad(word);
      top_k = k;
    } else {
      return bad(word);
    }
  }
  LabelSpec to = from;
  to.kind = kind.value_or(from.kind);
  to.values = values.value_or(from.values);
  to.top_k = top_k.value_or(from.top_k);
  if (from.kind == LabelKind::kFull && Marginal(to.kind) && !top_k) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("recode '{}': full labels have no K: add top-k=K", recode));
  }
  // A map is no label of a crop: what is wrong then is not the grid.
  if (from.is_map() == to.is_map()) {
    FKDB_ASSIGN(to, CheckLabelSpec(to));
  }
  if (!Derivable(from, to)) {
    const auto describe = [](const LabelSpec& spec) {
      return fmt::format("{}{} ({})", Name(spec.kind), Marginal(spec.kind) ? fmt::format(" of {}", spec.top_k) : "",
                         Name(spec.values));
    };
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} labels cannot be derived from {} labels: they do not hold enough", describe(to), describe(from)));
  }
  return to;
}

Record RecodeRecord(const LabelSpec& from, const LabelSpec& to, Record record) {
  const uint32_t crops = record.num_crops();
  std::vector<uint32_t> indices(size_t{crops} * to.num_indices());
  std::vector<float> values(size_t{crops} * to.num_values());
  for (uint32_t i = 0; i < crops; ++i) {
    const auto old_values = std::span(record.values).subspan(size_t{i} * from.num_values(), from.num_values());
    const auto new_indices = std::span(indices).subspan(size_t{i} * to.num_indices(), to.num_indices());
    const auto new_values = std::span(values).subspan(size_t{i} * to.num_values(), to.num_values());
    if (from.num_indices() == 0) {
      QuantizeCrop(to, old_values, new_indices, new_values);
    } else {  // the first of the K, which are in descending order
      std::copy_n(record.indices.begin() + static_cast<ptrdiff_t>(size_t{i} * from.num_indices()), to.num_indices(),
                  new_indices.begin());
      std::copy_n(old_values.begin(), to.num_values(), new_values.begin());
    }
  }
  record.indices = std::move(indices);
  record.values = std::move(values);
  return record;
}

Record FirstCrops(const LabelSpec& spec, Record record, uint32_t crops) {
  const size_t n = std::min(crops, record.num_crops());
  if (!record.pixel_boxes.empty()) record.pixel_boxes.resize(n);
  if (!record.fraction_boxes.empty()) record.fraction_boxes.resize(n);
  if (!record.ops.empty()) record.ops.resize(n);
  record.flips.resize(n);
  record.indices.resize(n * spec.num_indices());
  record.values.resize(n * spec.num_values());
  return record;
}

Record AppendCrops(Record record, const Record& more) {
  const uint32_t first = record.num_crops(), second = more.num_crops();
  if (!record.ops.empty() || !more.ops.empty()) {  // a record without operations has no list of them
    record.ops.resize(first);
    record.ops.insert(record.ops.end(), more.ops.begin(), more.ops.end());
    record.ops.resize(first + second);
  }
  const auto append = [](auto* to, const auto& from) { to->insert(to->end(), from.begin(), from.end()); };
  append(&record.pixel_boxes, more.pixel_boxes);
  append(&record.fraction_boxes, more.fraction_boxes);
  append(&record.flips, more.flips);
  append(&record.indices, more.indices);
  append(&record.values, more.values);
  return record;
}

}  // namespace fkdb
