// SPDX-License-Identifier: Apache-2.0
// fkdb-audit: where the bytes of a label set go, beside the paper's Table 2, and what the labels are
// like, alone or beside another's.
#include "reader/audit.h"

#include <fmt/format.h>

#include <cmath>

#include "tools/audit_compare.h"
#include "tools/cli.h"
#include "tools/programs.h"

namespace fkdb {
namespace {

std::string Table2Text(const std::vector<AuditReport::Table2Row>& rows) {
  std::string out = fmt::format("{:<20}{:>14}{:>10}\n", "label", "size", "a crop");
  for (const auto& row : rows) {
    out += fmt::format("{:<20}{:>14}{:>10.2f}\n", row.kind, HumanBytes(row.bytes), row.numbers_per_crop * 4);
  }
  return out;
}

// What the labels are like; nothing for logits, which are no labels yet.
std::string TeacherText(const AuditReport& r, const LabelSpec& spec) {
  if (spec.kind == LabelKind::kLogits || spec.is_map() || r.crops == 0) return "";
  std::string out = fmt::format("\nteacher: mean top-1 probability {:.3f}, entropy {:.3f} nats, mass outside the stored {:.4f}\n",
                                r.mean_top1, r.mean_entropy, r.mean_tail);
  if (r.labelled_crops > 0) {
    out += fmt::format("teacher's top-1 is the image's class in {:.2f}% of {} crops\n", 100 * r.teacher_agreement,
                       r.labelled_crops);
  }
  out += fmt::format("top-1 classes: {} of {}, with {} to {} crops each, median {}\n", r.classes_seen, spec.num_classes,
                     r.fewest_crops, r.most_crops, r.median_crops);
  if (r.distinct_classes > 0) out += fmt::format("classes named for an image: {:.1f} on average\n", r.distinct_classes);
  if (r.duplicate_images > 0) out += fmt::format("images that are copies of another: {}\n", r.duplicate_images);
  out += "entropy of the labels, nats\n";
  const double step = std::log(std::max(2u, spec.num_classes)) / static_cast<double>(r.entropy_histogram.size());
  for (size_t bin = 0; bin < r.entropy_histogram.size(); ++bin) {
    const double share = static_cast<double>(r.entropy_histogram[bin]) / static_cast<double>(r.crops);
    out += fmt::format("{:>6.2f} to {:>5.2f}{:>8.1f}%  {}\n", step * static_cast<double>(bin), step * static_cast<double>(bin + 1),
                       100 * share, std::string(static_cast<size_t>(share * 50 + 0.5), '#'));
  }
  return out;
}

std::string ToText(const AuditReport& r, const LabelSpec& spec) {
  const double crops = std::max<double>(1, static_cast<double>(r.crops));
  std::string out = fmt::format("{} images{}, {} crops, {}\n\n", r.images,
                                r.skipped ? fmt::format(" ({} skipped)", r.skipped) : "", r.crops,
                                HumanBytes(static_cast<double>(r.file_bytes)));
  out += fmt::format("{:<20}{:>14}{:>10}{:>9}\n", "part", "bytes", "a crop", "share");
  for (const auto& part : r.parts) {
    const auto bytes = static_cast<double>(part.bytes);
    out += fmt::format("{:<20}{:>14}{:>10.2f}{:>8.1f}%\n", part.name, part.bytes, bytes / crops,
                       100 * bytes / static_cast<double>(r.file_bytes));
  }
  out += fmt::format("{:<20}{:>14}{:>10.2f}\n\n", "file", r.file_bytes, r.bytes_per_crop);
  out += fmt::format("the paper's Table 2 for as many images, crops and classes (4 bytes a number, no file format)\n");
  out += Table2Text(r.table2);
  out += fmt::format("this label set: {:.2f} bytes a crop, {:.0f}% of the {:.0f} Table 2 counts for its kind\n",
                     r.bytes_per_crop, 100 * r.bytes_per_crop / r.table2_bytes_per_crop, r.table2_bytes_per_crop);
  for (const auto& projection : r.projections) {
    out += fmt::format("{} ({} images) would take {}\n", projection.data_set, projection.images, HumanBytes(projection.bytes));
  }
  return out + TeacherText(r, spec);
}

Result<int> Run(const CommonFlags& flags, const std::string& db, const std::vector<double>& table2_for, const CompareFlags& compare) {
  if (!compare.sets.empty()) {
    if (!db.empty() || !table2_for.empty()) return Fail(ErrorCode::kInvalidArgument, "--compare A B: name two label sets, and nothing else to audit");
    return RunCompare(compare, flags);
  }
  if (!table2_for.empty()) {
    FKDB_TRY(PrintOut(Table2Text(Table2(table2_for[0], table2_for[1], table2_for[2]))));
    return kExitOk;
  }
  if (db.empty()) return Fail(ErrorCode::kInvalidArgument, "name a label set, or --compare A B, or --table2-for N,M,C");
  LabelFileOptions options;
  options.allow_partial = true;
  FKDB_ASSIGN(const Reader reader, Reader::Open(db, options));
  FKDB_ASSIGN(const AuditReport report, Audit(reader));
  if (reader.label_set().partial() && !flags.quiet) {
    fmt::print(stderr, "fkdb-audit: {}: not finished: {} of {} images\n", db, report.images,
               reader.manifest().data_set.num_images);
  }
  FKDB_TRY(PrintOut(flags.json ? ToJson(report) + "\n" : ToText(report, reader.spec())));
  return kExitOk;
}

}  // namespace
}  // namespace fkdb

int fkdb::RunAudit(int argc, char** argv) {
  fkdb::CommonFlags flags;
  std::string db;
  CLI::App app("Counts the bytes of a label set by part, beside the paper's Table 2.", "fkdb-audit");
  AddCommonFlags(app, &flags, "One line of JSON");
  std::vector<double> table2_for;
  app.add_option("DB", db, "The label set (NAME.fkdb, or a NAME.fkdb.partial)");
  app.add_option("--table2-for", table2_for, "Only the paper's Table 2, for N images, M crops each and C classes: N,M,C")
      ->delimiter(',')
      ->expected(3)
      ->check(CLI::PositiveNumber);
  fkdb::CompareFlags compare;
  AddCompareFlags(app, &compare);
  return fkdb::RunTool(app, argc, argv, [&] { return fkdb::Run(flags, db, table2_for, compare); });
}
