// SPDX-License-Identifier: Apache-2.0
#include "reader/audit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "format/recover.h"

namespace fkdb {
namespace {

constexpr double kBoxAndFlip = 5;  // numbers a crop: the paper's D_DA
constexpr double kNumberBytes = 4;

double LabelNumbers(const LabelSpec& spec) {
  return spec.kind == LabelKind::kHard ? 1.0 : double{1} * spec.num_indices() + spec.num_values();
}

// Entropy of the recovered label in nats, and the mass outside the stored K.
void MeasureLabel(const LabelSpec& spec, std::span<const float> values, double* entropy, double* tail) {
  const TailRule rule = TailOf(spec, values);
  const auto term = [](double p) { return p > 0 ? -p * std::log(p) : 0.0; };
  double sum = 0;
  *entropy = 0;
  for (const float value : values) {
    const double p = double{rule.scale} * value;
    sum += p;
    *entropy += term(p);
  }
  if (spec.kind == LabelKind::kHard) sum = 1;
  if (!values.empty() && spec.num_indices() > 0) *entropy += (spec.num_classes - spec.top_k) * term(rule.tail);
  *tail = std::max(0.0, 1 - sum);
}

}  // namespace

std::vector<AuditReport::Table2Row> Table2(double images, double crops_per_image, double num_classes) {
  std::vector<AuditReport::Table2Row> rows;
  const auto add = [&](std::string kind, double label_numbers) {
    const double numbers = label_numbers + kBoxAndFlip;
    rows.push_back({std::move(kind), numbers, images * crops_per_image * numbers * kNumberBytes});
  };
  add("hard", 1);
  add("smoothing", 2);
  if (num_classes >= 5) add("marginal K=5", 10);
  if (num_classes >= 10) add("marginal K=10", 20);
  add("full", num_classes);
  return rows;
}

Result<AuditReport> Audit(const Reader& reader) {
  AuditReport report;
  const LabelSpec& spec = reader.spec();
  FKDB_ASSIGN(const FileUse use, reader.file().Use());
  uint64_t boxes = 0, flips = 0, indices = 0, value_bits = 0, ops = 0;  // bits
  std::vector<uint32_t> index(spec.num_indices());
  std::vector<float> values(spec.num_values());
  for (uint64_t ordinal = 0; ordinal < reader.num_images(); ++ordinal) {
    FKDB_ASSIGN(const RecordView record, reader.Get(ordinal));
    ++report.images;
    report.skipped += record.skipped();
    report.crops += record.num_crops();
    const RecordView::PartBits bits = record.CountBits();
    boxes += bits.boxes;
    flips += bits.flips;
    indices += bits.indices;
    value_bits += bits.values;
    ops += bits.ops;
    if (spec.kind == LabelKind::kLogits) continue;
    for (uint32_t crop = 0; crop < record.num_crops(); ++crop) {
      if (auto valid = record.ValidateCrop(crop); !valid) return Fail(reader.About(ordinal, std::move(valid).error()));
      if (!index.empty()) record.CopyIndices(crop, index.data());
      if (!values.empty()) record.CopyValues(crop, values.data());
      const auto largest = std::max_element(values.begin(), values.end());
      const auto top1 = static_cast<uint32_t>(index.empty() ? largest - values.begin() : index[0]);
      double entropy, tail;
      MeasureLabel(spec, values, &entropy, &tail);
      report.mean_entropy += entropy;
      report.mean_tail += tail;
      report.mean_top1 += values.empty() ? 1 : *largest;
      if (record.class_index() != kNoClass) {
        ++report.labelled_crops;
        report.teacher_agreement += top1 == static_cast<uint32_t>(record.class_index());
      }
    }
  }
  const double crops = std::max<double>(1, static_cast<double>(report.crops));
  report.mean_entropy /= crops;
  report.mean_tail /= crops;
  report.mean_top1 /= crops;
  report.teacher_agreement /= std::max<double>(1, static_cast<double>(report.labelled_crops));

  report.file_bytes = use.file_bytes;
  report.bytes_per_crop = static_cast<double>(use.file_bytes) / crops;
  report.parts = {{"boxes", boxes / 8}, {"flips", flips / 8}, {"indices", indices / 8}, {"values", value_bits / 8}};
  if (ops > 0) report.parts.push_back({"operations", ops / 8});
  uint64_t headers = use.record_bytes;
  for (const AuditReport::Part& part : report.parts) headers -= part.bytes;
  const AuditReport::Part rest[] = {{"record headers", headers},
                                    {"block directories", use.directory_bytes},
                                    {"names", use.names_bytes},
                                    {"manifest", use.manifest_bytes},
                                    {"lmdb pages", use.lmdb_bytes},
                                    {"page waste", use.waste_bytes}};
  report.parts.insert(report.parts.end(), std::begin(rest), std::end(rest));

  const double images = static_cast<double>(report.images - report.skipped);
  report.table2 = Table2(images, images > 0 ? static_cast<double>(report.crops) / images : 0, spec.num_classes);
  report.table2_bytes_per_crop = (LabelNumbers(spec) + kBoxAndFlip) * kNumberBytes;
  return report;
}

}  // namespace fkdb
