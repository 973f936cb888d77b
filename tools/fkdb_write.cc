// SPDX-License-Identifier: Apache-2.0
// fkdb-write: labels random crops of every image with a teacher and stores them in one file.
#include <fmt/format.h>

#include <thread>

#include "image/data_set.h"
#include "tools/cli.h"
#include "tools/made.h"
#include "tools/pixel_flags.h"
#include "trainer/torch_teacher.h"
#include "writer/label_job.h"

namespace fkdb {
namespace {

struct Flags : CommonFlags {
  std::string images, teacher, out;
  std::string label = "marginal-smoothing", encoding, device = "cpu";
  PixelFlags pixels;
  AugmentationInfo augmentation;
  LabelJobOptions job;
  uint64_t limit = 0;
  bool no_classes = false;

  Flags() {
    augmentation.crops = 200;
    job.spec.top_k = 5;
    job.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
};

std::string ProgressLine(const LabelProgress& p) {
  const double rate = static_cast<double>(p.crops) / std::max(p.seconds, 1e-9);
  const double left = static_cast<double>(p.all_crops - std::min(p.all_crops, p.crops)) / std::max(rate, 1e-9);
  return fmt::format("{}  {} of {} images  {:.0f} crops/s  {} left", Bar(p.crops, p.all_crops), p.images, p.all_images,
                     rate, p.crops > 0 ? HumanSeconds(left) : "?");
}

Result<int> Run(Flags& flags) {
  FKDB_ASSIGN(const std::unique_ptr<DataSet> data, OpenDataSet(flags.images, flags.limit));
  FKDB_ASSIGN(AugmentationInfo augmentation, DefaultAugmentation(*data));
  augmentation.crops = flags.augmentation.crops;
  augmentation.seed = flags.augmentation.seed;
  FKDB_ASSIGN(augmentation, flags.pixels.Over(augmentation));

  LabelJobOptions& job = flags.job;
  job.augmentation = augmentation;
  FKDB_ASSIGN(job.spec.kind, ParseLabelKind(flags.label));
  // Logits are divided by a small temperature later: 8 bits of them would be too few.
  job.spec.values = job.spec.kind == LabelKind::kLogits ? ValueEncoding::kF16 : ValueEncoding::kPacked;
  if (!flags.encoding.empty()) {
    FKDB_ASSIGN(job.spec.values, ParseValueEncoding(flags.encoding));
  }
  job.use_classes = !flags.no_classes;
  StampProvenance("fkdb-write", &job.provenance);

  const TeacherOptions teacher_options = {data->channels(), augmentation.input_height, augmentation.input_width,
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

int main(int argc, char** argv) {
  fkdb::Flags flags;
  CLI::App app("Labels random crops of every image with a teacher and stores them in one file.", "fkdb-write");
  AddCommonFlags(app, &flags, "The summary as one line of JSON");
  app.add_option("--images", flags.images, "A folder of JPEG and PNG images, or an IDX file of images")->required();
  app.add_option("--teacher", flags.teacher, "A TorchScript file, or MODEL:WEIGHTS.safetensors")->required();
  app.add_option("--out", flags.out, "The label set to write, NAME.fkdb")->required();
  app.add_option("--crops", flags.augmentation.crops, "Random crops an image, M")->capture_default_str();
  app.add_option("--label", flags.label, "What is kept of the teacher's output")
      ->check(CLI::IsMember({"full", "hard", "smoothing", "marginal-smoothing", "marginal-renorm", "logits"}))
      ->capture_default_str();
  app.add_option("--top-k", flags.job.spec.top_k, "K of the marginal kinds")->capture_default_str();
  app.add_option("--temperature", flags.job.spec.temperature, "Of the teacher's softmax")->capture_default_str();
  app.add_option("--encoding", flags.encoding, "How labels are stored: packed by default, f16 for logits")
      ->check(CLI::IsMember({"packed", "f16", "f32", "bf16"}));
  app.add_option("--batch-size", flags.job.batch_size, "Crops a teacher batch")->capture_default_str();
  app.add_option("--device", flags.device, "Of the teacher: cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--threads", flags.job.threads, "Teacher batches at once")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seed", flags.augmentation.seed, "Of the crops")->capture_default_str();
  app.add_option("--limit", flags.limit, "Only the first N images in key order");
  app.add_flag("--no-classes", flags.no_classes, "The images' folders are not the teacher's classes");
  app.add_flag("--skip-bad", flags.job.skip_bad, "Record images that cannot be read as skipped, and go on");
  AddOutputFlags(app, &flags.job.file, &flags.job.provenance);
  flags.pixels.AddTo(app);
  return fkdb::RunTool(app, argc, argv, [&] { return fkdb::Run(flags); });
}
