// SPDX-License-Identifier: Apache-2.0
// What it takes to pack, verify and unpack a label set, and how small it gets. One JSON line a measurement: MB/s of the
// label file, by the clock and by a core's time. tests/bench/README.md has the commands.
//
//   share_bench X.fkdb [--threads N] [--store-boxes] [--work FOLDER]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>

#include "db/label_set.h"
#include "db/sha256.h"
#include "db/share/share.h"
#include "format/columns.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

// Of the whole process, all threads.
double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

class Stage {
 public:
  Stage(std::string name, uint64_t bytes) : name_(std::move(name)), bytes_(static_cast<double>(bytes)) {}
  ~Stage() {
    const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(), cpu = CpuSeconds() - cpu_;
    fmt::print("{{\"stage\":\"{}\",\"mb_per_second\":{:.1f},\"mb_per_core_second\":{:.1f}}}\n", name_, bytes_ / wall / 1e6, bytes_ / cpu / 1e6);
    std::fflush(stdout);
  }

 private:
  std::string name_;
  double bytes_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  double cpu_ = CpuSeconds();
};

// The steps of packing and unpacking alone: records to columns and back, without compression, hashes and files.
Result<void> BenchColumns(const LabelSet& set, const PackOptions& options) {
  const Manifest& m = set.manifest();
  ColumnRule rule;
  rule.spec = m.spec;
  if (!options.store_boxes) {
    FKDB_ASSIGN(rule.sampler, CropSampler::Make({m.augmentation.scale, m.augmentation.ratio, m.augmentation.flip_probability}));
  }
  rule.seed = m.augmentation.seed;
  rule.ratio = m.augmentation.ratio;
  rule.layer_ends = LayerEnds(m.augmentation.crops);
  const uint64_t images = std::min<uint64_t>(1024, set.num_images());
  constexpr int kRepeats = 20;
  std::vector<RecordView> records;
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < images; ++i) {
    FKDB_ASSIGN(const auto record, set.RecordBytes(i));
    bytes += record.size();
    FKDB_ASSIGN(const RecordView view, RecordView::Open(record, m.spec));
    records.push_back(view);
  }
  Columns heads;
  std::vector<Columns> layers;
  {
    const Stage stage("records to columns", bytes * kRepeats);
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      ColumnWriter writer(rule);
      for (const RecordView& record : records) FKDB_TRY(writer.Add(record));
      writer.Finish(&heads, &layers);
    }
  }
  const Stage stage("columns to records", bytes * kRepeats);
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    FKDB_ASSIGN(ColumnReader reader, ColumnReader::OpenHeads(rule, static_cast<uint32_t>(images), heads));
    FKDB_TRY(reader.OpenLayers(layers, kMaxCropsPerImage));
    for (const RecordView& record : records) FKDB_TRY(reader.Next(record.key_hash()));
  }
  return {};
}

Result<int> Run(const fs::path& db, const fs::path& work, int threads, bool store_boxes) {
  const fs::path share = work / "share", out = work / "unpacked.fkdb";
  fs::create_directories(work);
  FKDB_ASSIGN(const LabelSet set, LabelSet::Open(db));
  FKDB_ASSIGN(const FileUse use, set.Use());
  const uint64_t bytes = use.file_bytes;
  PackOptions pack;
  pack.threads = threads;
  pack.overwrite = true;
  pack.store_boxes = store_boxes;
  FKDB_TRY(BenchColumns(set, pack));
  FKDB_TRY(PackLabelSet(db, share, pack));  // warms the page cache
  PackReport report;
  {
    const Stage stage("pack", bytes);
    FKDB_ASSIGN(report, PackLabelSet(db, share, pack));
  }
  const ShareManifest& m = report.manifest;
  {
    const Stage stage("hash of the shards alone", m.total_bytes);
    for (const ShareShard& shard : m.shards) FKDB_TRY(Sha256OfFile(share / shard.file));
  }
  VerifyShareOptions verify;
  verify.threads = threads;
  {
    const Stage stage("verify, of the shards", m.total_bytes);
    FKDB_TRY(VerifyShare(share, verify));
  }
  verify.deep = true;
  {
    const Stage stage("verify --deep", bytes);
    FKDB_TRY(VerifyShare(share, verify));
  }
  UnpackOptions unpack;
  unpack.threads = threads;
  unpack.file.overwrite = true;
  {
    const Stage stage("unpack", bytes);
    FKDB_TRY(UnpackShare(share, out, unpack));
  }
  const auto crops = static_cast<double>(m.label_set.num_crops);
  fmt::print("{{\"share\":\"{}\",\"threads\":{},\"images\":{},\"drawn_images\":{},\"db_bytes_per_crop\":{:.3f},\"share_bytes_per_crop\":{:.3f}}}\n", db.string(),
             threads, m.label_set.num_images, report.drawn_images, static_cast<double>(bytes) / crops, static_cast<double>(m.total_bytes) / crops);
  fs::remove_all(share);
  fs::remove(out);
  return 0;
}

}  // namespace
}  // namespace fkdb

int main(int argc, char** argv) {
  CLI::App app("Packing, verifying and unpacking a label set.", "share_bench");
  std::string db, work = "/tmp/share_bench";
  int threads = 1;
  bool store_boxes = false;
  app.add_option("DB", db)->required();
  app.add_option("--work", work, "Where the share and what is unpacked are written")->capture_default_str();
  app.add_option("--threads", threads)->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_flag("--store-boxes", store_boxes, "Also those that could be drawn again");
  CLI11_PARSE(app, argc, argv);
  const auto done = fkdb::Run(db, work, threads, store_boxes);
  if (!done) return fmt::print(stderr, "share_bench: {}\n", done.error().message), 1;
  return *done;
}
