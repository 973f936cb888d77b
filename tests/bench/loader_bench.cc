// SPDX-License-Identifier: Apache-2.0
// The input path alone: batches as fkdb-train loads them, for a model that costs nothing.
//
//   loader_bench --images DIR [--db DB] [--crops-per-image M] [--batch-size N] [--input-size N] [--workers N] [--decode-only] --batches N
//
// One JSON line: crops and images a second, and the resident set after a tenth of the batches and after all.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <optional>

#include "image/data_set.h"
#include "reader/reader.h"
#include "trainer/batch_loader.h"
#include "trainer/stopwatch.h"
#include "trainer/supervision.h"

namespace fkdb {
namespace {

struct Flags {
  std::string images, db;
  uint32_t crops_per_image = 1, batch_size = 64, input_size = 224;
  int workers = 1;
  bool decode_only = false;
  uint64_t batches = 0;
};

double ResidentMib() {
  std::ifstream statm("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  statm >> size >> resident;
  return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

Result<int> Run(const Flags& flags) {
  FKDB_ASSIGN(const std::unique_ptr<DataSet> data, OpenDataSet(flags.images));
  std::optional<Reader> reader;
  std::unique_ptr<Supervision> supervision;
  if (flags.db.empty()) {
    FKDB_ASSIGN(supervision, HardSupervision(*data, {}, 1));
  } else {
    FKDB_ASSIGN(reader, Reader::Open(flags.db));
    FKDB_ASSIGN(supervision, DbSupervision(*reader, CropOrder::kCycle, 1));
  }
  const Normalization normalization = DefaultNormalization(data->channels());
  const InputSpec input = {flags.input_size, flags.input_size, Interpolation::kBilinear, normalization.mean,
                           normalization.std};
  // Passes enough.
  std::vector<Pass> passes;
  for (uint64_t steps = 0; steps < flags.batches;) {
    passes.push_back({static_cast<uint32_t>(passes.size() * flags.crops_per_image), flags.crops_per_image});
    steps += NumSteps(supervision->images().size(), flags.crops_per_image, flags.batch_size);
  }
  FKDB_ASSIGN(const auto loader, BatchLoader::Make(*data, *supervision, {input, 0, passes, flags.batch_size, 1, 0, flags.workers, {}, {}, !flags.decode_only}));
  const uint64_t warm = std::min(loader->max_batches(), flags.batches / 2);
  uint64_t batches = 0, crops = 0;
  double early_mib = 0;
  Stopwatch watch;
  while (batches < flags.batches) {
    FKDB_ASSIGN(const TrainBatch* batch, loader->Next());
    crops += batch->labels.size();
    if (batches + 1 == warm) {  // every buffer was touched once
      crops = 0;
      watch.Lap();
    }
    if (++batches == (flags.batches + 9) / 10) early_mib = ResidentMib();
  }
  const double seconds = watch.Lap();
  fmt::print("{{\"batches\":{},\"crops_per_second\":{:.1f},\"images_per_second\":{:.1f},\"resident_mib_at_a_tenth\":{:.1f},"
             "\"resident_mib\":{:.1f},\"batch_buffers_mib\":{:.1f}}}\n",
             batches, static_cast<double>(crops) / seconds, static_cast<double>(crops) / flags.crops_per_image / seconds,
             early_mib, ResidentMib(), static_cast<double>(loader->max_batches() * loader->batch_bytes()) / (1 << 20));
  return 0;
}

}  // namespace
}  // namespace fkdb

int main(int argc, char** argv) {
  CLI::App app("The input path alone.", "loader_bench");
  fkdb::Flags flags;
  app.add_option("--images", flags.images)->required();
  app.add_option("--db", flags.db, "Without it: hard labels and fresh crops");
  app.add_option("--crops-per-image", flags.crops_per_image)->capture_default_str();
  app.add_option("--batch-size", flags.batch_size)->capture_default_str();
  app.add_option("--input-size", flags.input_size)->capture_default_str();
  app.add_option("--workers", flags.workers)->capture_default_str();
  app.add_flag("--decode-only", flags.decode_only, "Leave the crops to a GPU that is not there");
  app.add_option("--batches", flags.batches)->required();
  CLI11_PARSE(app, argc, argv);
  const auto done = fkdb::Run(flags);
  if (!done) return fmt::print(stderr, "loader_bench: {}\n", done.error().message), 1;
  return *done;
}
