// SPDX-License-Identifier: Apache-2.0
#include "reader/audit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

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

constexpr size_t kEntropyBins = 10;

// Counts what labels are like, crop by crop and image by image.
class Quality {
 public:
  explicit Quality(const LabelSpec& spec)
      : spec_(spec), histogram_(kEntropyBins), top1_crops_(spec.kind == LabelKind::kLogits || spec.is_map() ? 0 : spec.num_classes) {}

  void AddCrop(uint32_t top1, double entropy, std::span<const uint32_t> indices) {
    const double largest = std::log(std::max(2u, spec_.num_classes));
    const auto bin = static_cast<size_t>(entropy / largest * kEntropyBins);
    ++histogram_[std::min(bin, kEntropyBins - 1)];
    ++top1_crops_[top1];
    named_.insert(named_.end(), indices.begin(), indices.end());
  }
  void EndImage(const RecordView& record) {
    std::sort(named_.begin(), named_.end());
    distinct_ += static_cast<uint64_t>(std::unique(named_.begin(), named_.end()) - named_.begin());
    named_.clear();
    labelled_ += !record.skipped();
    contents_.push_back(record.content_hash());
  }
  void Report(AuditReport* report) {
    report->entropy_histogram = histogram_;
    std::vector<uint64_t> crops;
    std::copy_if(top1_crops_.begin(), top1_crops_.end(), std::back_inserter(crops), [](uint64_t n) { return n > 0; });
    std::sort(crops.begin(), crops.end());
    report->classes_seen = crops.size();
    if (!crops.empty()) {
      report->fewest_crops = crops.front();
      report->median_crops = crops[crops.size() / 2];
      report->most_crops = crops.back();
    }
    report->distinct_classes = labelled_ > 0 ? static_cast<double>(distinct_) / static_cast<double>(labelled_) : 0;
    std::erase(contents_, ContentHash{});  // of files that nobody hashed
    std::sort(contents_.begin(), contents_.end());
    report->duplicate_images = static_cast<uint64_t>(contents_.end() - std::unique(contents_.begin(), contents_.end()));
  }

 private:
  const LabelSpec& spec_;
  std::vector<uint64_t> histogram_, top1_crops_;
  std::vector<uint32_t> named_;  // of the image at hand
  uint64_t distinct_ = 0, labelled_ = 0;
  std::vector<ContentHash> contents_;
};

}  // namespace

std::vector<AuditReport::Table2Row> Table2(double images, double crops_per_image, double num_classes, double cells) {
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
  const auto add_map = [&](std::string kind, double numbers) {  // one an image, without boxes
    rows.push_back({std::move(kind), crops_per_image > 0 ? cells * numbers / crops_per_image : 0, images * cells * numbers * kNumberBytes});
  };
  if (num_classes >= 5) add_map("label map K=5", 10);
  add_map("label map full", num_classes);
  return rows;
}

Result<AuditReport> Audit(const Reader& reader) {
  AuditReport report;
  const LabelSpec& spec = reader.spec();
  FKDB_ASSIGN(const FileUse use, reader.label_set().Use());
  uint64_t boxes = 0, flips = 0, indices = 0, value_bits = 0, ops = 0;  // bits
  std::vector<uint32_t> index(spec.num_indices());
  std::vector<float> values(spec.num_values());
  Quality quality(spec);
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
    const uint32_t labels = spec.kind == LabelKind::kLogits || spec.is_map() ? 0 : record.num_crops();
    for (uint32_t crop = 0; crop < labels; ++crop) {
      PixelBox box;
      if (auto read = record.ReadCrop(crop, &box, index.data(), values.data()); !read) {
        return Fail(reader.About(ordinal, std::move(read).error()));
      }
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
      quality.AddCrop(top1, entropy, index);
    }
    quality.EndImage(record);
  }
  quality.Report(&report);
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
  const double per_image = images > 0 ? static_cast<double>(report.crops) / images : 0;
  report.table2 = spec.is_map() ? Table2(images, per_image, spec.num_classes, spec.num_cells()) : Table2(images, per_image, spec.num_classes);
  for (const auto& [name, count] : {std::pair<const char*, uint64_t>{"ImageNet-1K", 1281167}, {"ImageNet-21K", 14197122}}) {
    report.projections.push_back({name, count, static_cast<double>(count) * per_image * report.bytes_per_crop});
  }
  report.table2_bytes_per_crop = (LabelNumbers(spec) + (spec.is_map() ? 0 : kBoxAndFlip)) * kNumberBytes;
  return report;
}

std::string ToJson(const AuditReport& r) {
  nlohmann::ordered_json json = {{"file_bytes", r.file_bytes}, {"images", r.images},   {"skipped", r.skipped},
                                 {"crops", r.crops},           {"bytes_per_crop", r.bytes_per_crop}};
  for (const auto& part : r.parts) json["parts"][part.name] = part.bytes;
  for (const auto& row : r.table2) {
    json["table2"][row.kind] = {{"numbers_per_crop", row.numbers_per_crop}, {"bytes", row.bytes}};
  }
  json["table2_bytes_per_crop"] = r.table2_bytes_per_crop;
  json["teacher"] = {{"agreement", r.teacher_agreement}, {"labelled_crops", r.labelled_crops},
                     {"entropy_nats", r.mean_entropy},   {"top1", r.mean_top1},
                     {"tail", r.mean_tail},
                     {"entropy_histogram", r.entropy_histogram},
                     {"classes_seen", r.classes_seen},
                     {"crops_per_class", {{"fewest", r.fewest_crops}, {"median", r.median_crops}, {"most", r.most_crops}}},
                     {"distinct_classes_per_image", r.distinct_classes},
                     {"duplicate_images", r.duplicate_images}};
  for (const auto& projection : r.projections) {
    json["projection"][projection.data_set] = {{"images", projection.images}, {"bytes", projection.bytes}};
  }
  return json.dump();
}

}  // namespace fkdb
