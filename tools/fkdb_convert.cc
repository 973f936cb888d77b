// SPDX-License-Identifier: Apache-2.0
// fkdb-convert: label sets in other systems' forms into a label file, and back.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <thread>

#include "db/label_set.h"
#include "format/text.h"
#include "image/data_set.h"
#include "tools/cli.h"
#include "tools/made.h"
#include "tools/parquet_table.h"
#include "tools/pixel_flags.h"
#include "tools/programs.h"
#include "writer/convert/batch_files.h"
#include "writer/convert/convert_job.h"
#include "writer/convert/export_fkd.h"
#include "writer/convert/export_table.h"
#include "writer/convert/fkd.h"
#include "writer/convert/ml_dr.h"
#include "writer/convert/npz.h"
#include "writer/convert/relabel.h"
#include "writer/convert/table_source.h"
#include "writer/convert/tiny_vit.h"

namespace fkdb {
namespace {

struct Flags : CommonFlags {
  std::string from, to, source, out, images;
  std::optional<std::string> label, encoding, boxes, teacher;
  std::optional<float> temperature;
  std::string order;
  double memory = 4;  // GiB
  PixelFlags pixels;
  bool no_classes = false;
  std::optional<uint64_t> limit;
  ConvertOptions job;

  Flags() { job.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }
};

// Our names, and those of FKD's --label_type and --soft_label_type: a kind, and K where the name says it.
Result<void> ParseLabel(const std::string& name, ConvertOptions* job) {
  std::string_view rest = name;
  for (const auto& [prefix, kind] : {std::pair("marginal_smoothing", LabelKind::kMarginalSmoothing), std::pair("marginal_renorm", LabelKind::kMarginalRenorm)}) {
    if (!rest.starts_with(prefix)) continue;
    rest.remove_prefix(std::string_view(prefix).size());
    uint32_t k = 0;
    if (rest.starts_with("_k")) {
      const auto [end, ec] = std::from_chars(rest.data() + 2, rest.data() + rest.size(), k);
      if (ec != std::errc() || end != rest.data() + rest.size()) break;
      if (job->top_k && *job->top_k != k) return Fail(ErrorCode::kInvalidArgument, fmt::format("--label {} and --top-k {} contradict each other", name, *job->top_k));
      job->top_k = k;
    } else if (!rest.empty()) {
      break;
    }
    job->kind = kind;
    return {};
  }
  const auto kind = ParseLabelKind(name == "ori" ? "full" : name);
  if (!kind) return Fail(ErrorCode::kInvalidArgument, "--label: " + kind.error().message);
  job->kind = *kind;
  return {};
}

Result<std::unique_ptr<LabelSource>> OpenSource(const Flags& flags, const LabelledImages& images) {
  const ConvertOptions& job = flags.job;
  if (flags.from == "fkd") {
    const auto folders = static_cast<uint32_t>(job.use_classes ? images.data.class_names().size() : 0);
    return OpenFkd(flags.source, flags.images, images, job.num_classes ? job.num_classes : folders);
  }
  if (flags.from == "relabel") return OpenRelabel(flags.source, flags.images, images);
  if (flags.from == "ml-dr") return OpenMlDr(flags.source, images);
  if (flags.from == "tinyvit") return OpenTinyVit(flags.source, images);
  const auto memory_bytes = static_cast<uint64_t>(flags.memory * 0x1p30);
  if (flags.from == "npz" || flags.from == "parquet") {
    return OpenTables(flags.source, "." + flags.from, flags.from == "npz" ? OpenTable(OpenNpz) : OpenParquet, images, {job.kind, memory_bytes, job.threads});
  }
  BatchFilesOptions options;
  options.order = flags.order;
  options.temperature = job.temperature;
  options.memory_bytes = memory_bytes;
  options.threads = job.threads;
  const BatchSystem system = flags.from == "sre2l" ? BatchSystem::kSre2l : flags.from == "lpqld" ? BatchSystem::kLpqld : BatchSystem::kHald;
  return OpenBatchFiles(system, flags.source, images, options);
}

std::string ProgressLine(const ConvertProgress& p) {
  const double rate = static_cast<double>(p.images_read) / std::max(p.seconds, 1e-9);
  const double left = static_cast<double>(p.all_images - std::min(p.all_images, p.images)) / std::max(rate, 1e-9);
  return fmt::format("{}  {} of {} images  {:.0f} images/s  {} left", Bar(p.images, p.all_images), p.images, p.all_images, rate,
                     p.images_read > 0 ? HumanSeconds(left) : "?");
}

// A line. Paths may be no UTF-8.
std::string Dumped(const nlohmann::ordered_json& json) { return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n"; }

nlohmann::ordered_json ToJson(const ConvertSummary& s) {
  const LabelSpec& spec = s.manifest.spec;
  const double files = static_cast<double>(s.images) / std::max(s.seconds, 1e-9);
  return {{"from", s.manifest.imported_from},
          {"labels", {{"kind", Name(spec.kind)}, {"num_classes", spec.num_classes}, {"top_k", spec.top_k}, {"boxes", Name(spec.boxes)}, {"values", Name(spec.values)}}},
          {"images_read", s.images},
          {"images_per_second", files},
          {"rounded_boxes", s.rounded_boxes},
          {"sorted_crops", s.sorted_crops},
          {"dropped_crops", s.dropped_crops},
          {"short_images", s.short_images},
          {"refused", s.refused.first},
          {"refused_count", s.refused.count},
          {"strays", s.strays.first},
          {"stray_count", s.strays.count}};
}

// What a reader of the summary should know, a line each.
std::string Remarks(const ConvertSummary& s) {
  const LabelSpec& spec = s.manifest.spec;
  std::string text = fmt::format("{} labels of {} classes{}, boxes {}, values {}\n", Name(spec.kind), spec.num_classes,
                                 spec.top_k > 1 ? fmt::format(", K = {}", spec.top_k) : "", Name(spec.boxes), Name(spec.values));
  const auto list = [&](std::string_view what, const NameList& names) {
    if (names.count == 0) return;
    text += fmt::format("{}: {}\n", what, names.count);
    for (const std::string& name : names.first) text += fmt::format("  {}\n", name);
    if (names.count > names.first.size()) text += fmt::format("  .. and {} more\n", names.count - names.first.size());
  };
  if (spec.boxes != BoxEncoding::kPixel && !spec.is_map()) text += "boxes stay fractions: they are not of whole pixels\n";
  if (s.rounded_boxes > 0) text += fmt::format("boxes that were not of whole pixels, rounded as training code does: {} of {}\n", s.rounded_boxes, s.boxes);
  if (s.sorted_crops > 0) text += fmt::format("crops whose classes were in another order, now sorted: {}\n", s.sorted_crops);
  if (s.dropped_crops > 0) text += fmt::format("crops left out (--crops): {}\n", s.dropped_crops);
  if (s.short_images > 0) text += fmt::format("images with fewer than {} crops: {}\n", s.manifest.augmentation.crops, s.short_images);
  list("refused images", s.refused);
  list("labels without an image", s.strays);
  return text;
}

Result<int> PrintDryRun(const Flags& flags, const ConvertSummary& s) {
  const auto bytes = static_cast<double>(s.record_bytes);
  const double bytes_per_crop = bytes / static_cast<double>(std::max<uint64_t>(1, s.crops));
  if (flags.json) {
    nlohmann::ordered_json json = {{"dry_run", true}, {"images", s.images}, {"skipped", s.refused.count}, {"crops", s.crops}, {"record_bytes", s.record_bytes}, {"bytes_per_crop", bytes_per_crop}};
    json.update(ToJson(s));
    FKDB_TRY(PrintOut(Dumped(json)));
  } else if (!flags.quiet) {
    FKDB_TRY(PrintOut(fmt::format("would convert {} images, {} crops, into records of {} ({:.1f} bytes a crop); nothing is written\n{}",
                                  s.images - s.refused.count, s.crops, HumanBytes(bytes), bytes_per_crop, Remarks(s))));
  }
  if (s.first_refusal && !flags.job.skip_bad) return Fail(*s.first_refusal);
  return kExitOk;
}

Result<int> Import(Flags& flags) {
  const auto usage = [](std::string what) { return Fail(ErrorCode::kInvalidArgument, std::move(what)); };
  ConvertOptions& job = flags.job;
  if (flags.images.empty()) return usage("--from needs --images, the images that the labels are of");
  if (flags.out.empty() && !job.dry_run) return usage("OUT is missing: the label set to write, NAME.fkdb");
  if (flags.label) FKDB_TRY(ParseLabel(*flags.label, &job));
  if (flags.encoding) {
    FKDB_ASSIGN(job.values, ParseValueEncoding(*flags.encoding));
  }
  if (flags.boxes) {
    FKDB_ASSIGN(job.boxes, ParseBoxEncoding(*flags.boxes));
  }
  job.temperature = flags.temperature.value_or(flags.from == "hald" ? 20 : 1);  // HALD's own
  if (flags.from == "lpqld" && !flags.temperature) {
    return usage("--temperature is missing: lpqld's labels are the K largest logits, and become probabilities at the temperature that students are trained with");
  }
  if (flags.teacher) job.teachers = {{*flags.teacher, ""}};
  job.format = flags.from;
  job.source = flags.source;
  job.use_classes = !flags.no_classes;
  if (std::error_code ec; job.dry_run && !flags.out.empty() && !job.file.overwrite && std::filesystem::exists(flags.out, ec)) {
    return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: it is there already: without --overwrite it would be refused", flags.out));
  }
  FKDB_ASSIGN(const std::unique_ptr<DataSet> all, OpenDataSet(flags.images));
  std::unique_ptr<DataSet> few;
  if (flags.limit) {
    FKDB_ASSIGN(few, OpenDataSet(flags.images, *flags.limit));
  }
  const DataSet& data = few ? *few : *all;
  FKDB_ASSIGN(job.augmentation, DefaultAugmentation(data));
  FKDB_ASSIGN(job.augmentation, flags.pixels.Over(job.augmentation));
  StampProvenance("fkdb-convert", &job.provenance);
  Progress progress(flags.quiet);
  progress.Show(fmt::format("{} images; looking for their labels", data.size()));
  FKDB_ASSIGN(const std::unique_ptr<LabelSource> source, OpenSource(flags, {*all, data.size()}));

  job.progress = [&](const ConvertProgress& p) { progress.Show(ProgressLine(p)); };
  job.stop = StopOnSignals();
  auto converted = ConvertLabels(*source, data, flags.out, job);
  progress.Done();
  FKDB_ASSIGN(const ConvertSummary summary, std::move(converted));
  if (job.dry_run) return PrintDryRun(flags, summary);
  if (summary.interrupted) {
    return Fail(ErrorCode::kIncomplete, fmt::format("stopped after {} of {} images; the same command with --resume continues", summary.images_written, data.size()));
  }
  const nlohmann::ordered_json more = ToJson(summary);
  FKDB_TRY(PrintMade(flags, flags.out, summary.manifest, MadeBy{summary.crops, summary.seconds}, &more));
  if (!flags.json && !flags.quiet) FKDB_TRY(PrintOut(Remarks(summary)));
  return kExitOk;
}

// A table is one file.
Result<ExportSummary> ExportToTable(const Flags& flags, const LabelSet& set, const ExportOptions& options) {
  if (options.dry_run) return ExportTable(set, nullptr, options);
  if (std::error_code ec; std::filesystem::exists(flags.out, ec) && !options.overwrite) {
    return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: it is there already; --overwrite replaces it", flags.out));
  }
  std::unique_ptr<TableWriter> writer;
  if (flags.to == "npz") {
    writer = MakeNpzWriter(flags.out, static_cast<uint64_t>(flags.memory * 0x1p30));
  } else {
    FKDB_ASSIGN(const std::vector<std::string> keys, set.AllKeys());
    FKDB_ASSIGN(writer, MakeParquetWriter(flags.out, std::all_of(keys.begin(), keys.end(), IsUtf8)));
  }
  FKDB_ASSIGN(ExportSummary summary, ExportTable(set, writer.get(), options));
  if (summary.interrupted) return Fail(ErrorCode::kIncomplete, "stopped; nothing was written");
  std::error_code ec;
  summary.bytes = std::filesystem::file_size(flags.out, ec);
  return summary;
}

Result<int> Export(Flags& flags) {
  if (flags.out.empty()) return Fail(ErrorCode::kInvalidArgument, "OUT is missing: the folder or file to write");
  FKDB_ASSIGN(const LabelSet set, LabelSet::Open(flags.source));
  if (set.partial()) return Fail(ErrorCode::kIncomplete, fmt::format("{}: the label set is incomplete: finish it first", flags.source));
  ExportOptions options;
  options.images = flags.images;
  options.resume = flags.job.file.resume;
  options.overwrite = flags.job.file.overwrite;
  options.dry_run = flags.job.dry_run;
  options.threads = flags.job.threads;
  options.stop = StopOnSignals();
  Progress progress(flags.quiet);
  options.progress = [&](uint64_t done, uint64_t all) { progress.Show(fmt::format("{}  {} of {} images", Bar(done, all), done, all)); };
  const auto exported = flags.to == "fkd" ? ExportFkd(set, flags.out, options) : ExportToTable(flags, set, options);
  progress.Done();
  FKDB_ASSIGN(const ExportSummary s, exported);
  if (s.interrupted) return Fail(ErrorCode::kIncomplete, fmt::format("stopped after {} of {} images; the same command with --resume continues", s.images + s.kept + s.skipped, set.num_images()));
  const double rate = static_cast<double>(s.images) / std::max(s.seconds, 1e-9);
  if (flags.json) {
    nlohmann::ordered_json json = {{"out", flags.out}, {"to", flags.to}, {"images", s.images}, {"crops", s.crops}, {"skipped", s.skipped}, {"kept", s.kept},
                                         {"bytes", s.bytes}, {"seconds", s.seconds}, {"images_per_second", rate}};
    if (flags.job.dry_run) json["dry_run"] = true;
    FKDB_TRY(PrintOut(Dumped(json)));
  } else if (flags.job.dry_run && !flags.quiet) {
    FKDB_TRY(PrintOut(fmt::format("would write {} images, {} crops; nothing is written\n{}{}", s.images, s.crops,
                                  s.kept ? fmt::format("files that are there, and would be kept: {}\n", s.kept) : "",
                                  s.skipped ? fmt::format("images without labels: {}\n", s.skipped) : "")));
  } else if (!flags.quiet) {
    FKDB_TRY(PrintOut(fmt::format("{}: {} images, {} crops, {} ({:.1f} bytes a crop), {} at {:.0f} images/s\n{}{}", flags.out, s.images, s.crops,
                                  HumanBytes(static_cast<double>(s.bytes)), static_cast<double>(s.bytes) / static_cast<double>(std::max<uint64_t>(1, s.crops)),
                                  HumanSeconds(s.seconds), rate, s.kept ? fmt::format("files that were there, kept: {}\n", s.kept) : "",
                                  s.skipped ? fmt::format("images without labels, and so without a file: {}\n", s.skipped) : "")));
  }
  return kExitOk;
}

}  // namespace
}  // namespace fkdb

int fkdb::RunConvert(int argc, char** argv) {
  fkdb::Flags flags;
  CLI::App app("Converts label sets of other systems into a label file, and back.", "fkdb-convert");
  AddCommonFlags(app, &flags, "The summary as one line of JSON");
  auto* from = app.add_option("--from", flags.from, "The form of SRC: fkd (also FerKD's, MEAL V2's), ml-dr, relabel, sre2l (also CDA's), lpqld (also LPLD's), hald, tinyvit; npz and parquet: your own")
                   ->check(CLI::IsMember({"fkd", "ml-dr", "relabel", "sre2l", "lpqld", "hald", "tinyvit", "npz", "parquet"}));
  auto* to = app.add_option("--to", flags.to, "The form of OUT: fkd, npz or parquet; SRC is then a label set")->check(CLI::IsMember({"fkd", "npz", "parquet"}))->excludes(from);
  app.add_option("SRC", flags.source, "What to convert: the folder of label files (npz, parquet: or a file); with --to a label set")->required();
  app.add_option("OUT", flags.out, "The label set to write, NAME.fkdb; with --to fkd a folder, otherwise a file");
  app.add_option("--images", flags.images, "The images the labels are of: a folder, tar shards or an IDX file; with --to: where they will lie");
  app.add_option("--label", flags.label, "What kind the labels are, where the files don't tell: marginal-smoothing or marginal-renorm (or FKD's names)");
  app.add_option("--top-k", flags.job.top_k, "Refuse labels of another K");
  app.add_option("--num-classes", flags.job.num_classes, "Of the labels (the images' class folders)");
  app.add_flag("--no-classes", flags.no_classes, "The images' folders are not the labels' classes");
  app.add_option("--temperature", flags.temperature, "Of the softmax that made the probabilities (1; hald: 20); of lpqld's that is to make them");
  app.add_option("--order", flags.order, "sre2l: a file with the image numbers of each epoch, {\"0\": [..]} as JSON or from torch.save");
  app.add_option("--memory", flags.memory, "GiB for labels that are filed by batch: less means more passes over the files")
      ->check(CLI::Range(1e-9, 1e6))
      ->capture_default_str();
  app.add_option("--teacher", flags.teacher, "Its name, for the manifest");
  app.add_option("--encoding", flags.encoding, "How labels are stored (what loses nothing: f32, or f16 if the files have float16)")->check(CLI::IsMember({"packed", "f16", "f32", "bf16"}));
  app.add_option("--boxes", flags.boxes, "How boxes are stored (pixel where the files have whole pixels, otherwise fractions)")->check(CLI::IsMember({"pixel", "fraction-f32", "fraction-f16"}));
  app.add_option("--crops", flags.job.crops, "Only the first N of each image");
  app.add_option("--limit", flags.limit, "Only the first N images in key order")->check(CLI::PositiveNumber);
  app.add_flag("--skip-bad", flags.job.skip_bad, "Record images without usable labels as skipped, and go on");
  app.add_flag("--dry-run", flags.job.dry_run, "Read and check everything, say what would come out, write nothing");
  app.add_option("--threads", flags.job.threads, "Files at once")->check(CLI::Range(1, 1024))->capture_default_str();
  AddOutputFlags(app, &flags.job.file, &flags.job.provenance);
  flags.pixels.AddTo(app);
  // What does not say how to convert back.
  const std::vector<std::string> both = {"--help", "--version", "--json", "--quiet", "--from", "--to", "--images", "--dry-run", "--resume", "--overwrite", "--threads", "--memory"};
  for (CLI::Option* option : app.get_options([](const CLI::Option* o) { return o->nonpositional(); })) {
    if (std::find(both.begin(), both.end(), option->get_name()) == both.end()) option->excludes(to);
  }
  return fkdb::RunTool(app, argc, argv, [&]() -> Result<int> {
    if (from->count() + to->count() == 0) return Fail(ErrorCode::kInvalidArgument, "--from or --to is missing: which system's label set is it? (see --help)");
    return from->count() ? fkdb::Import(flags) : fkdb::Export(flags);
  });
}
