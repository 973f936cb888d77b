// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/export_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "format/record.h"
#include "format/text.h"

namespace fkdb {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kRowsAtOnce = 1 << 16;

void AddRows(const LabelSpec& spec, const std::string& key, const Record& record, TableRows* rows) {
  for (uint32_t i = 0; i < record.num_crops(); ++i) {
    rows->keys.push_back(key);
    if (rows->pixel_boxes) {
      const PixelBox& b = record.pixel_boxes[i];
      for (const uint32_t n : {b.top, b.left, b.height, b.width}) rows->pixels.push_back(static_cast<int32_t>(n));
    } else {
      const FractionBox& b = record.fraction_boxes[i];
      rows->fractions.insert(rows->fractions.end(), {b.top, b.left, b.height, b.width});
    }
  }
  rows->flips.insert(rows->flips.end(), record.flips.begin(), record.flips.end());
  for (const uint32_t index : record.indices) rows->indices.push_back(static_cast<int32_t>(index));
  if (spec.kind != LabelKind::kHard) rows->values.insert(rows->values.end(), record.values.begin(), record.values.end());
}

TableRows EmptyRows(const LabelSpec& spec) {
  TableRows rows;
  rows.pixel_boxes = spec.boxes == BoxEncoding::kPixel;
  rows.half_boxes = spec.boxes == BoxEncoding::kFractionF16;
  rows.num_indices = spec.num_indices();
  rows.num_values = spec.num_values();
  rows.half_values = spec.values == ValueEncoding::kF16;
  return rows;
}

}  // namespace

Result<ExportSummary> ExportTable(const LabelSet& set, TableWriter* writer, const ExportOptions& options) {
  FKDB_ASSIGN(const std::vector<std::string> keys, set.AllKeys());
  const LabelSpec& spec = set.manifest().spec;
  if (spec.is_map()) return Fail(ErrorCode::kUnsupported, fmt::format("{}: label maps have no form in a table: its rows are crops", set.path().string()));
  const auto begun = Clock::now();
  ExportSummary summary;
  TableRows rows = EmptyRows(spec);
  for (uint64_t i = 0; i < keys.size(); ++i) {
    const auto in = [&](const Error& error) { return Fail(error.code, fmt::format("{}: image '{}': {}", set.path().string(), Printable(keys[i]), error.message)); };
    if (options.stop && options.stop->load()) {
      summary.interrupted = true;
      return summary;
    }
    const auto bytes = set.RecordBytes(i);
    if (!bytes) return in(bytes.error());
    const auto view = RecordView::Open(*bytes, spec);
    if (!view) return in(view.error());
    if (view->skipped()) {
      ++summary.skipped;
      continue;
    }
    const auto record = DecodeRecord(*view);
    if (!record) return in(record.error());
    if (std::any_of(record->ops.begin(), record->ops.end(), [](const auto& ops) { return !ops.empty(); })) {
      return in({ErrorCode::kUnsupported, "its crops have augmentation besides crop and flip, for which the table has no column"});
    }
    AddRows(spec, keys[i], *record, &rows);
    ++summary.images;
    summary.crops += record->num_crops();
    if (rows.size() >= kRowsAtOnce) {
      if (writer) FKDB_TRY(writer->Append(std::move(rows)));
      rows = EmptyRows(spec);
      if (options.progress) options.progress(i + 1, keys.size());
    }
  }
  if (writer) {
    FKDB_TRY(writer->Append(std::move(rows)));
    FKDB_TRY(writer->Finish());
  }
  summary.seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  return summary;
}

}  // namespace fkdb
