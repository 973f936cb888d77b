// SPDX-License-Identifier: Apache-2.0
// Synthetic label sets with the statistics of real ones, for benchmarks only, and what fkdb takes to
// encode, open and read them. One JSON line a measurement. tests/bench/README.md has the commands.
//
//   label_bench make --images N --crops M --out X.fkdb    builds a label set (about 13 bytes a crop)
//   label_bench encode                                    top-k values to record bytes, one thread
//   label_bench read X.fkdb                               opening, random access in batches
//   label_bench checks X.fkdb                             what each check costs
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <random>

#include "db/label_file_writer.h"
#include "db/page_walk.h"
#include "db/sha256.h"
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

Result<int> Make(uint64_t images, uint32_t crops, const std::string& encoding, const std::string& out) {
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
    FKDB_ASSIGN(std::vector<std::byte> record, EncodeRecord(recipe.spec, SyntheticRecord(recipe.spec, i, crops)));
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

Result<int> Read(const std::string& path, uint32_t batch_images, uint32_t crops) {
  std::vector<double> opens;
  for (int repeat = 0; repeat < 9; ++repeat) {
    const auto begin = Clock::now();
    FKDB_ASSIGN(const Reader reader, Reader::Open(path));
    opens.push_back(SecondsSince(begin));
  }
  FKDB_ASSIGN(const Reader reader, Reader::Open(path));
  const double first_open = opens[0];
  const Permutation order(reader.num_images(), 3, 1);
  std::vector<uint64_t> ordinals(reader.num_images());
  for (uint64_t i = 0; i < ordinals.size(); ++i) ordinals[i] = order(i);
  LabelBatch batch;
  std::vector<uint32_t> chosen(batch_images * crops);
  std::vector<CropRequest> requests(batch_images);
  std::vector<double> per_image;
  uint64_t at = 0;
  const uint64_t batches = std::min<uint64_t>(20000, reader.num_images() / batch_images);
  for (int pass = 0; pass < 5; ++pass) {
    const auto begin = Clock::now();
    for (uint64_t b = 0; b < batches; ++b) {
      for (uint32_t i = 0; i < batch_images; ++i, ++at) {
        requests[i].ordinal = ordinals[at % ordinals.size()];
        for (uint32_t k = 0; k < crops; ++k) chosen[i * crops + k] = static_cast<uint32_t>((at * 7 + k * 49) % 200);
        requests[i].crops = std::span(chosen).subspan(i * crops, crops);
      }
      FKDB_TRY(FillBatch(reader, requests, &batch));
    }
    per_image.push_back(SecondsSince(begin) / static_cast<double>(batches * batch_images) * 1e6);
    if (pass == 0) at = 0;  // the first pass warms the page cache
  }
  per_image.erase(per_image.begin());
  fmt::print("{{\"read\":\"{}\",\"images\":{},\"first_open_ms\":{:.2f},\"open_ms\":{:.2f},\"us_per_image\":{:.3f},\"batch_images\":{},\"crops\":{}}}\n",
             path, reader.num_images(), first_open * 1e3, Median(opens) * 1e3, Median(per_image), batch_images, crops);
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
  std::string out, path, encoding = "packed";
  std::function<fkdb::Result<int>()> run;
  auto* make = app.add_subcommand("make", "Builds a synthetic label set");
  make->add_option("--images", images)->capture_default_str();
  make->add_option("--crops", crops)->capture_default_str();
  make->add_option("--out", out)->required();
  make->add_option("--encoding", encoding)->capture_default_str();
  make->callback([&] { run = [&] { return fkdb::Make(images, crops, encoding, out); }; });
  auto* encode = app.add_subcommand("encode", "Records from top-k values");
  encode->add_option("--encoding", encoding)->capture_default_str();
  encode->callback([&] { run = [&] { return fkdb::Encode(encoding); }; });
  auto* read = app.add_subcommand("read", "Opens and reads a label set");
  read->add_option("DB", path)->required();
  read->add_option("--batch-images", batch_images)->capture_default_str();
  read->add_option("--batch-crops", batch_crops)->capture_default_str();
  read->callback([&] { run = [&] { return fkdb::Read(path, batch_images, batch_crops); }; });
  auto* checks = app.add_subcommand("checks", "What each check of a file costs");
  checks->add_option("DB", path)->required();
  checks->callback([&] { run = [&] { return fkdb::Checks(path); }; });
  CLI11_PARSE(app, argc, argv);
  const auto done = run();
  if (!done) return fmt::print(stderr, "label_bench: {}\n", done.error().message), 1;
  return *done;
}
