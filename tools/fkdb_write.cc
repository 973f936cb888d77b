// SPDX-License-Identifier: Apache-2.0
// fkdb-write: labels random crops of every image with a teacher and stores them in one file.
#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "db/publish.h"
#include "image/data_set.h"
#include "tools/augment_flags.h"
#include "tools/cli.h"
#include "tools/config_file.h"
#include "tools/made.h"
#include "tools/pixel_flags.h"
#include "tools/programs.h"
#include "tools/teacher_flags.h"
#include "trainer/launch.h"
#include "trainer/torch_teacher.h"
#include "writer/label_job.h"
#include "writer/probe.h"
#include "writer/recheck.h"
#include "writer/recipe.h"
#include "writer/shared_job.h"

namespace fkdb {
namespace {

constexpr double kDryRunSeconds = 3;  // of the teachers' time

struct Flags : CommonFlags {
  std::string images, out, device = "cpu", autocast, progress = "bar";
  TeacherFlags teachers;
  // The recipe: what is not asked for is the default, or that of the label set whose crops are used.
  std::optional<std::string> label, encoding;
  std::optional<uint32_t> crops, top_k, batch_size;
  std::optional<float> temperature;
  std::optional<uint64_t> seed;
  PixelFlags pixels;
  AugmentFlags augment;
  bool no_classes = false, dry_run = false;
  std::optional<int> threads;
  SharedJobOptions shared;
  std::optional<Launch> launch;  // of several processes
  double recheck = 0;         // share of the images; 0: label
  double tolerance = 0.005;   // of a recheck
  uint64_t limit = 0;
  LabelJobOptions job;

  bool is_first() const { return !launch || launch->rank == 0; }
  int ranks() const { return launch ? launch->ranks : 1; }
};

// What processes that were started together do not share: cores and GPUs. One of them speaks for all.
Result<void> TakePlace(Flags* flags) {
  FKDB_ASSIGN(flags->launch, FindLaunch([](const char* name) { return std::getenv(name); }));
  const auto all = static_cast<int>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  cpu_set_t own;
  const int cores = ::sched_getaffinity(0, sizeof own, &own) == 0 ? CPU_COUNT(&own) : all;
  // A launcher that binds its processes to cores has shared them out.
  flags->job.threads = flags->threads.value_or(std::max(1, flags->launch && cores == all ? cores / flags->launch->local_ranks : cores));
  if (!flags->launch) return {};
  flags->device = DeviceOf(*flags->launch, flags->device);
  if (flags->launch->restarts > 0) flags->job.file.resume = true;
  if (!flags->is_first()) flags->quiet = true;
  return {};
}

// The recipe a job begins with, before the flags have their say.
Result<void> SetDefaults(const DataSet& data, LabelJobOptions* job) {
  job->spec.top_k = 5;
  if (!job->boxes_from.empty()) {
    FKDB_ASSIGN(const LabelSet set, LabelSet::Open(job->boxes_from));
    job->augmentation = set.manifest().augmentation;
    job->use_classes = !set.manifest().data_set.class_names.empty();
    return {};
  }
  if (job->append_to.empty()) {
    FKDB_ASSIGN(job->augmentation, DefaultAugmentation(data));
    job->augmentation.crops = 200;
    return {};
  }
  FKDB_ASSIGN(const LabelSet base, LabelSet::Open(job->append_to));
  job->spec = base.manifest().spec;
  job->augmentation = base.manifest().augmentation;
  job->augmentation.crops = 200;
  job->batch_size = base.manifest().teacher_batch_size;
  job->use_classes = !base.manifest().data_set.class_names.empty();
  return {};
}

Result<void> SetRecipe(const Flags& flags, const DataSet& data, LabelJobOptions* job) {
  const PixelFlags& pixels = flags.pixels;
  if (!job->boxes_from.empty() && (flags.crops || flags.seed || !pixels.scale.empty() || !pixels.ratio.empty() || flags.augment.given())) {
    return Fail(ErrorCode::kInvalidArgument, "--boxes-from: the crops are those of the label set; leave out --crops, --seed, --scale, --ratio and what else is done to crops");
  }
  FKDB_TRY(SetDefaults(data, job));
  LabelSpec& spec = job->spec;
  if (flags.label) {
    FKDB_ASSIGN(spec.kind, ParseLabelKind(*flags.label));
  }
  if (flags.encoding) {
    FKDB_ASSIGN(spec.values, ParseValueEncoding(*flags.encoding));
  } else if (job->append_to.empty()) {
    // Logits are divided by a small temperature later: 8 bits of them would be too few; label maps have no such form.
    spec.values = spec.kind == LabelKind::kLogits || spec.is_map() ? ValueEncoding::kF16 : ValueEncoding::kPacked;
  }
  if (spec.is_map() && flags.crops) return Fail(ErrorCode::kInvalidArgument, "--crops: a label map is of the whole image, of as many cells as the teacher gives");
  spec.top_k = flags.top_k.value_or(spec.top_k);
  spec.temperature = flags.temperature.value_or(spec.temperature);
  job->batch_size = flags.batch_size.value_or(job->batch_size);
  if (flags.no_classes) job->use_classes = false;
  FKDB_ASSIGN(job->augmentation, flags.pixels.Over(job->augmentation));
  FKDB_ASSIGN(job->augmentation.policy, flags.augment.Over(job->augmentation.policy));
  job->augmentation.crops = flags.crops.value_or(job->augmentation.crops);
  job->augmentation.seed = flags.seed.value_or(job->augmentation.seed);
  return {};
}

double Share(const LabelProgress& p, Stage stage) { return p.share[static_cast<int>(stage)]; }

std::string ProgressLine(const LabelProgress& p) {
  return fmt::format("{}  {} of {} images{}  {:.0f} crops/s, teacher {:.0f}% of the time  {} left", Bar(p.crops, p.all_crops), p.images, p.all_images,
                     p.bad > 0 ? fmt::format(" ({} bad)", p.bad) : "", p.crops_per_second(), 100 * Share(p, Stage::kTeacher),
                     p.seconds_left() ? HumanSeconds(*p.seconds_left()) : "?");
}

// A line of JSON a second, and one at the end.
class JsonProgress {
 public:
  void Show(const LabelProgress& p) {
    const bool last = p.crops >= p.all_crops && p.images >= p.all_images;
    if (p.seconds - shown_ < 1 && !(last && !done_)) return;
    shown_ = p.seconds;
    done_ = last;
    const nlohmann::ordered_json line = {{"event", "progress"},
                                         {"images", p.images},
                                         {"all_images", p.all_images},
                                         {"crops", p.crops},
                                         {"all_crops", p.all_crops},
                                         {"seconds", p.seconds},
                                         {"crops_per_second", p.crops_per_second()},
                                         {"seconds_left", p.seconds_left().value_or(-1)},
                                         {"bad", p.bad},
                                         {"waiting", p.waiting},
                                         {"decode", Share(p, Stage::kDecode)},
                                         {"crop", Share(p, Stage::kCrop)},
                                         {"teacher", Share(p, Stage::kTeacher)},
                                         {"encode", Share(p, Stage::kEncode)}};
    fmt::print(stderr, "{}\n", line.dump());
  }

 private:
  double shown_ = -1;
  bool done_ = false;
};

// What a job's progress goes to, by --progress.
std::function<void(const LabelProgress&)> Reporter(const Flags& flags, Progress* bar) {
  if (flags.progress == "bar") return [bar](const LabelProgress& p) { bar->Show(ProgressLine(p)); };
  if (flags.quiet) return {};
  return [json = std::make_shared<JsonProgress>()](const LabelProgress& p) { json->Show(p); };
}

Result<LoadedTeachers> LoadTeachers(const Flags& flags, const DataSet& data) {
  const LabelJobOptions& job = flags.job;
  FKDB_ASSIGN(const InputSpec input, InputOf(job.augmentation));
  return flags.teachers.Load(data, {input, job.batch_size, flags.device, job.threads, flags.autocast});
}

std::string TeacherText(const Ensemble::Member& member, bool several) {
  const Teacher& t = *member.teacher;
  const InputSpec& in = t.input();
  const std::string cells = t.grid() ? fmt::format(" for {} x {} cells", t.grid()->height, t.grid()->width) : "";
  return fmt::format("{}: {} of {} classes{} from {} x {} {} inputs{}\n", t.name(), t.output_kind() == OutputKind::kLogits ? "logits" : "probabilities",
                     t.num_outputs(), cells, in.height, in.width, Name(in.interpolation), several ? fmt::format(", weight {}", member.weight) : "");
}

// The most that this process has used so far, in bytes. What labelling needs was used once the teachers have labelled a batch on each thread.
uint64_t PeakMemory() {
  rusage usage;
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<uint64_t>(usage.ru_maxrss) * 1024 : 0;
}

// What a job would take, said before it begins.
Result<void> PrintPlan(const Flags& flags, const DataSet& data, const Ensemble& teachers, const ProbeResult& probe, Progress* progress) {
  const bool several = teachers.members.size() > 1;
  const double crops = static_cast<double>(data.size()) * probe.crops_per_image;
  const double rate = probe.crops_per_second() * flags.ranks();
  const double seconds = crops / rate, bytes = crops * probe.bytes_per_crop();
  const bool json_lines = !flags.dry_run && flags.progress == "json";
  if (json_lines || (flags.dry_run && flags.json)) {
    nlohmann::ordered_json json = {{"event", "plan"}, {"images", data.size()}, {"crops", static_cast<uint64_t>(crops)}, {"teachers", nlohmann::ordered_json::array()}};
    for (const auto& member : teachers.members) {
      const InputSpec& in = member.teacher->input();
      nlohmann::ordered_json teacher = {{"name", member.teacher->name()},
                                        {"outputs", member.teacher->num_outputs()},
                                        {"output", member.teacher->output_kind() == OutputKind::kLogits ? "logits" : "probabilities"},
                                        {"input", {in.mean.size(), in.height, in.width}},
                                        {"interpolation", Name(in.interpolation)}};
      if (const auto grid = member.teacher->grid()) teacher["grid"] = {grid->height, grid->width};
      if (several) teacher["weight"] = member.weight;
      json["teachers"].push_back(std::move(teacher));
    }
    if (several) json["average"] = Name(teachers.average);
    json.update({{"probe_crops", probe.crops},
                 {"crops_per_second", rate},
                 {"bytes_per_crop", probe.bytes_per_crop()},
                 {"projected_seconds", seconds},
                 {"projected_bytes", static_cast<uint64_t>(bytes)},
                 {"memory_bytes", PeakMemory()}});
    const std::string line = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    if (!json_lines) return PrintOut(line);
    if (!flags.quiet) fmt::print(stderr, "{}", line);
    return {};
  }
  std::string text;
  for (const auto& member : teachers.members) text += TeacherText(member, several);
  if (several) text += fmt::format("the average of their {}\n", Name(teachers.average));
  text += fmt::format("{} crops at {:.0f} crops/s: about {}; about {}; {} threads with batches of {}: {} of memory so far\n", static_cast<uint64_t>(crops),
                      rate, HumanSeconds(seconds), HumanBytes(bytes), flags.job.threads, flags.job.batch_size, HumanBytes(static_cast<double>(PeakMemory())));
  if (flags.dry_run) return PrintOut(text);
  progress->Say(text);
  return {};
}

// The teachers again on a sample of the finished label set, which is not changed.
Result<int> Recheck(Flags& flags, const DataSet& data) {
  LabelJobOptions& job = flags.job;
  const PixelFlags& p = flags.pixels;
  if (flags.label || flags.encoding || flags.crops || flags.top_k || flags.batch_size || flags.temperature || flags.seed || p.input_size ||
      p.interpolation || p.resampling || !p.mean.empty() || !p.std.empty() || !p.scale.empty() || !p.ratio.empty() || flags.augment.given() || flags.dry_run ||
      !job.append_to.empty() || !job.boxes_from.empty() || job.file.resume || job.file.overwrite) {
    return Fail(ErrorCode::kInvalidArgument, "--recheck: the recipe is the label set's own; only --images, --teacher, --out and how it is run are said");
  }
  if (flags.launch) return Fail(ErrorCode::kInvalidArgument, "--recheck is the work of one process: start it without a launcher");
  const int threads = job.threads;
  FKDB_ASSIGN(job, RecheckOptions(flags.out));
  job.threads = threads;
  FKDB_ASSIGN(const LoadedTeachers loaded, LoadTeachers(flags, data));
  const Ensemble& ensemble = loaded.ensemble;
  Progress progress(flags.quiet);
  job.progress = Reporter(flags, &progress);
  job.stop = StopOnSignals();
  const auto checked = RecheckLabels(data, ensemble, flags.out, job, flags.recheck);
  progress.Done();
  if (!checked) return Fail(checked.error());
  const bool ok = checked->mean_distance <= flags.tolerance;
  const auto share = [&](uint64_t crops) { return 100 * static_cast<double>(crops) / static_cast<double>(std::max<uint64_t>(1, checked->crops)); };
  if (flags.json) {
    const nlohmann::ordered_json json = {{"ok", ok},
                                         {"images", checked->images},
                                         {"crops", checked->crops},
                                         {"identical", checked->identical},
                                         {"same_top1", checked->same_top1},
                                         {"mean_distance", checked->mean_distance},
                                         {"worst_distance", checked->worst_distance},
                                         {"tolerance", flags.tolerance}};
    FKDB_TRY(PrintOut(json.dump() + "\n"));
  } else if (!flags.quiet) {
    FKDB_TRY(PrintOut(fmt::format("{}: {} crops of {} images labelled again: {:.2f}% identical, {:.2f}% with the same top-1; distance of the "
                                  "probabilities {:.2g} in the mean, {:.2g} at worst\n",
                                  flags.out, checked->crops, checked->images, share(checked->identical), share(checked->same_top1),
                                  checked->mean_distance, checked->worst_distance)));
  }
  if (ok) return kExitOk;
  return Fail(ErrorCode::kCorruption, fmt::format("{}: its labels are not what its teachers say now: a mean distance of {:.2g}, at most {} expected; another "
                                                  "preprocessing, model runtime or device than it was made with?",
                                                  flags.out, checked->mean_distance, flags.tolerance));
}

Result<LabelJobResult> Label(const Flags& flags, const DataSet& data, const Ensemble& teachers, SharedStore* store) {
  if (store != nullptr) return LabelImagesTogether(data, teachers, flags.out, flags.job, flags.shared, store);
  return LabelImages(data, teachers, flags.out, flags.job);
}

// store: of several processes, once it is reached.
Result<int> Work(Flags& flags, std::unique_ptr<SharedStore>* store) {
  FKDB_ASSIGN(const std::unique_ptr<DataSet> data, OpenDataSet(flags.images, flags.limit));
  if (flags.recheck > 0) return Recheck(flags, *data);
  if (flags.dry_run && !flags.is_first()) return kExitOk;
  LabelJobOptions& job = flags.job;
  FKDB_TRY(SetRecipe(flags, *data, &job));
  StampProvenance("fkdb-write", &job.provenance);

  if (job.batch_size < 1) return Fail(ErrorCode::kInvalidArgument, "a teacher batch needs at least one crop");
  if (flags.shared.collection && !flags.launch) return Fail(ErrorCode::kInvalidArgument, "--collection: one process writes one file; shards come from several (torchrun, srun)");
  if (!flags.launch) FKDB_TRY(CheckOutput(flags.out, job.file.resume, job.file.overwrite));
  job.stop = StopOnSignals();
  if (flags.launch && !flags.dry_run) {
    FKDB_ASSIGN(*store, JoinStore(*flags.launch, fmt::format("fkdb-write {}", std::filesystem::absolute(flags.out).lexically_normal().string())));
  }
  FKDB_ASSIGN(const LoadedTeachers loaded, LoadTeachers(flags, *data));
  const Ensemble& ensemble = loaded.ensemble;
  Progress progress(flags.quiet);
  FKDB_ASSIGN(const ProbeResult probe, ProbeTeachers(*data, ensemble, job, flags.dry_run ? kDryRunSeconds : 0));
  if (probe.crops > 0 && flags.is_first()) FKDB_TRY(PrintPlan(flags, *data, ensemble, probe, &progress));
  else if (flags.dry_run) return Fail(ErrorCode::kIoError, fmt::format("no image of '{}' can be read: {}", data->name(), probe.unread));
  if (flags.dry_run) return kExitOk;

  job.progress = Reporter(flags, &progress);
  auto labelled = Label(flags, *data, ensemble, store->get());
  progress.Done();
  FKDB_ASSIGN(const LabelJobResult result, std::move(labelled));
  if (result.interrupted) {
    return Fail(ErrorCode::kIncomplete,
                fmt::format("stopped after {} of {} images; the same command with --resume continues", result.images_written,
                            data->size()));
  }
  const nlohmann::ordered_json more = {{"peak_memory_bytes", PeakMemory()}};
  if (flags.is_first()) FKDB_TRY(PrintMade(flags, flags.out, result.manifest, MadeBy{result.progress.crops, result.progress.seconds}, &more));
  return kExitOk;
}

Result<int> Run(Flags& flags) {
  FKDB_TRY(TakePlace(&flags));
  std::unique_ptr<SharedStore> store;
  auto done = Work(flags, &store);
  if (!done && store) TellFailure(done.error(), store.get());
  if (!done && flags.ranks() > 1) return Fail(done.error().code, fmt::format("rank {}: {}", flags.launch->rank, done.error().message));
  return done;
}

}  // namespace
}  // namespace fkdb

int fkdb::RunWrite(int argc, char** argv) {
  fkdb::KeepFreedMemory();
  fkdb::Flags flags;
  CLI::App app("Labels random crops of every image with a teacher and stores them in one file.", "fkdb-write");
  AddCommonFlags(app, &flags, "The summary as one line of JSON");
  app.add_option("--images", flags.images, "A folder of JPEG and PNG images or of tar shards, or an IDX file of images")->required();
  flags.teachers.AddTo(app)->required();
  app.add_option("--out", flags.out, "The label set to write, NAME.fkdb")->required();
  app.add_flag("--dry-run", flags.dry_run, "Stop before anything is written: what the teachers give, how long it would take, how large it would be");
  app.add_option("--crops", flags.crops, "Random crops an image, M; with --append-crops: so many more (200)");
  auto* append = app.add_option("--append-crops", flags.job.append_to,
                                "Give the images of this label set more crops: OUT has its crops and the new ones. The recipe is its own");
  app.add_option("--boxes-from", flags.job.boxes_from, "Label the crops of this label set, and no others: another teacher for the same crops")
      ->excludes(append);
  auto* recheck = app.add_option("--recheck", flags.recheck, "Label this share of OUT's images again, compare, change nothing; exit 3 if labels differ")
                      ->check(CLI::Range(1e-9, 1.0));
  app.add_option("--recheck-tolerance", flags.tolerance, "Largest mean distance of a crop's probabilities, 0 to 1")
      ->check(CLI::NonNegativeNumber)
      ->needs(recheck)
      ->capture_default_str();
  app.add_option("--label", flags.label, "What is kept of the teacher's output (marginal-smoothing)")
      ->check(CLI::IsMember({"full", "hard", "smoothing", "marginal-smoothing", "marginal-renorm", "logits", "label-map"}));
  app.add_option("--top-k", flags.top_k, "K of the marginal kinds and label maps (5)");
  app.add_option("--temperature", flags.temperature, "Of the teacher's softmax (1)");
  app.add_option("--encoding", flags.encoding, "How labels are stored (packed; logits, label-map: f16)")
      ->check(CLI::IsMember({"packed", "f16", "f32", "bf16"}));
  app.add_option("--batch-size", flags.batch_size, "Crops a teacher batch (64)");
  app.add_option("--device", flags.device, "Of the teacher: cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--autocast", flags.autocast, "On a GPU: let PyTorch's autocast compute the teacher's products in this type (the teacher's own)")
      ->check(CLI::IsMember({"bf16", "fp16"}));
  app.add_option("--threads", flags.threads, "Teacher batches at once (the machine's cores; under a launcher, this process's share of them)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--seed", flags.seed, "Of the crops (0)");
  app.add_option("--limit", flags.limit, "Only the first N images in key order");
  app.add_flag("--no-classes", flags.no_classes, "The images' folders are not the teacher's classes");
  auto* max_bad = app.add_option("--max-bad", flags.job.max_bad, "So many images that cannot be read are recorded as skipped; one more ends the work")
                      ->capture_default_str();
  app.add_flag_callback("--skip-bad", [&flags] { flags.job.max_bad = kAnyBad; }, "Record all images that cannot be read as skipped, and go on")->excludes(max_bad);
  app.add_option("--progress", flags.progress, "On stderr: bar (on a terminal), or json, a line a second")
      ->check(CLI::IsMember({"bar", "json"}))
      ->capture_default_str();
  app.add_flag("--collection", flags.shared.collection,
               "Of several processes (torchrun, srun): keep their shards beside OUT, which becomes a small index file that names them");
  AddOutputFlags(app, &flags.job.file, &flags.job.provenance);
  flags.pixels.AddTo(app);
  flags.augment.AddTo(app);
  fkdb::ConfigFile config(&app, "write");
  return fkdb::RunTool(app, argc, argv, [&] { return config.print() ? config.Print() : fkdb::Run(flags); }, &config);
}
