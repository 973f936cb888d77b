// SPDX-License-Identifier: Apache-2.0
// fkdb-write: labels random crops of every image with a teacher and stores them in one file.
#include <fmt/format.h>

#include <thread>

#include "image/data_set.h"
#include "tools/cli.h"
#include "tools/made.h"
#include "tools/pixel_flags.h"
#include "tools/programs.h"
#include "trainer/torch_teacher.h"
#include "writer/label_job.h"

namespace fkdb {
namespace {

struct Flags : CommonFlags {
  std::string images, teacher, out, device = "cpu";
  // The recipe: what is not asked for is the default, or that of the label set to append to.
  std::optional<std::string> label, encoding;
  std::optional<uint32_t> top_k, batch_size;
  std::optional<float> temperature;
  std::optional<uint64_t> seed;
  PixelFlags pixels;
  uint32_t crops = 200;
  bool no_classes = false;
  uint64_t limit = 0;
  LabelJobOptions job;

  Flags() { job.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }
};

// The recipe a job begins with, before the flags have their say.
Result<void> SetDefaults(const DataSet& data, LabelJobOptions* job) {
  if (job->append_to.empty()) {
    job->spec.top_k = 5;
    FKDB_ASSIGN(job->augmentation, DefaultAugmentation(data));
    return {};
  }
  FKDB_ASSIGN(const LabelSet base, LabelSet::Open(job->append_to));
  job->spec = base.manifest().spec;
  job->augmentation = base.manifest().augmentation;
  job->batch_size = base.manifest().teacher_batch_size;
  job->use_classes = !base.manifest().data_set.class_names.empty();
  return {};
}

Result<void> SetRecipe(const Flags& flags, const DataSet& data, LabelJobOptions* job) {
  FKDB_TRY(SetDefaults(data, job));
  LabelSpec& spec = job->spec;
  if (flags.label) {
    FKDB_ASSIGN(spec.kind, ParseLabelKind(*flags.label));
  }
  if (flags.encoding) {
    FKDB_ASSIGN(spec.values, ParseValueEncoding(*flags.encoding));
  } else if (job->append_to.empty()) {
    // Logits are divided by a small temperature later: 8 bits of them would be too few.
    spec.values = spec.kind == LabelKind::kLogits ? ValueEncoding::kF16 : ValueEncoding::kPacked;
  }
  spec.top_k = flags.top_k.value_or(spec.top_k);
  spec.temperature = flags.temperature.value_or(spec.temperature);
  job->batch_size = flags.batch_size.value_or(job->batch_size);
  if (flags.no_classes) job->use_classes = false;
  FKDB_ASSIGN(job->augmentation, flags.pixels.Over(job->augmentation));
  job->augmentation.crops = flags.crops;
  job->augmentation.seed = flags.seed.value_or(job->augmentation.seed);
  return {};
}

std::string ProgressLine(const LabelProgress& p) {
  const double rate = static_cast<double>(p.crops) / std::max(p.seconds, 1e-9);
  const double left = static_cast<double>(p.all_crops - std::min(p.all_crops, p.crops)) / std::max(rate, 1e-9);
  return fmt::format("{}  {} of {} images  {:.0f} crops/s  {} left", Bar(p.crops, p.all_crops), p.images, p.all_images,
                     rate, p.crops > 0 ? HumanSeconds(left) : "?");
}

Result<int> Run(Flags& flags) {
  FKDB_ASSIGN(const std::unique_ptr<DataSet> data, OpenDataSet(flags.images, flags.limit));
  LabelJobOptions& job = flags.job;
  FKDB_TRY(SetRecipe(flags, *data, &job));
  StampProvenance("fkdb-write", &job.provenance);

  const TeacherOptions teacher_options = {data->channels(), job.augmentation.input_height, job.augmentation.input_width,
                                          job.batch_size, flags.device};
  FKDB_ASSIGN(const std::unique_ptr<Teacher> teacher, LoadTeacher(flags.teacher, teacher_options));

  Progress progress(flags.quiet);
  job.progress = [&](const LabelProgress& p) { progress.Show(ProgressLine(p)); };
  job.stop = StopOnSignals();
  auto labelled = LabelImages(*data, *teacher, flags.out, job);
  progress.Done();
  FKDB_ASSIGN(const LabelJobResult result, std::move(labelled));
  if (result.interrupted) {
    return Fail(ErrorCode::kIncomplete,
                fmt::format("stopped after {} of {} images; the same command with --resume continues", result.images_written,
                            data->size()));
  }
  FKDB_TRY(PrintMade(flags, flags.out, result.manifest, MadeBy{result.progress.crops, result.progress.seconds}));
  return kExitOk;
}

}  // namespace
}  // namespace fkdb

int fkdb::RunWrite(int argc, char** argv) {
  fkdb::KeepFreedMemory();
  fkdb::Flags flags;
  CLI::App app("Labels random crops of every image with a teacher and stores them in one file.", "fkdb-write");
  AddCommonFlags(app, &flags, "The summary as one line of JSON");
  app.add_option("--images", flags.images, "A folder of JPEG and PNG images or of tar shards, or an IDX file of images")->required();
  app.add_option("--teacher", flags.teacher, "A TorchScript file, or MODEL:WEIGHTS.safetensors")->required();
  app.add_option("--out", flags.out, "The label set to write, NAME.fkdb")->required();
  app.add_option("--crops", flags.crops, "Random crops an image, M; with --append-crops: so many more")->capture_default_str();
  app.add_option("--append-crops", flags.job.append_to,
                 "Give the images of this label set more crops: OUT has its crops and the new ones. The recipe is its own");
  app.add_option("--label", flags.label, "What is kept of the teacher's output (marginal-smoothing)")
      ->check(CLI::IsMember({"full", "hard", "smoothing", "marginal-smoothing", "marginal-renorm", "logits"}));
  app.add_option("--top-k", flags.top_k, "K of the marginal kinds (5)");
  app.add_option("--temperature", flags.temperature, "Of the teacher's softmax (1)");
  app.add_option("--encoding", flags.encoding, "How labels are stored (packed; logits: f16)")
      ->check(CLI::IsMember({"packed", "f16", "f32", "bf16"}));
  app.add_option("--batch-size", flags.batch_size, "Crops a teacher batch (64)");
  app.add_option("--device", flags.device, "Of the teacher: cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--threads", flags.job.threads, "Teacher batches at once")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seed", flags.seed, "Of the crops (0)");
  app.add_option("--limit", flags.limit, "Only the first N images in key order");
  app.add_flag("--no-classes", flags.no_classes, "The images' folders are not the teacher's classes");
  app.add_flag("--skip-bad", flags.job.skip_bad, "Record images that cannot be read as skipped, and go on");
  AddOutputFlags(app, &flags.job.file, &flags.job.provenance);
  flags.pixels.AddTo(app);
  return fkdb::RunTool(app, argc, argv, [&] { return fkdb::Run(flags); });
}
