// SPDX-License-Identifier: Apache-2.0
// fkdb-audit: where the bytes of a label set go, beside the paper's Table 2, and what the labels are
// like.
#include "reader/audit.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/cli.h"

namespace fkdb {
namespace {

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
                     {"tail", r.mean_tail}};
  return json.dump() + "\n";
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
  out += fmt::format("{:<20}{:>14}{:>10}\n", "label", "size", "a crop");
  for (const auto& row : r.table2) {
    out += fmt::format("{:<20}{:>14}{:>10.2f}\n", row.kind, HumanBytes(row.bytes), row.numbers_per_crop * 4);
  }
  out += fmt::format("this label set: {:.2f} bytes a crop, {:.0f}% of the {:.0f} Table 2 counts for its kind\n",
                     r.bytes_per_crop, 100 * r.bytes_per_crop / r.table2_bytes_per_crop, r.table2_bytes_per_crop);
  if (spec.kind == LabelKind::kLogits) return out;
  out += fmt::format("\nteacher: mean top-1 probability {:.3f}, entropy {:.3f} nats, mass outside the stored {:.4f}\n",
                     r.mean_top1, r.mean_entropy, r.mean_tail);
  if (r.labelled_crops > 0) {
    out += fmt::format("teacher's top-1 is the image's class in {:.2f}% of {} crops\n", 100 * r.teacher_agreement,
                       r.labelled_crops);
  }
  return out;
}

Result<int> Run(const CommonFlags& flags, const std::string& db) {
  LabelFileOptions options;
  options.allow_partial = true;
  FKDB_ASSIGN(const Reader reader, Reader::Open(db, options));
  FKDB_ASSIGN(const AuditReport report, Audit(reader));
  if (reader.file().partial() && !flags.quiet) {
    fmt::print(stderr, "fkdb-audit: {}: not finished: {} of {} images\n", db, report.images,
               reader.manifest().data_set.num_images);
  }
  FKDB_TRY(PrintOut(flags.json ? ToJson(report) : ToText(report, reader.spec())));
  return kExitOk;
}

}  // namespace
}  // namespace fkdb

int main(int argc, char** argv) {
  fkdb::CommonFlags flags;
  std::string db;
  CLI::App app("Counts the bytes of a label set by part, beside the paper's Table 2.", "fkdb-audit");
  AddCommonFlags(app, &flags, "One line of JSON");
  app.add_option("DB", db, "The label set (NAME.fkdb, or a NAME.fkdb.partial)")->required();
  return fkdb::RunTool(app, argc, argv, [&] { return fkdb::Run(flags, db); });
}
