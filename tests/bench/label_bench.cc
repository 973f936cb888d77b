// SPDX-License-Identifier: Apache-2.0
// Synthetic label sets with the statistics of real ones, for benchmarks only, and what fkdb takes to
// encode, open and read them. One JSON line a measurement. tests/bench/README.md has the commands.
//
//   label_bench make --images N --crops M --out X.fkdb    builds a label set (about 13 bytes a crop); --drawn: with
//                                                         the boxes that fkdb-write would draw
//   label_bench encode                                    top-k values to record bytes, one thread
//   label_bench read X.fkdb [--threads N]                 opening, random access in batches
//   label_bench cold X.fkdb                               a first epoch with an empty page cache
//   label_bench checks X.fkdb                             what each check costs
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <thread>

#include "db/label_file_writer.h"
#include "db/page_walk.h"
#include "db/preload.h"
#include "db/sha256.h"
#include "format/crop_sampler.h"
#include "format/random.h"
#include "reader/label_batch.h"
#include "reader/reader.h"

namespace fkdb {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

LabelSpec BenchSpec(const std::string& encoding) {
  LabelSpec spec;
  spec.num_classes = 1000;
  spec.top_k = 5;
  spec.values = *ParseValueEncoding(encoding);
  return *CheckLabelSpec(spec);
}

std::string KeyOf(uint64_t ordinal) {  // 1000 folders, names as ImageNet's
  return fmt::format("n{:08}/n{:08}_{}.JPEG", 1440764 + ordinal / 1282 * 977, 1440764 + ordinal / 1282 * 977, 10000 + ordinal % 1282);
}

// One image: 500 x 375, a palette of about 40 classes (as an ImageNet teacher gives over 200 crops of
// a photo), unsure labels: a median largest probability of about 0.2.
Record SyntheticRecord(const LabelSpec& spec, uint64_t ordinal, uint32_t crops) {
  CounterRandom random(7, ordinal, 0);
  Record record;
  record.key_hash = Hash64(KeyOf(ordinal));
  record.width = 500;
  record.height = 375;
  record.class_index = static_cast<int32_t>(random.NextBelow(spec.num_classes));
  for (uint8_t& b : record.content_hash) b = static_cast<uint8_t>(random.NextWord());
  uint32_t palette[40];
  for (uint32_t i = 0; i < 40; ++i) palette[i] = (random.NextWord() % 25) + 25 * i;
  for (uint32_t i = 0; i < crops; ++i) {
    const uint32_t height = 100 + random.NextWord() % 276, width = 100 + random.NextWord() % 401;
    record.pixel_boxes.push_back({random.NextWord() % (376 - height), random.NextWord() % (501 - width), height, width});
    record.flips.push_back(random.NextWord() & 1);
    uint32_t at = random.NextWord() % 40;
    const uint32_t step = 1 + 2 * (random.NextWord() % 3);
    double weight = 1, sum = std::ldexp(1.0, static_cast<int>(random.NextWord() % 5) - 1);
    double weights[5];
    for (uint32_t k = 0; k < spec.top_k; ++k, at = (at + step) % 40) {
      record.indices.push_back(palette[at]);
      weights[k] = weight;
      sum += weight;
      weight *= 0.3 + 0.7 * (random.NextWord() >> 8) * 0x1p-24;
    }
    for (uint32_t k = 0; k < spec.top_k; ++k) record.values.push_back(static_cast<float>(weights[k] / sum));
  }
  return record;
}

// The boxes and flips of the recipe's seed instead.
void Draw(const CropSampler& sampler, Record* record) {
  std::vector<SampledCrop> crops(record->num_crops());
  sampler.SampleMany(0, record->key_hash, 0, record->width, record->height, crops);
  for (size_t i = 0; i < crops.size(); ++i) {
    record->pixel_boxes[i] = crops[i].box;
    record->flips[i] = crops[i].flip;
  }
}

Result<int> Make(uint64_t images, uint32_t crops, const std::string& encoding, bool drawn, const std::string& out) {
  FKDB_ASSIGN(const CropSampler sampler, CropSampler::Make({}));
  Manifest recipe;
  recipe.spec = BenchSpec(encoding);
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < images; ++i) keys.push_back(KeyOf(i));
  recipe.data_set = {"synthetic", "folder", images, 3, Sha256OfKeys(keys), {}};
  for (uint32_t c = 0; c < recipe.spec.num_classes; ++c) recipe.data_set.class_names.push_back(fmt::format("class{:04}", c));
  recipe.teachers = {{"none", ""}};
  recipe.augmentation.crops = crops;
  recipe.augmentation.mean = recipe.augmentation.std = {0.5, 0.5, 0.5};
  recipe.teacher_batch_size = 64;
  LabelFileWriterOptions options;
  options.overwrite = true;
  FKDB_ASSIGN(LabelFileWriter writer, LabelFileWriter::Open(out, recipe, options));
  const auto begin = Clock::now();
  long peak_kib_early = 0;
  rusage usage{};
  for (uint64_t i = 0; i < images; ++i) {
    Record made = SyntheticRecord(recipe.spec, i, crops);
    if (drawn) Draw(sampler, &made);
    FKDB_ASSIGN(std::vector<std::byte> record, EncodeRecord(recipe.spec, made));
    FKDB_TRY(writer.Append(std::move(record)));
    if (i == images / 20) {
      getrusage(RUSAGE_SELF, &usage);
      peak_kib_early = usage.ru_maxrss;
    }
  }
  const double appended = SecondsSince(begin);
  getrusage(RUSAGE_SELF, &usage);
  const long peak_kib_appended = usage.ru_maxrss;
  FKDB_ASSIGN(const Manifest manifest, writer.Finish(keys));
  fmt::print("{{\"made\":\"{}\",\"images\":{},\"crops\":{},\"append_seconds\":{:.1f},\"finish_seconds\":{:.1f},"
             "\"peak_mib_at_5_percent\":{},\"peak_mib_appended\":{},\"digest\":\"{}\"}}\n",
             out, images, manifest.num_crops, appended, SecondsSince(begin) - appended, peak_kib_early / 1024,
             peak_kib_appended / 1024, manifest.digest);
  return 0;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

Result<int> Encode(const std::string& encoding) {
  const LabelSpec spec = BenchSpec(encoding);
  constexpr uint32_t kImages = 200, kCrops = 200;
  std::vector<Record> records;
  for (uint64_t i = 0; i < kImages; ++i) records.push_back(SyntheticRecord(spec, i, kCrops));
  std::vector<double> rates;
  uint64_t bytes = 0;
  for (int repeat = 0; repeat < 9; ++repeat) {
    const auto begin = Clock::now();
    bytes = 0;
    for (const Record& record : records) {
      FKDB_ASSIGN(const std::vector<std::byte> encoded, EncodeRecord(spec, record));
      bytes += encoded.size();
    }
    rates.push_back(kImages * kCrops / SecondsSince(begin));
  }
  fmt::print("{{\"encode\":\"{}\",\"crops_per_second\":{:.0f},\"bytes_per_crop\":{:.2f}}}\n", encoding, Median(rates),
             static_cast<double>(bytes) / (kImages * kCrops));
  return 0;
}

// Batches of random images, one pass over the label set or less, shared by threads.
class RandomBatches {
 public:
  RandomBatches(const Reader& reader, uint32_t batch_images, uint32_t crops)
      : reader_(reader), batch_images_(batch_images), crops_(crops), order_(reader.num_images()) {
    const Permutation order(reader.num_images(), 3, 1);
    for (uint64_t i = 0; i < order_.size(); ++i) order_[i] = order(i);
  }

  // Seconds of batches 0 .. count - 1; thread t of n takes those with a remainder of t.
  Result<double> Run(uint64_t count, int num_threads) const {
    std::vector<Result<void>> outcomes(static_cast<size_t>(num_threads));
    const auto begin = Clock::now();
    {
      std::vector<std::jthread> threads;
      for (int t = 1; t < num_threads; ++t) {
        threads.emplace_back([&, t] { outcomes[static_cast<size_t>(t)] = Share(count, t, num_threads); });
      }
      outcomes[0] = Share(count, 0, num_threads);
    }
    const double seconds = SecondsSince(begin);
    for (Result<void>& outcome : outcomes) FKDB_TRY(std::move(outcome));
    return seconds;
  }

 private:
  Result<void> Share(uint64_t count, int thread, int num_threads) const {
    LabelBatch batch;
    std::vector<uint32_t> chosen(batch_images_ * crops_);
    std::vector<CropRequest> requests(batch_images_);
    for (uint64_t b = static_cast<uint64_t>(thread); b < count; b += static_cast<uint64_t>(num_threads)) {
      for (uint64_t i = 0, at = b * batch_images_; i < batch_images_; ++i, ++at) {
        requests[i].ordinal = order_[at % order_.size()];
        for (uint32_t k = 0; k < crops_; ++k) chosen[i * crops_ + k] = static_cast<uint32_t>((at * 7 + k * 49) % 200);
        requests[i].crops = std::span(chosen).subspan(i * crops_, crops_);
      }
      FKDB_TRY(FillBatch(reader_, requests, &batch));
    }
    return {};
  }

  const Reader& reader_;
  uint32_t batch_images_, crops_;
  std::vector<uint64_t> order_;
};

Result<int> Read(const std::string& path, uint32_t batch_images, uint32_t crops, int threads) {
  std::vector<double> opens;
  for (int repeat = 0; repeat < 9; ++repeat) {
    const auto begin = Clock::now();
    FKDB_ASSIGN(const Reader reader, Reader::Open(path));
    opens.push_back(SecondsSince(begin));
  }
  FKDB_ASSIGN(const Reader reader, Reader::Open(path));
  const RandomBatches batches(reader, batch_images, crops);
  const uint64_t count = std::min<uint64_t>(20000, reader.num_images() / batch_images);
  std::vector<double> seconds, seconds_together;  // one thread and all of them take turns
  FKDB_TRY(batches.Run(count, 1));                // warms the page cache
  for (int pass = 0; pass < 5; ++pass) {
    FKDB_ASSIGN(seconds.emplace_back(), batches.Run(count, 1));
    if (threads > 1) {
      FKDB_ASSIGN(seconds_together.emplace_back(), batches.Run(count, threads));
    }
  }
  const auto us = [&](const std::vector<double>& passes) {
    return passes.empty() ? 0 : Median(passes) / static_cast<double>(count * batch_images) * 1e6;
  };
  fmt::print("{{\"read\":\"{}\",\"images\":{},\"first_open_ms\":{:.2f},\"open_ms\":{:.2f},\"us_per_image\":{:.3f},"
             "\"threads\":{},\"us_per_image_together\":{:.3f},\"batch_images\":{},\"crops\":{}}}\n",
             path, reader.num_images(), opens[0] * 1e3, Median(opens) * 1e3, us(seconds), threads, us(seconds_together),
             batch_images, crops);
  return 0;
}

// Forgets the file's pages in the page cache: it must not be mapped by anyone.
Result<void> Evict(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  const bool done = fd >= 0 && ::fdatasync(fd) == 0 && ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
  if (fd >= 0) ::close(fd);
  return done ? Result<void>() : Fail(ErrorCode::kIoError, path + ": cannot evict it from the page cache");
}

// A first epoch's labels when nothing is in memory, beside reading the file from front to back.
Result<int> Cold(const std::string& path, uint32_t batch_images, uint32_t crops) {
  std::vector<double> in_order, preloaded;
  double at_random = 0;
  constexpr uint64_t kSample = 50;  // batches without preloading: each image is a seek
  for (int repeat = 0; repeat < 3; ++repeat) {
    FKDB_TRY(Evict(path));
    auto begin = Clock::now();
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    std::vector<char> buffer(1 << 20);
    while (std::fread(buffer.data(), 1, buffer.size(), file.get()) == buffer.size()) {
    }
    in_order.push_back(SecondsSince(begin));

    for (const bool preload : {false, true}) {
      FKDB_TRY(Evict(path));
      begin = Clock::now();
      FKDB_ASSIGN(const Reader reader, Reader::Open(path));
      std::optional<Preloader> preloader;
      if (preload) preloader.emplace(reader.label_set(), Preload::kOn);
      const uint64_t all = reader.num_images() / batch_images, count = preload ? all : std::min(all, kSample);
      FKDB_TRY(RandomBatches(reader, batch_images, crops).Run(count, 1));
      if (preload) {
        preloaded.push_back(SecondsSince(begin));
      } else {
        at_random = SecondsSince(begin) / static_cast<double>(count * batch_images) * 1e6;
      }
    }
  }
  fmt::print("{{\"cold\":\"{}\",\"in_order_seconds\":{:.3f},\"epoch_seconds\":{:.3f},\"at_random_us_per_image\":{:.1f}}}\n",
             path, Median(in_order), Median(preloaded), at_random);
  return 0;
}

// What each check costs, on records that lie in the processor's caches.
Result<int> Checks(const std::string& path) {
  std::vector<double> walks;
  for (int repeat = 0; repeat < 9; ++repeat) {
    const auto begin = Clock::now();
    FKDB_TRY(WalkPages(path));
    walks.push_back(SecondsSince(begin));
  }
  FKDB_ASSIGN(const Reader reader, Reader::Open(path));
  const LabelFile& file = reader.label_set().files()[0];
  const size_t blocks = std::min<size_t>(8, file.num_blocks());
  const uint64_t images = blocks < file.num_blocks() ? file.block_first_ordinal(blocks) : file.num_images();
  std::vector<RecordView> records;
  for (uint64_t i = 0; i < images; ++i) {
    FKDB_ASSIGN(RecordView record, reader.Get(i));
    records.push_back(record);
  }
  const auto nanoseconds = [&](uint64_t count, auto&& body) {
    std::vector<double> times;
    for (int repeat = 0; repeat < 51; ++repeat) {
      const auto begin = Clock::now();
      for (uint64_t i = 0; i < count; ++i) body(i);
      times.push_back(SecondsSince(begin) / static_cast<double>(count) * 1e9);
    }
    return Median(times);
  };
  bool ok = true;
  const double directory = nanoseconds(blocks, [&](uint64_t i) { ok &= file.Block(i).has_value(); });
  const double bytes = nanoseconds(images, [&](uint64_t i) { ok &= file.RecordBytes(i).has_value(); });
  const double get = nanoseconds(images, [&](uint64_t i) { ok &= reader.Get(i).has_value(); });
  const double crop = nanoseconds(images, [&](uint64_t i) { ok &= records[i].ValidateCrop(0).has_value(); });
  const double all = nanoseconds(images, [&](uint64_t i) { ok &= records[i].Validate().has_value(); });
  fmt::print("{{\"checks\":\"{}\",\"ok\":{},\"walk_ms\":{:.2f},\"directory_ns\":{:.0f},\"record_checksum_ns\":{:.0f},"
             "\"verifier_ns\":{:.0f},\"one_crop_ns\":{:.0f},\"all_crops_ns\":{:.0f}}}\n",
             path, ok, Median(walks) * 1e3, directory, bytes, get - bytes, crop, all);
  return 0;
}

}  // namespace
}  // namespace fkdb

int main(int argc, char** argv) {
  CLI::App app("Benchmarks of the label file.", "label_bench");
  app.require_subcommand(1);
  uint64_t images = 1281167;
  uint32_t crops = 200, batch_images = 64, batch_crops = 4;
  int threads = 1;
  bool drawn = false;
  std::string out, path, encoding = "packed";
  std::function<fkdb::Result<int>()> run;
  auto* make = app.add_subcommand("make", "Builds a synthetic label set");
  make->add_option("--images", images)->capture_default_str();
  make->add_option("--crops", crops)->capture_default_str();
  make->add_option("--out", out)->required();
  make->add_option("--encoding", encoding)->capture_default_str();
  make->add_flag("--drawn", drawn, "With the boxes that the recipe stands for");
  make->callback([&] { run = [&] { return fkdb::Make(images, crops, encoding, drawn, out); }; });
  auto* encode = app.add_subcommand("encode", "Records from top-k values");
  encode->add_option("--encoding", encoding)->capture_default_str();
  encode->callback([&] { run = [&] { return fkdb::Encode(encoding); }; });
  auto* read = app.add_subcommand("read", "Opens and reads a label set");
  read->add_option("DB", path)->required();
  read->add_option("--batch-images", batch_images)->capture_default_str();
  read->add_option("--batch-crops", batch_crops)->capture_default_str();
  read->add_option("--threads", threads, "Also with so many at a time")->capture_default_str();
  read->callback([&] { run = [&] { return fkdb::Read(path, batch_images, batch_crops, threads); }; });
  auto* cold = app.add_subcommand("cold", "A first epoch's labels with an empty page cache");
  cold->add_option("DB", path)->required();
  cold->callback([&] { run = [&] { return fkdb::Cold(path, batch_images, batch_crops); }; });
  auto* checks = app.add_subcommand("checks", "What each check of a file costs");
  checks->add_option("DB", path)->required();
  checks->callback([&] { run = [&] { return fkdb::Checks(path); }; });
  CLI11_PARSE(app, argc, argv);
  const auto done = run();
  if (!done) return fmt::print(stderr, "label_bench: {}\n", done.error().message), 1;
  return *done;
}
