// SPDX-License-Identifier: Apache-2.0
#include "tools/made.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "db/label_set.h"

namespace fkdb {

void AddOutputFlags(CLI::App& app, LabelFileWriterOptions* file, ProvenanceInfo* provenance) {
  app.add_option("--commit-seconds", file->commit_seconds, "What a crash can lose: time between commits")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  auto* resume = app.add_flag("--resume", file->resume, "Continue an interrupted build");
  app.add_flag("--overwrite", file->overwrite, "Replace an existing output")->excludes(resume);
  app.add_option("--licence", provenance->licence, "Of the label set, for the manifest");
  app.add_option("--notes", provenance->notes, "For the manifest");
}

void StampProvenance(const std::string& program, ProvenanceInfo* provenance) {
  provenance->tool = program + " " FKDB_VERSION;
  provenance->created = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

Result<void> PrintMade(const CommonFlags& flags, const std::filesystem::path& out, const Manifest& m,
                       std::optional<MadeBy> by, const nlohmann::ordered_json* more) {
  FKDB_ASSIGN(const LabelSet set, LabelSet::Open(out));
  FKDB_ASSIGN(const FileUse use, set.Use());
  const uint64_t bytes = use.file_bytes;
  const double bytes_per_crop = static_cast<double>(bytes) / static_cast<double>(std::max<uint64_t>(1, m.num_crops));
  const double rate = by ? static_cast<double>(by->crops) / std::max(by->seconds, 1e-9) : 0;
  if (flags.json) {
    nlohmann::ordered_json json = {{"out", out.string()},           {"images", m.num_images},
                                   {"skipped", m.skipped.size()},   {"crops", m.num_crops},
                                   {"file_bytes", bytes},           {"bytes_per_crop", bytes_per_crop},
                                   {"digest", m.digest}};
    if (by) json.update({{"crops_labelled", by->crops}, {"seconds", by->seconds}, {"crops_per_second", rate}});
    if (more) json.update(*more);
    return PrintOut(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");  // paths may be no UTF-8
  }
  if (flags.quiet) return {};
  return PrintOut(fmt::format("{}: {} images{}, {} crops, {} ({:.1f} bytes a crop){}\n{}\n", out.string(), m.num_images,
                              m.skipped.empty() ? "" : fmt::format(" ({} skipped)", m.skipped.size()), m.num_crops,
                              HumanBytes(static_cast<double>(bytes)), bytes_per_crop,
                              by ? fmt::format(", {} at {:.0f} crops/s", HumanSeconds(by->seconds), rate) : "",
                              m.digest));
}

Result<int> RunRewrite(const std::string& program, const CommonFlags& flags, const std::filesystem::path& out,
                       RewriteOptions* options, const std::function<Result<Manifest>()>& rewrite) {
  StampProvenance(program, &options->provenance);
  Progress progress(flags.quiet || flags.json);
  options->progress = [&](uint64_t done, uint64_t all) { progress.Count(done, all, "images"); };
  options->stop = StopOnSignals();
  const auto made = rewrite();
  progress.Done();
  if (!made) return Fail(made.error());
  FKDB_TRY(PrintMade(flags, out, *made));
  return kExitOk;
}

}  // namespace fkdb
