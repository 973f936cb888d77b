// SPDX-License-Identifier: Apache-2.0
// What can go wrong while batches are loaded ahead: each ends in a clear error or a clean stop, in time.
#include <gtest/gtest.h>

#include <cstdlib>
#include <future>
#include <latch>
#include <set>
#include <stdexcept>
#include <thread>

#include "reader/epoch_plan.h"
#include "tests/db/test_files.h"
#include "tests/simd_targets.h"
#include "tests/trainer/made_up.h"
#include "trainer/batch_loader.h"
#include "trainer/supervision.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using test::MadeUp;

// Runs `body`, which hangs if something is broken; then this test program ends here.
void Within(std::chrono::seconds limit, const std::function<void()>& body) {
  auto done = std::async(std::launch::async, body);
  if (done.wait_for(limit) == std::future_status::ready) return done.get();
  std::fprintf(stderr, "not done after %lld s\n", static_cast<long long>(limit.count()));
  std::_Exit(1);
}

constexpr int kWorkers[] = {1, 2, 8};

class LoaderTest : public test::TempFolder {
 protected:
  std::unique_ptr<BatchLoader> Open(const DataSet& data, int workers, uint32_t batch_size = 4, Pass pass = {0, 1}) {
    supervision_ = std::move(*HardSupervision(data, {}, 1));
    const Normalization n = DefaultNormalization(data.channels());
    return std::move(
        *BatchLoader::Make(data, *supervision_, {{8, 8, Interpolation::kBilinear, n.mean, n.std}, 0, {pass}, batch_size, 1, 0, workers}));
  }
  // The error that ends the batches. Nothing comes after it.
  static Error FirstError(BatchLoader& loader) {
    for (;;) {
      const auto batch = loader.Next();
      if (!batch) {
        EXPECT_EQ(*loader.Next(), nullptr);
        return batch.error();
      }
      if (*batch == nullptr) return {ErrorCode::kModel, "there was no error"};
    }
  }
  // The golden photos, some copies of each, in two classes.
  fs::path Photos(int copies) {
    const fs::path folder = Path("photos");
    for (int i = 0; i < copies; ++i) {
      for (const char* name : {"444.jpg", "420.jpg", "progressive.jpg", "cmyk.jpg", "palette.png"}) {
        const fs::path to = folder / (i % 2 ? "a" : "b") / (std::to_string(i) + name);
        fs::create_directories(to.parent_path());
        fs::copy_file(fs::path(FKDB_SOURCE_DIR) / "tests/golden/pillow" / name, to);
      }
    }
    return folder;
  }

  std::unique_ptr<Supervision> supervision_;
};

TEST_F(LoaderTest, AnImageThatIsGoneOrBrokenInMidEpochIsNamed) {
  for (const int workers : kWorkers) {
    fs::remove_all(Path("photos"));
    const auto data = OpenDataSet(Photos(40));
    Within(std::chrono::seconds(60), [&] {
      const auto loader = Open(**data, workers);
      ASSERT_TRUE(*loader->Next());
      for (const auto& entry : fs::recursive_directory_iterator(Path("photos"))) {
        if (entry.path().filename().string().ends_with("444.jpg")) fs::remove(entry.path());
      }
      const Error error = FirstError(*loader);
      EXPECT_EQ(error.code, ErrorCode::kNotFound);
      EXPECT_NE(error.message.find("444.jpg': cannot open it: No such file or directory"), std::string::npos) << error.message;
    });
    fs::remove_all(Path("photos"));
    const auto again = OpenDataSet(Photos(40));
    Within(std::chrono::seconds(60), [&] {
      const auto loader = Open(**again, workers);
      ASSERT_TRUE(*loader->Next());
      for (const auto& entry : fs::recursive_directory_iterator(Path("photos"))) {
        if (entry.path().filename().string().ends_with("progressive.jpg")) fs::resize_file(entry.path(), 200);
      }
      const Error error = FirstError(*loader);
      EXPECT_EQ(error.code, ErrorCode::kCorruption);
      EXPECT_NE(error.message.find("progressive.jpg': broken JPEG: "), std::string::npos) << error.message;
    });
  }
}

TEST_F(LoaderTest, WhatAWorkerThrowsArrivesAsAnError) {
  for (const int workers : kWorkers) {
    for (const bool memory : {false, true}) {
      const MadeUp data(400, [&](uint64_t ordinal) -> Result<void> {
        if (ordinal == 123 && memory) throw std::bad_alloc();
        if (ordinal == 123) throw std::runtime_error("the cable was pulled");
        return {};
      });
      Within(std::chrono::seconds(30), [&] {
        const auto loader = Open(data, workers);
        const Error error = FirstError(*loader);
        EXPECT_EQ(error.code, memory ? ErrorCode::kResourceExhausted : ErrorCode::kIoError);
        EXPECT_EQ(error.message, memory ? "out of memory: fewer workers or smaller batches need less"
                                        : "a worker failed: the cable was pulled");
      });
    }
  }
}

// The first that failed in the step's order, however late it was: the same message in every run.
TEST_F(LoaderTest, OfTwoErrorsInAStepTheFirstImagesIsTold) {
  for (const int workers : kWorkers) {
    const MadeUp data(40);
    std::vector<uint64_t> order;
    {
      const auto loader = Open(data, 1, 40);
      const TrainBatch* batch = *loader->Next();
      for (size_t n = 0; n < 40; ++n) order.push_back(static_cast<uint64_t>(batch->labels.images()[n].ordinal));
    }
    const MadeUp broken(40, [&](uint64_t ordinal) -> Result<void> {
      if (ordinal == order[5]) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (ordinal == order[5] || ordinal == order[6]) return Fail(ErrorCode::kCorruption, std::to_string(ordinal));
      return {};
    });
    Within(std::chrono::seconds(30),
           [&] { EXPECT_EQ(FirstError(*Open(broken, workers, 40)).message, std::to_string(order[5])); });
  }
}

TEST_F(LoaderTest, AFullQueueDoesNotKeepItFromEnding) {
  for (const int workers : kWorkers) {
    std::atomic<uint64_t> loaded = 0;
    const MadeUp data(4000, [&](uint64_t) -> Result<void> { return ++loaded, Result<void>(); });
    Within(std::chrono::seconds(30), [&] {
      const auto loader = Open(data, workers);
      const uint64_t full = 4 * (loader->max_batches() - 1);  // nobody takes a batch: these and no more
      while (loaded < full) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EXPECT_EQ(loaded, full);
    });
  }
}

TEST_F(LoaderTest, EndingWaitsForNoMoreThanTheImagesUnderWay) {
  for (const int workers : kWorkers) {
    std::atomic<uint64_t> loaded = 0;
    std::latch all_at_work(workers), resetting(1), ending(1);
    const MadeUp data(4000, [&](uint64_t) -> Result<void> {
      if (++loaded <= static_cast<uint64_t>(workers)) {
        all_at_work.count_down();
        ending.wait();
      }
      return {};
    });
    Within(std::chrono::seconds(30), [&] {
      auto loader = Open(data, workers, 8);
      all_at_work.wait();
      std::jthread end([&] { resetting.count_down(), loader.reset(); });
      resetting.wait();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));  // it waits for them by now
      ending.count_down();
      end.join();
      EXPECT_EQ(loaded, static_cast<uint64_t>(workers));
    });
  }
}

TEST_F(LoaderTest, MemoryOfBatchesIsUsedAgain) {
  for (const int workers : kWorkers) {
    const MadeUp data(4000);
    const auto loader = Open(data, workers);
    std::set<const TrainBatch*> batches;
    uint64_t steps = 0;
    while (TrainBatch* const batch = *loader->Next()) {
      EXPECT_EQ(batch->step, steps++);
      EXPECT_GE(loader->batch_bytes(), batch->inputs.size() * sizeof(float));
      batches.insert(batch);
    }
    EXPECT_EQ(steps, 1000u);
    EXPECT_LE(batches.size(), loader->max_batches());
    EXPECT_EQ(loader->max_batches(), 3 + static_cast<uint64_t>(workers) / 4);  // of 4 images
  }
}

// A batch that was taken out stays what it is, and its memory comes back when it is given back.
TEST_F(LoaderTest, ReleasedBatchesAreTheCallers) {
  for (const int workers : kWorkers) {
    const MadeUp data(400);
    const auto loader = Open(data, workers);
    std::vector<std::unique_ptr<TrainBatch>> kept;
    std::vector<std::vector<float>> copies;
    for (int i = 0; i < 20; ++i) {
      copies.push_back(test::InputsOf(**loader->Next()));
      kept.push_back(loader->Release());
    }
    std::set<const TrainBatch*> batches;
    for (int i = 0; i < 20; ++i) {
      ASSERT_EQ(test::InputsOf(*kept[i]), copies[i]);
      EXPECT_EQ(kept[i]->step, static_cast<uint64_t>(i));
      batches.insert(kept[i].get());
    }
    EXPECT_EQ(batches.size(), 20u);
    std::thread([&] { kept.clear(); }).join();  // a released batch needs no loader to be destroyed
    batches.clear();
    while (TrainBatch* const batch = *loader->Next()) {
      batches.insert(batch);
      std::unique_ptr<TrainBatch> taken = loader->Release();
      ASSERT_EQ(taken.get(), batch);
      std::thread([&] { loader->Recycle(std::move(taken)); }).join();
    }
    EXPECT_LE(batches.size(), loader->max_batches());
  }
}

// Processes that train together see every image once, but for fewer than there are processes, which change.
TEST_F(LoaderTest, ShardsAreDisjoint) {
  const MadeUp data(23);
  const auto supervision = HardSupervision(data, {}, 1);
  const InputSpec input = {8, 8, Interpolation::kBilinear, {0.5}, {0.5}};
  for (const uint64_t ranks : {1, 2, 3, 7}) {
    std::set<std::set<uint64_t>> left_out;
    for (uint64_t pass = 0; pass < 12; ++pass) {
      std::vector<uint64_t> seen;
      const Permutation order = ImageOrder(23, 1, pass);
      for (uint64_t rank = 0; rank < ranks; ++rank) {
        const auto loader = BatchLoader::Make(data, **supervision, {input, pass, {{0, 2}}, 4, 1, 0, 2, {rank, ranks}});
        uint64_t steps = 0, place = rank;
        while (const TrainBatch* batch = *(*loader)->Next()) {
          ++steps;
          for (const BatchImage& image : batch->labels.images()) {
            EXPECT_EQ(image.ordinal, order(place));
            place += ranks;
            seen.push_back(image.ordinal);
          }
        }
        EXPECT_EQ(steps, NumSteps(23, 2, 4, {rank, ranks}));
      }
      const std::set<uint64_t> distinct(seen.begin(), seen.end());
      EXPECT_EQ(distinct.size(), seen.size());
      EXPECT_EQ(seen.size(), 23 / ranks * ranks);
      left_out.insert(distinct);
    }
    EXPECT_EQ(left_out.size() > 1, 23 % ranks != 0);
  }
  const auto none = BatchLoader::Make(data, **supervision, {input, 0, {{0, 2}}, 4, 1, 0, 2, {3, 3}});
  EXPECT_EQ(none.error().message, "rank 3 of 3: expected one of 0 to 2");
  EXPECT_EQ(BatchLoader::Make(data, **supervision, {input, 0, {{0, 2}}, 4, 1, 0, 2, {0, 24}}).error().message, "23 images for 24 processes");
}

// One process that does the work of several sees what they would see, step by step.
TEST_F(LoaderTest, PartsAreOtherProcessesSteps) {
  const MadeUp data(23);
  const auto supervision = HardSupervision(data, {}, 1);
  const InputSpec input = {8, 8, Interpolation::kBilinear, {0.5}, {0.5}};
  const std::vector<Pass> passes = {{0, 2}, {2, 1}};
  const auto steps_of = [&](Shard shard) {
    std::vector<std::vector<float>> steps;
    const auto loader = BatchLoader::Make(data, **supervision, {input, 0, passes, 4, 1, 0, 2, shard});
    while (const TrainBatch* batch = *(*loader)->Next()) steps.emplace_back(batch->inputs.begin(), batch->inputs.end());
    return steps;
  };
  // Rank 1 of 2 in 3 parts: the processes 3, 4 and 5 of 6.
  const auto parts = steps_of({1, 2, 3});
  ASSERT_EQ(parts.size(), NumSteps(23, 2, 4, {1, 2, 3}) + NumSteps(23, 1, 4, {1, 2, 3}));
  for (uint64_t part = 0; part < 3; ++part) {
    const auto alone = steps_of({3 + part, 6});
    ASSERT_EQ(alone.size() * 3, parts.size());
    for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(parts[3 * i + part], alone[i]) << part << " " << i;
  }
  EXPECT_EQ(BatchLoader::Make(data, **supervision, {input, 0, passes, 4, 1, 0, 2, {0, 1, 24}}).error().message, "23 images for 24 parts of all processes");
}

// Operations that cannot be done to a student's crops are not left out in silence.
TEST_F(LoaderTest, LabelsOfChangedCropsAreRefused) {
  test::RandomLabels set(20, test::MakeSpec(LabelKind::kHard, 2, 1), 2);
  set.records[11].ops = {{}, {{OpKind::kSolarize, 0, {128}}}};
  set.recipe.imported_from = "ml-dr";
  ASSERT_TRUE(set.Build(Path("l.fkdb")));
  const auto reader = Reader::Open(Path("l.fkdb"));
  const auto supervision = DbSupervision(*reader, CropOrder::kCycle, 1);
  LabelBatch labels;
  EXPECT_TRUE((*supervision)->FillLabels({0, {0, 2}, {10, 12}}, &labels));
  const auto filled = (*supervision)->FillLabels({0, {0, 2}, {10, 11}}, &labels);
  EXPECT_EQ(filled.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(filled.error().message.find("its crops were changed by 'solarize' of the system that they were imported from, which cannot be done to a student's"),
            std::string::npos) << filled.error().message;
}

// What a loader over several passes gives is what one for each of them gives.
TEST_F(LoaderTest, PassesFollowOneAnother) {
  const MadeUp data(10);
  const auto supervision = HardSupervision(data, {}, 1);
  const std::vector<Pass> passes = {{3, 2}, {5, 2}, {7, 1}, {8, 1}};
  const InputSpec input = {8, 8, Interpolation::kBilinear, {0.5}, {0.5}};
  for (const int workers : kWorkers) {
    const auto all = BatchLoader::Make(data, **supervision, {input, 20, passes, 6, 1, 2, workers});  // 3 images a step, 6 of one crop
    for (uint64_t i = 0; i < passes.size(); ++i) {
      const auto one = BatchLoader::Make(data, **supervision, {input, 20 + i, {passes[i]}, 6, 1, i == 0 ? 2u : 0u, workers});
      while (const TrainBatch* expected = *(*one)->Next()) {
        const TrainBatch* found = *(*all)->Next();
        ASSERT_NE(found, nullptr);
        EXPECT_EQ(found->pass, 20 + i);
        EXPECT_EQ(found->step, expected->step);
        ASSERT_EQ(test::InputsOf(*found), test::InputsOf(*expected));
        ASSERT_EQ(found->arrays.indices, expected->arrays.indices);
      }
    }
    EXPECT_EQ(*(*all)->Next(), nullptr);
    const auto at_the_end = BatchLoader::Make(data, **supervision, {input, 20, {passes[0], passes[3]}, 6, 1, 4, workers});
    EXPECT_EQ((*(*at_the_end)->Next())->pass, 21u);
  }
}

// Photos of every sort, several crops of each.
TEST_F(LoaderTest, BatchesHaveTheSameBitsWithEveryInstructionSetAndAnyNumberOfWorkers) {
  const auto data = OpenDataSet(Photos(3));
  std::vector<std::vector<float>> reference;
  test::ForEachSimdTarget([&] {
    for (const int workers : kWorkers) {
      const auto loader = Open(**data, workers, 9, {0, 3});
      size_t step = 0;
      while (const TrainBatch* batch = *loader->Next()) {
        if (step == reference.size()) reference.push_back(test::InputsOf(*batch));
        ASSERT_EQ(test::InputsOf(*batch), reference[step]) << workers << " workers, step " << step;
        ++step;
      }
      ASSERT_EQ(step, 5u);
    }
  });
}

}  // namespace
}  // namespace fkdb
