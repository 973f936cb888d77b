// SPDX-License-Identifier: Apache-2.0
// What labelling costs beside its teacher: a data set labelled into a file, and the same number of batches through the teacher
// alone, in turns. Both on the same threads; the batches are the inputs of real crops.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <thread>
#include <vector>

#include "image/data_set.h"
#include "tools/cli.h"
#include "tools/pixel_flags.h"
#include "trainer/torch_teacher.h"
#include "writer/label_job.h"
#include "writer/recipe.h"

namespace fkdb {
namespace {

struct Flags {
  std::string images, teacher, device = "cpu";
  uint64_t limit = 0;
  int repeats = 5;
  PixelFlags pixels;
  LabelJobOptions job;
};

// Of all threads so far: what others do on the machine does not count.
double CpuSeconds() {
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// Inputs of a batch of crops of the first images.
Result<std::vector<float>> BatchOf(const DataSet& data, const Teacher& teacher, uint32_t batch_size) {
  FKDB_ASSIGN(CropInputs inputs, CropInputs::Make(teacher.input()));
  FKDB_ASSIGN(const CropSampler sampler, CropSampler::Make({}));
  std::vector<float> batch(inputs.samples() * batch_size);
  FKDB_ASSIGN(const Image image, data.Load(0));
  for (uint32_t i = 0; i < batch_size; ++i) {
    const SampledCrop crop = sampler.Sample(0, 0, i, image.width, image.height);
    const uint8_t flip[] = {crop.flip};
    inputs.Run(image, {&crop.box, 1}, flip, batch.data() + i * inputs.samples());
  }
  return batch;
}

// Seconds of `batches` through the teacher, on `threads` threads.
Result<double> Forward(const Teacher& teacher, const std::vector<float>& batch, uint32_t batch_size, uint64_t batches, int threads) {
  std::atomic<uint64_t> next = 0;
  std::atomic<bool> failed = false;
  const Elapsed elapsed;
  {
    std::vector<std::jthread> workers;
    for (int i = 0; i < threads; ++i) {
      workers.emplace_back([&] {
        std::vector<float> output(size_t{batch_size} * teacher.num_outputs());
        while (next++ < batches) {
          if (!teacher.Forward(batch.data(), batch_size, output.data())) failed = true;
        }
      });
    }
  }
  if (failed) return Fail(ErrorCode::kModel, "the teacher failed");
  return elapsed.seconds();
}

Result<void> Run(Flags& flags) {
  LabelJobOptions& job = flags.job;
  if (job.batch_size % kBatchMultiple != 0) return Fail(ErrorCode::kInvalidArgument, fmt::format("--batch-size: expected a multiple of {}", kBatchMultiple));
  FKDB_ASSIGN(const auto data, OpenDataSet(flags.images, flags.limit));
  FKDB_ASSIGN(const AugmentationInfo pixels, DefaultAugmentation(*data));
  const uint32_t crops = job.augmentation.crops;
  FKDB_ASSIGN(job.augmentation, flags.pixels.Over(pixels));
  job.augmentation.crops = crops;
  job.spec.top_k = 5;
  job.use_classes = false;
  FKDB_ASSIGN(const InputSpec input, InputOf(job.augmentation));
  FKDB_ASSIGN(const auto teacher, LoadTeacher(flags.teacher, {input, job.batch_size, flags.device}));
  FKDB_ASSIGN(const std::vector<float> batch, BatchOf(*data, *teacher, job.batch_size));

  const auto out = std::filesystem::temp_directory_path() / fmt::format("labelling-bench-{}.fkdb", ::getpid());
  job.file.overwrite = true;
  const uint64_t all = data->size() * crops, batches = (all + job.batch_size - 1) / job.batch_size;
  std::vector<double> bare, labelled, ratios, cpu_ratios;
  std::vector<double> shares;  // of the labellers' time that the teacher had
  LabelProgress last;
  job.progress = [&](const LabelProgress& p) { last = p; };
  Result<void> outcome;
  for (int i = 0; i <= flags.repeats && outcome; ++i) {  // the first is a warm-up
    const double at_first = CpuSeconds();
    const auto forward = Forward(*teacher, batch, job.batch_size, batches, job.threads);
    const double between = CpuSeconds();
    const Elapsed elapsed;
    const auto made = LabelImages(*data, *teacher, out, job);
    if (!forward || !made) outcome = Fail(!forward ? forward.error() : made.error());
    if (!outcome || i == 0) continue;
    bare.push_back(*forward);
    labelled.push_back(elapsed.seconds());
    ratios.push_back(labelled.back() / bare.back());
    shares.push_back(last.share[static_cast<int>(Stage::kTeacher)]);
    cpu_ratios.push_back((CpuSeconds() - between) / (between - at_first));
  }
  std::error_code ec;
  std::filesystem::remove(out, ec);
  FKDB_TRY(outcome);
  return PrintOut(fmt::format("{{\"teacher\":\"{}\",\"images\":{},\"crops\":{},\"threads\":{},\"batch\":{},\"teacher_crops_per_second\":{:.0f},"
                              "\"labelled_crops_per_second\":{:.0f},\"overhead_percent\":{:.2f},\"lowest_percent\":{:.2f},\"highest_percent\":{:.2f},"
                              "\"cpu_overhead_percent\":{:.2f},\"teacher_percent_of_labelling\":{:.2f}}}\n",
                              teacher->name(), data->size(), all, job.threads, job.batch_size, static_cast<double>(all) / Median(bare),
                              static_cast<double>(all) / Median(labelled), 100 * (Median(ratios) - 1), 100 * (*std::ranges::min_element(ratios) - 1),
                              100 * (*std::ranges::max_element(ratios) - 1), 100 * (Median(cpu_ratios) - 1),
                              100 * Median(shares)));
}

}  // namespace
}  // namespace fkdb

int main(int argc, char** argv) {
  fkdb::KeepFreedMemory();
  fkdb::Flags flags;
  flags.job.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  flags.job.augmentation.crops = 16;
  CLI::App app("Labelling beside its teacher alone, in one run");
  app.add_option("--images", flags.images, "A data set")->required();
  app.add_option("--teacher", flags.teacher, "As fkdb-write's")->required();
  app.add_option("--device", flags.device, "Of the teacher")->capture_default_str();
  app.add_option("--limit", flags.limit, "Only the first N images");
  app.add_option("--crops", flags.job.augmentation.crops, "An image")->capture_default_str();
  app.add_option("--batch-size", flags.job.batch_size, "Crops a teacher batch")->capture_default_str();
  app.add_option("--threads", flags.job.threads, "Teacher batches at once")->capture_default_str();
  app.add_option("--repeats", flags.repeats, "Of which the medians are taken")->capture_default_str();
  flags.pixels.AddTo(app);
  CLI11_PARSE(app, argc, argv);
  if (const auto done = fkdb::Run(flags); !done) {
    fmt::print(stderr, "{}\n", done.error().message);
    return 1;
  }
  return 0;
}
