// SPDX-License-Identifier: Apache-2.0
#include "reader/reader.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <new>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "db/preload.h"
#include "db/rewrite.h"
#include "format/crop_op.h"
#include "format/recode.h"
#include "reader/audit.h"
#include "reader/dump.h"
#include "reader/epoch_plan.h"
#include "reader/label_batch.h"
#include "reader/verify.h"
#include "tests/db/test_files.h"
#include "tests/reader/count_allocations.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using test::RandomLabels;
using test::MakeSpec;

// How often each crop comes in `passes` passes of m crops.
std::map<uint32_t, int> Count(CropOrder order, uint32_t num_crops, uint32_t m, uint64_t passes) {
  std::map<uint32_t, int> count;
  for (uint64_t pass = 0; pass < passes; ++pass) {
    std::vector<uint32_t> crops(m);
    SelectCrops(order, 5, pass, 17, num_crops, pass * m, crops);
    for (const uint32_t crop : crops) ++count[crop];
  }
  return count;
}

TEST(EpochPlan, CycleUsesEveryCropOnceBeforeAnyTwice) {
  for (const uint32_t num_crops : {1u, 4u, 5u, 200u}) {
    for (const uint32_t m : {1u, 2u, 4u, 7u}) {
      const uint64_t cycles = 3;
      for (uint64_t used = 0; used + m <= cycles * num_crops; used += m) {
        const auto count = Count(CropOrder::kCycle, num_crops, m, used / m + 1);
        const int whole = static_cast<int>((used + m) / num_crops);
        for (uint32_t crop = 0; crop < num_crops; ++crop) {
          const int n = count.contains(crop) ? count.at(crop) : 0;
          ASSERT_TRUE(n == whole || n == whole + 1) << num_crops << " " << m << " " << used;
        }
      }
    }
  }
}

TEST(EpochPlan, VisitDrawsWithoutRepetitionAndAfresh) {
  std::vector<uint32_t> first(8), second(8);
  SelectCrops(CropOrder::kVisit, 5, 0, 17, 200, 0, first);
  SelectCrops(CropOrder::kVisit, 5, 1, 17, 200, 8, second);
  EXPECT_NE(first, second);
  std::sort(first.begin(), first.end());
  EXPECT_EQ(std::unique(first.begin(), first.end()), first.end());
  const auto count = Count(CropOrder::kVisit, 20, 4, 10000);
  ASSERT_EQ(count.size(), 20u);
  for (const auto& [crop, n] : count) EXPECT_NEAR(n, 2000, 200);
}

TEST(EpochPlan, EachImageOnceAPassInAnotherOrderEachPass) {
  const Permutation small = ImageOrder(10, 1, 0);  // for good: seeds name trainings
  const uint32_t known[] = {7, 0, 6, 4, 8, 1, 3, 2, 5, 9};
  for (uint64_t i = 0; i < 10; ++i) EXPECT_EQ(small(i), known[i]);
  const Permutation a = ImageOrder(1000, 1, 0), b = ImageOrder(1000, 1, 1), c = ImageOrder(1000, 2, 0);
  int same_ab = 0, same_ac = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    same_ab += a(i) == b(i);
    same_ac += a(i) == c(i);
  }
  EXPECT_LT(same_ab, 20);
  EXPECT_LT(same_ac, 20);
}

// Which crops a training sees is promised to stay: a run resumed under a newer version goes on.
TEST(EpochPlan, NeverChanges) {
  std::vector<uint32_t> cycle(6), visit(6);
  SelectCrops(CropOrder::kCycle, 1, 3, 12345, 10, 8, cycle);
  SelectCrops(CropOrder::kVisit, 1, 3, 12345, 10, 8, visit);
  EXPECT_EQ(cycle, (std::vector<uint32_t>{9, 7, 7, 4, 2, 8}));
  EXPECT_EQ(visit, (std::vector<uint32_t>{6, 2, 7, 1, 3, 4}));
  const Permutation order = ImageOrder(1281167, 1, 2);
  EXPECT_EQ(order(0), 531076u);
  EXPECT_EQ(order(1281166), 590609u);
}

class ReaderTest : public test::TempFolder {
 protected:
  fs::path path = Path("labels.fkdb");
};

TEST_F(ReaderTest, BatchesHoldWhatTheRecordsSay) {
  for (const LabelKind kind : test::kAllKinds) {
    for (const BoxEncoding boxes : test::kAllBoxes) {
      const RandomLabels set(30, MakeSpec(kind, 10, 5, ValueEncoding::kF32, boxes), 6);
      LabelFileWriterOptions options;
      options.overwrite = true;
      ASSERT_TRUE(set.Build(path, options));
      const auto reader = Reader::Open(path);
      ASSERT_TRUE(reader);
      const std::vector<uint32_t> two = {5, 0}, three = {1, 1, 2};
      const std::vector<CropRequest> requests = {{29, two}, {3, three}};
      LabelBatch batch;
      ASSERT_TRUE(FillBatch(*reader, requests, &batch));
      ASSERT_EQ(batch.size(), 5u);
      LabelArrays labels;
      batch.Expand(&labels);
      size_t row = 0;
      for (const CropRequest& request : requests) {
        const Record& record = set.records[request.ordinal];
        for (const uint32_t crop : request.crops) {
          const size_t n = set.recipe.spec.num_indices(), v = set.recipe.spec.num_values();
          for (size_t i = 0; i < n; ++i) EXPECT_EQ(labels.indices[row * n + i], record.indices[crop * n + i]);
          for (size_t i = 0; i < v; ++i) EXPECT_EQ(labels.values[row * v + i], record.values[crop * v + i]);
          EXPECT_EQ(batch.flips()[row], record.flips[crop]);
          EXPECT_EQ(batch.boxes()[row], boxes == BoxEncoding::kPixel ? record.pixel_boxes[crop]
                                                                     : ToPixels(record.fraction_boxes[crop], 500, 375));
          ++row;
        }
      }
      for (const void* array : {static_cast<const void*>(batch.values()), static_cast<const void*>(batch.boxes().data())}) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(array) % 64, 0u);
      }
      // The next batch of the same size uses the same memory.
      const std::byte* before = batch.bytes().data();
      ASSERT_TRUE(FillBatch(*reader, requests, &batch));
      EXPECT_EQ(batch.bytes().data(), before);
    }
  }
}

TEST_F(ReaderTest, WrongRequestsNameFileImageAndCrop) {
  RandomLabels set(3);
  set.records[1] = {};
  set.records[1].key_hash = Hash64(set.keys[1]);
  set.records[1].skip_reason = "broken JPEG";
  ASSERT_TRUE(set.Build(path));
  const auto reader = Reader::Open(path);
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader->manifest().skipped, (std::vector<uint64_t>{1}));
  LabelBatch batch;
  const auto message = [&](uint64_t ordinal, std::vector<uint32_t> crops) {
    const CropRequest request = {ordinal, crops};
    return FillBatch(*reader, std::span(&request, 1), &batch).error().message;
  };
  EXPECT_EQ(message(0, {0, 4}), path.string() + ": image '00000.jpg': no crop 4: it has 4 (counted from 0)");
  EXPECT_EQ(message(1, {0}), path.string() + ": image '00001.jpg': it was skipped when labelled (broken JPEG)");
  EXPECT_EQ(message(3, {0}), path.string() + ": no image 3: the label set has 3 (counted from 0)");
}

// Memory that whoever wants can pin; once it is there, batches of that size allocate nothing more.
TEST_F(ReaderTest, BatchesUseTheMemoryTheyAreGiven) {
  const RandomLabels set(30, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, ValueEncoding::kPacked), 6);
  ASSERT_TRUE(set.Build(path));
  const auto reader = Reader::Open(path);
  ASSERT_TRUE(reader);
  int live = 0, made = 0;
  {
    LabelBatch batch({[&](size_t bytes) { return ++live, ++made, ::operator new(bytes, std::align_val_t{64}); },
                      [&](void* p) { --live, ::operator delete(p, std::align_val_t{64}); }});
    std::vector<uint64_t> ordinals = {3, 17, 29};
    uint32_t turn = 0;
    const ChooseCrops choose = [&](size_t image, uint32_t num_crops, std::span<uint32_t> crops) {
      EXPECT_EQ(num_crops, set.records[ordinals[image]].num_crops());
      for (uint32_t& crop : crops) crop = turn++ % num_crops;
    };
    for (int step = 0; step < 5; ++step) {
      const uint64_t before = test::Allocations();
      ASSERT_TRUE(FillBatch(*reader, ordinals, 4, choose, &batch));
      EXPECT_TRUE(step == 0 || test::Allocations() == before);
      ASSERT_EQ(batch.images().size(), 3u);
      for (uint32_t i = 0; i < 3; ++i) {
        const BatchImage& image = batch.images()[i];
        EXPECT_EQ(image.ordinal, ordinals[i]);
        EXPECT_EQ(image.width, set.records[ordinals[i]].width);
        EXPECT_EQ(image.height, set.records[ordinals[i]].height);
        EXPECT_EQ(image.first_crop, 4 * i);
        EXPECT_EQ(image.num_crops, 4u);
      }
    }
    EXPECT_EQ(made, 1);
    EXPECT_EQ(live, 1);
    LabelBatch moved = std::move(batch);
    EXPECT_EQ(moved.size(), 12u);
  }
  EXPECT_EQ(live, 0);
  LabelBatch none({[](size_t) -> void* { return nullptr; }, [](void*) {}});
  EXPECT_THROW(none.Resize(set.recipe.spec, 1, 1), std::bad_alloc);
}

TEST_F(ReaderTest, BatchesCarryOperations) {
  RandomLabels set(4, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, ValueEncoding::kPacked), 3);
  set.records[1].ops = {{}, {{OpKind::kGrayscale}}, {{OpKind::kInvert}, {OpKind::kGrayscale}}};
  ASSERT_TRUE(set.Build(path));
  const auto reader = Reader::Open(path);
  ASSERT_TRUE(reader);
  const std::vector<uint32_t> all = {0, 1, 2}, back = {2, 0};
  const std::vector<CropRequest> requests = {{0, all}, {1, all}, {2, back}, {1, back}};
  LabelBatch batch;
  ASSERT_TRUE(FillBatch(*reader, requests, &batch));
  std::vector<size_t> counts;
  for (size_t n = 0; n < batch.size(); ++n) counts.push_back(ParseOpWords(batch.ops(n))->size());
  EXPECT_EQ(counts, (std::vector<size_t>{0, 0, 0, 0, 1, 2, 0, 0, 2, 0}));
  ASSERT_TRUE(FillBatch(*reader, std::span(requests).first(1), &batch));
  EXPECT_TRUE(batch.ops(2).empty());
}

TEST_F(ReaderTest, PreloadingChangesNothingButSpeed) {
  const RandomLabels set(300, MakeSpec(LabelKind::kMarginalSmoothing, 1000, 5, ValueEncoding::kF32), 40);
  ASSERT_TRUE(set.Build(path));
  const auto reader = Reader::Open(path);
  ASSERT_TRUE(reader);
  EXPECT_EQ(Preloader(reader->label_set(), Preload::kOff).bytes(), 0u);
  for (const Preload mode : {Preload::kAuto, Preload::kOn}) {
    Preloader preloader(reader->label_set(), mode);
    EXPECT_GT(preloader.bytes(), fs::file_size(path) * 9 / 10);
    preloader.Wait();
    preloader.Wait();
  }
  const Preloader not_waited_for(reader->label_set(), Preload::kOn);
  EXPECT_TRUE(reader->Get(299));
  EXPECT_EQ(*ParsePreload("auto"), Preload::kAuto);
  EXPECT_EQ(ParsePreload("fast").error().message, "preload 'fast': expected auto, on or off");
}

// The labels of every crop of every image, hashed.
uint64_t ReadAll(const Reader& reader) {
  uint64_t hash = 0;
  LabelBatch batch;
  for (uint64_t i = 0; i < reader.num_images(); ++i) {
    std::vector<uint32_t> crops(reader.Get(i)->num_crops());
    std::iota(crops.begin(), crops.end(), 0u);
    const CropRequest request = {i, crops};
    if (!FillBatch(reader, {&request, 1}, &batch)) return 0;
    const auto add = [&](auto span) {
      hash = Hash64({reinterpret_cast<const char*>(span.data()), span.size_bytes()}) + 31 * hash;
    };
    LabelArrays labels;
    batch.Expand(&labels);
    add(std::span(labels.values));
    add(std::span(labels.indices));
    add(batch.boxes());
    add(batch.flips());
  }
  return hash;
}

// One reader, of a file and of a collection: four threads here, and four in each of two children that
// inherit the map.
TEST_F(ReaderTest, ThreadsAndForkedChildrenReadTheSame) {
  const RandomLabels set(200, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, ValueEncoding::kPacked));
  ASSERT_TRUE(set.Build(Path("whole.fkdb")));
  std::vector<fs::path> parts;
  for (uint32_t i = 0; i < 2; ++i) {
    parts.push_back(Path(std::to_string(i) + ".fkdb"));
    SubsetOptions half;
    for (uint64_t n = i; n < 200; n += 2) half.images.push_back(set.keys[n]);
    ASSERT_TRUE(SubsetLabelSet(Path("whole.fkdb"), parts.back(), half));
  }
  ASSERT_TRUE(CollectLabelSets(parts, Path("all.fkdb"), {}));
  const auto whole = Reader::Open(Path("whole.fkdb")), all = Reader::Open(Path("all.fkdb"));
  ASSERT_TRUE(whole && all);
  const uint64_t expected = ReadAll(*whole);
  EXPECT_NE(expected, 0u);
  const auto four_threads_agree = [&] {
    std::atomic<int> wrong = 0;
    {
      std::vector<std::jthread> threads;
      for (int t = 0; t < 4; ++t) threads.emplace_back([&, t] { wrong += ReadAll(t % 2 ? *whole : *all) != expected; });
    }
    return wrong == 0;
  };
  pid_t children[2];
  for (pid_t& child : children) {
    child = ::fork();
    if (child == 0) ::_exit(four_threads_agree() ? 0 : 1);
  }
  EXPECT_TRUE(four_threads_agree());
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
}

// M is each image's own: everything counts what is there.
TEST_F(ReaderTest, ImagesWithDifferentNumbersOfCrops) {
  for (const ValueEncoding values : test::kAllValues) {
    RandomLabels set(30, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, values), 9);
    uint64_t crops = 0;
    for (uint32_t i = 0; i < 30; ++i) {
      set.records[i] = FirstCrops(set.recipe.spec, set.records[i], 1 + i % 9);
      crops += 1 + i % 9;
    }
    LabelFileWriterOptions overwrite;
    overwrite.overwrite = true;
    ASSERT_TRUE(set.Build(Path("l.fkdb"), overwrite));
    const VerifyReport report = Verify(Path("l.fkdb"), 2);
    EXPECT_TRUE(report.ok) << report.errors[0];
    EXPECT_EQ(report.crops, crops);
    const auto reader = Reader::Open(Path("l.fkdb"));
    const auto audit = Audit(*reader);
    EXPECT_EQ(audit->crops, crops);
    EXPECT_EQ(nlohmann::json::parse(*DumpImage(*reader, 12))["crops"].size(), 4u);
    EXPECT_NE(ReadAll(*reader), 0u);
    SubsetOptions options;
    options.file = overwrite;
    options.crops = 3;
    const auto few = SubsetLabelSet(Path("l.fkdb"), Path("few.fkdb"), options);
    ASSERT_TRUE(few);
    EXPECT_EQ(few->num_crops, 30u * 3 - 4 * 2 - 4);  // 4 images have one crop, 4 have two
    EXPECT_TRUE(Verify(Path("few.fkdb")).ok);
  }
}

TEST_F(ReaderTest, DumpHasThePromisedFieldsForEveryKind) {
  for (const LabelKind kind : test::kAllKinds) {
    for (const ValueEncoding values : test::kAllValues) {
      const RandomLabels set(3, MakeSpec(kind, 10, 5, values), 4);
      LabelFileWriterOptions options;
      options.overwrite = true;
      ASSERT_TRUE(set.Build(path, options));
      const auto reader = Reader::Open(path);
      ASSERT_TRUE(reader);
      DumpOptions dump;
      dump.dense = true;
      if (kind == LabelKind::kLogits) {
        EXPECT_EQ(DumpImage(*reader, 1, dump).error().message,
                  "dense labels from logits need a temperature: --tau T, above 0");
        dump.tau = 2;
      }
      const auto text = DumpImage(*reader, 1, dump);
      ASSERT_TRUE(text) << text.error().message;
      const auto json = nlohmann::json::parse(*text);
      EXPECT_EQ(json["key"], "00001.jpg");
      EXPECT_EQ(json["ordinal"], 1);
      EXPECT_EQ(json["width"], 500);
      EXPECT_EQ(json["height"], 375);
      EXPECT_EQ(json["class"], set.records[1].class_index);
      EXPECT_EQ(json["kind"], std::string(Name(kind)));
      EXPECT_EQ(json["box_unit"], "pixel");
      ASSERT_EQ(json["crops"].size(), 4u);
      for (size_t i = 0; i < 4; ++i) {
        const auto& crop = json["crops"][i];
        const PixelBox& b = set.records[1].pixel_boxes[i];
        EXPECT_EQ(crop["box"], (std::vector<uint32_t>{b.top, b.left, b.height, b.width}));
        EXPECT_EQ(crop["flip"], set.records[1].flips[i] != 0);
        EXPECT_EQ(crop["ops"], nlohmann::json::array());
        EXPECT_EQ(crop.contains("indices"), kind != LabelKind::kFull && kind != LabelKind::kLogits);
        if (kind == LabelKind::kHard) {
          EXPECT_EQ(crop["values"], (std::vector<int>{1}));
        } else {
          EXPECT_EQ(crop["values"].size(), set.recipe.spec.num_values());
        }
        if (values == ValueEncoding::kF32 && kind != LabelKind::kHard) {  // prints what reads back to the same float
          for (size_t k = 0; k < crop["values"].size(); ++k) {
            EXPECT_EQ(crop["values"][k].get<float>(), set.records[1].values[i * set.recipe.spec.num_values() + k]);
          }
        }
        double sum = 0;
        for (const double y : crop["dense"]) sum += y;
        EXPECT_NEAR(sum, 1, 1e-5);
      }
    }
  }
}

TEST_F(ReaderTest, VerifyFindsWhatIsWrong) {
  const RandomLabels set(50);
  const auto manifest = set.Build(path);
  ASSERT_TRUE(manifest);
  for (const int threads : {1, 3}) {
    const VerifyReport report = Verify(path, threads);
    EXPECT_TRUE(report.ok);
    EXPECT_EQ(report.images, 50u);
    EXPECT_EQ(report.crops, 200u);
    EXPECT_EQ(report.digest, manifest->digest);
  }
  // Damage the values of a record in the middle of the file.
  std::string bytes = test::ReadBytes(path);
  const auto needle = set.Encoded(20);
  const size_t at = bytes.find(std::string_view(reinterpret_cast<const char*>(needle.data()) + 64, needle.size() - 64));
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  test::WriteBytes(path, bytes);
  const VerifyReport report = Verify(path, 2);
  EXPECT_FALSE(report.ok);
  EXPECT_EQ(report.error_count, 1u);
  EXPECT_EQ(report.code, ErrorCode::kCorruption);
  EXPECT_EQ(report.errors[0], path.string() + ": image 20: block: checksum of record 20 does not match");
  EXPECT_EQ(report.images, 49u);
}

TEST_F(ReaderTest, VerifyComparesDigests) {
  ASSERT_TRUE(RandomLabels(5).Build(path));
  ASSERT_TRUE(RandomLabels(5, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5), 4, 2).Build(Path("other.fkdb")));
  VerifyReport a = Verify(path);
  const VerifyReport b = Verify(Path("other.fkdb"));
  ASSERT_TRUE(a.ok && b.ok);
  CompareDigests(a, a, &a);
  EXPECT_TRUE(a.ok);
  CompareDigests(a, b, &a);
  EXPECT_FALSE(a.ok);
  EXPECT_EQ(a.error_count, 1u);
}

// The paper's Table 2: 5.3, 6.2, 13.3, 22.2 GB and 0.9 TB for 1.2 M images of 200 crops, ReLabel's maps 10 GB and 1 TB.
TEST(Audit, Table2CountsAsThePaperDoes) {
  const auto rows = Table2(1.2e6, 200, 1000);
  ASSERT_EQ(rows.size(), 7u);
  const double gib = 1ull << 30;
  const std::vector<std::pair<std::string, double>> expected = {
      {"hard", 5.36}, {"smoothing", 6.26}, {"marginal K=5", 13.41}, {"marginal K=10", 22.35}, {"full", 898.54}, {"label map K=5", 10.06}, {"label map full", 1005.83}};
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(rows[i].kind, expected[i].first);
    EXPECT_NEAR(rows[i].bytes / gib, expected[i].second, 0.005);
  }
}

TEST_F(ReaderTest, AuditAddsUpAndMeasuresTheTeacher) {
  RandomLabels set(40, MakeSpec(LabelKind::kMarginalSmoothing, 10, 2, ValueEncoding::kF32), 3);
  for (Record& record : set.records) {
    record.class_index = 4;
    for (uint32_t crop = 0; crop < 3; ++crop) {
      record.indices[crop * 2] = crop == 0 ? 4 : 5;  // right in one crop of three
      record.indices[crop * 2 + 1] = 6;
      record.values[crop * 2] = 0.5f;
      record.values[crop * 2 + 1] = 0.25f;
    }
  }
  ASSERT_TRUE(set.Build(path));
  const auto reader = Reader::Open(path);
  ASSERT_TRUE(reader);
  const auto report = Audit(*reader);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->crops, 120u);
  uint64_t sum = 0;
  for (const auto& part : report->parts) sum += part.bytes;
  EXPECT_EQ(sum, fs::file_size(path));
  EXPECT_EQ(report->parts[0].bytes, 120u * 8);
  EXPECT_EQ(report->parts[2].bytes, 120u * 2 * 2);
  EXPECT_EQ(report->parts[3].bytes, 120u * 2 * 4);
  EXPECT_NEAR(report->teacher_agreement, 1. / 3, 1e-9);
  EXPECT_NEAR(report->mean_top1, 0.5, 1e-9);
  EXPECT_NEAR(report->mean_tail, 0.25, 1e-6);
  const double tail = 0.25 / 8;
  EXPECT_NEAR(report->mean_entropy, -0.5 * std::log(0.5) - 0.25 * std::log(0.25) - 8 * tail * std::log(tail), 1e-6);
  EXPECT_EQ(report->table2_bytes_per_crop, (2 * 2 + 5) * 4);
}

}  // namespace
}  // namespace fkdb
