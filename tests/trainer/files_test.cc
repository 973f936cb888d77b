// SPDX-License-Identifier: Apache-2.0
// The parts of trainer/ that need no Torch: tensor files, schedules, matching, batches.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>

#include "tests/db/test_files.h"
#include "tests/trainer/made_up.h"
#include "trainer/batch_loader.h"
#include "trainer/match.h"
#include "trainer/safetensors.h"
#include "trainer/schedule.h"
#include "trainer/supervision.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

class TensorFileTest : public test::TempFolder {
 protected:
  fs::path path = Path("x.safetensors");
  std::string Message(const std::string& header, const std::string& data) {
    const uint64_t size = header.size();
    test::WriteBytes(path, std::string(reinterpret_cast<const char*>(&size), 8) + header + data);
    const auto file = ReadTensorFile(path);
    return file ? "" : file.error().message;
  }
  std::string Prefix() const { return path.string() + ": not a safetensors file: "; }
};

TEST_F(TensorFileTest, RoundTrips) {
  TensorFile file;
  file.metadata["model"] = "resnet18";
  file.tensors["a.weight"] = {"F32", {2, 3}, std::vector<std::byte>(24, std::byte{7})};
  file.tensors["b"] = {"I64", {}, std::vector<std::byte>(8, std::byte{1})};
  file.tensors["empty"] = {"F16", {0, 5}, {}};
  ASSERT_TRUE(WriteTensorFile(path, file));
  const auto read = ReadTensorFile(path);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->metadata, file.metadata);
  ASSERT_EQ(read->tensors.size(), 3u);
  EXPECT_EQ(read->tensors.at("a.weight").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(read->tensors.at("a.weight").data, file.tensors["a.weight"].data);
  EXPECT_FALSE(fs::exists(path.string() + ".new"));
}

TEST_F(TensorFileTest, EachFaultIsNamed) {
  const std::string eight(8, '\0');
  EXPECT_EQ(Message(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", eight), "");
  EXPECT_EQ(Message("{", ""), Prefix() + "its header is not a JSON object");
  EXPECT_EQ(Message("[]", ""), Prefix() + "its header is not a JSON object");
  const std::string broken = Prefix() + "its entry 'a' is broken";
  EXPECT_EQ(Message(R"({"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})", eight), broken);
  EXPECT_EQ(Message(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", eight), broken);
  EXPECT_EQ(Message(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", eight), broken);
  EXPECT_EQ(Message(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", eight), broken);
  EXPECT_EQ(Message(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", eight), broken);
  EXPECT_EQ(Message(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}})", eight), broken);
  EXPECT_EQ(Message(R"({"a":7})", ""), broken);
  EXPECT_EQ(Message(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", eight),
            Prefix() + "bytes are left over after its tensors");
  EXPECT_EQ(Message(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", eight),
            Prefix() + "its tensors overlap or leave holes");
  test::WriteBytes(path, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8));
  EXPECT_EQ(ReadTensorFile(path).error().code, ErrorCode::kCorruption);
  test::WriteBytes(path, "short");
  EXPECT_EQ(ReadTensorFile(path).error().code, ErrorCode::kCorruption);
  EXPECT_EQ(ReadTensorFile(Path("none")).error().code, ErrorCode::kNotFound);
}

std::vector<uint32_t> CropsOf(const std::vector<Pass>& passes) {
  std::vector<uint32_t> crops;
  for (const Pass& pass : passes) crops.push_back(pass.crops);
  return crops;
}

TEST(Schedule, PassesCountCropsAndEndInSingleOnes) {
  EXPECT_EQ(CropsOf(PlanPasses(3, 1)), (std::vector<uint32_t>{1, 1, 1}));
  EXPECT_EQ(CropsOf(PlanPasses(12, 4)), (std::vector<uint32_t>{4, 4, 1, 1, 1, 1}));
  EXPECT_EQ(CropsOf(PlanPasses(2, 4)), (std::vector<uint32_t>{1, 1}));
  for (const uint32_t m : {4u, 8u}) {  // the paper's 300 epochs: the original ends in 4 single-crop ones at both
    const auto passes = PlanPasses(300, m);
    EXPECT_EQ(std::count_if(passes.begin(), passes.end(), [](const Pass& p) { return p.crops == 1; }), 4);
    uint32_t epoch = 0;
    for (const Pass& pass : passes) {
      EXPECT_EQ(pass.epoch, epoch);
      epoch += pass.crops;
    }
    EXPECT_EQ(epoch, 300u);
  }
}

// 6 epochs at 2 crops gave .1, .075, .025, .0067 in the original.
TEST(Schedule, CosineIsSerrated) {
  const auto passes = PlanPasses(6, 2);
  ASSERT_EQ(passes.size(), 4u);
  const std::vector<double> expected = {0.1, 0.075, 0.025, 0.0067};
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(Schedule{}.Rate(passes[i].epoch, 6), expected[i], 5e-5);
}

TEST(Schedule, OfEveryStepIsSmooth) {
  const Schedule serrated, smooth = {.warmup_epochs = 2, .every_step = true};
  const Pass pass = {4, 4};
  EXPECT_EQ(serrated.Rate(pass, 30, 40, 16), serrated.Rate(4, 16));
  EXPECT_EQ(smooth.Rate(pass, 0, 40, 16), serrated.Rate(4, 16));
  EXPECT_EQ(smooth.Rate(pass, 30, 40, 16), serrated.Rate(7, 16));
  EXPECT_EQ(smooth.Rate(pass, 5, 40, 16), 0.05 * (1 + std::cos(M_PI * 4.5 / 16)));
  EXPECT_NEAR(smooth.Rate({1, 1}, 20, 40, 16), 1e-5 + 0.75 * (0.1 - 1e-5), 1e-15);
}

TEST(Schedule, StepsLinesAndWarmUps) {
  const auto rates = [](const Schedule& schedule, uint32_t epochs) {
    std::vector<double> all;
    for (uint32_t e = 0; e < epochs; ++e) all.push_back(schedule.Rate(e, epochs));
    return all;
  };
  const auto expect = [](const std::vector<double>& got, const std::vector<double>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-15) << i;
  };
  // MEAL V2 divides by 10 after epoch 100: the 101st is the first at the lower rate.
  Schedule step = {.decay = Decay::kStep, .rate = 0.01, .step_epochs = {100}};
  EXPECT_EQ(step.Rate(99, 180), 0.01);
  EXPECT_NEAR(step.Rate(100, 180), 0.001, 1e-15);
  EXPECT_NEAR(step.Rate(179, 180), 0.001, 1e-15);
  expect(rates({.decay = Decay::kLinear, .rate = 1, .min_rate = 0.2}, 4), {1, 0.8, 0.6, 0.4});
  expect(rates({.decay = Decay::kConstant, .rate = 0.3}, 2), {0.3, 0.3});
  // The original's for ViTs: 5 epochs from 1e-5, then a cosine that has counted them.
  const Schedule vit = {.rate = 0.002, .min_rate = 1e-5, .warmup_epochs = 5, .warmup_rate = 1e-5};
  EXPECT_EQ(vit.Rate(0, 300), 1e-5);
  EXPECT_NEAR(vit.Rate(4, 300), 1e-5 + 0.8 * (0.002 - 1e-5), 1e-15);
  EXPECT_NEAR(vit.Rate(5, 300), 1e-5 + (0.002 - 1e-5) / 2 * (1 + std::cos(M_PI * 5 / 300)), 1e-15);
  EXPECT_NEAR(vit.Rate(150, 300), 1e-5 + (0.002 - 1e-5) / 2, 1e-15);
}

TEST(Schedule, WarmUpShowsOneCropAndTheTailCanBeLeftOut) {
  EXPECT_EQ(CropsOf(PlanPasses(12, 4, {.warmup_epochs = 2})), (std::vector<uint32_t>{1, 1, 4, 4, 1, 1}));
  EXPECT_EQ(CropsOf(PlanPasses(12, 4, {.single_crop_tail = false})), (std::vector<uint32_t>{4, 4, 4}));
  EXPECT_EQ(CropsOf(PlanPasses(10, 4, {.single_crop_tail = false})), (std::vector<uint32_t>{4, 4, 2}));
}

TEST(Schedule, WhatMakesNoSenseIsNamed) {
  const auto message = [](const Schedule& schedule) { return schedule.Check(10).error().message; };
  EXPECT_EQ(message({.rate = -1}), "learning rates: expected 0 or more");
  EXPECT_EQ(message({.rate = 0.1, .min_rate = 0.2}), "the learning rate 0.1 is below the smallest, 0.2");
  EXPECT_EQ(message({.warmup_epochs = 11}), "11 warm-up epochs of 10 epochs");
  EXPECT_EQ(message({.decay = Decay::kStep}), "schedule 'step' needs the epochs of its steps");
  EXPECT_EQ(message({.step_factor = -2}), "step factor -2: expected more than 0");
  EXPECT_TRUE(Schedule{.step_epochs = {3}}.Check(10));  // a recipe's, whose schedule a flag replaced
  EXPECT_EQ(message({.decay = Decay::kStep, .step_epochs = {3, 3}}), "epochs of steps: expected each to be later than the one before");
  EXPECT_EQ(ParseDecay("exponential").error().message, "schedule 'exponential': expected cosine, linear, step, constant");
  EXPECT_TRUE(Schedule{}.Check(10));
}

// A small IDX data set and a label set for it.
class MatchTest : public test::TempFolder {
 protected:
  static constexpr uint32_t kImages = 20;

  void WriteIdx(const std::string& name, const std::string& labels, uint32_t images = kImages) {
    const auto header = [](std::initializer_list<uint32_t> sizes) {
      std::string bytes = {0, 0, 8, static_cast<char>(sizes.size())};
      for (const uint32_t size : sizes) bytes += {0, 0, static_cast<char>(size >> 8), static_cast<char>(size)};
      return bytes;
    };
    std::string pixels;
    for (uint32_t i = 0; i < images * 36; ++i) pixels += static_cast<char>(i * 7);
    test::WriteBytes(Path(name + "-images-idx3-ubyte"), header({images, 6, 6}) + pixels);
    if (!labels.empty()) test::WriteBytes(Path(name + "-labels-idx1-ubyte"), header({images}) + labels);
  }
  std::unique_ptr<DataSet> Open(const std::string& name, uint64_t limit = 0) {
    return std::move(*OpenDataSet(Path(name + "-images-idx3-ubyte"), limit));
  }
  std::string Labels(uint32_t images = kImages, char classes = 4) {
    std::string labels;
    for (uint32_t i = 0; i < images; ++i) labels += static_cast<char>(i % static_cast<uint32_t>(classes));
    return labels;
  }
  // Every image labelled with 5 crops of class (image % 4).
  Reader BuildDb(const DataSet& data, uint32_t width = 6) {
    test::RandomLabels set(0, test::MakeSpec(LabelKind::kHard, 4, 1), 5);
    for (uint64_t i = 0; i < data.size(); ++i) {
      Record record;
      record.key_hash = Hash64(data.keys()[i]);
      record.width = width;
      record.height = 6;
      record.class_index = data.class_index(i);
      for (uint32_t crop = 0; crop < 5; ++crop) {
        record.pixel_boxes.push_back({crop, 0, 1, 6});
        record.flips.push_back(0);
        record.indices.push_back(static_cast<uint32_t>((i + crop) % 4));
      }
      set.records.push_back(record);
      set.keys.push_back(data.keys()[i]);
    }
    set.recipe.data_set.channels = 1;
    set.recipe.data_set.class_names = data.class_names();
    set.recipe.data_set.num_images = data.size();
    set.recipe.data_set.key_list_sha256 = Sha256OfKeys(data.keys());
    if (edit_) edit_(&set.recipe.augmentation);
    LabelFileWriterOptions options;
    options.overwrite = true;
    EXPECT_TRUE(set.Build(Path("l.fkdb"), options));
    return *Reader::Open(Path("l.fkdb"));
  }

  std::function<void(AugmentationInfo*)> edit_;
};

TEST_F(MatchTest, SaysWhatDiffers) {
  WriteIdx("a", Labels());
  const auto data = Open("a");
  const Reader labels = BuildDb(*data);
  EXPECT_TRUE(CheckMatch(labels, *data));
  const auto message = [&](const DataSet& other) {
    const auto match = CheckMatch(labels, other);
    EXPECT_EQ(match.error().code, ErrorCode::kMismatch);
    return match.error().message.substr(Path("l.fkdb").string().size());
  };
  EXPECT_EQ(message(*Open("a", 15)), " does not match the images of 'a-images-idx3-ubyte': 5 of 20 labelled images are "
                                     "missing, first '15'");
  WriteIdx("more", Labels(25), 25);
  EXPECT_EQ(message(*Open("more")), " does not match the images of 'more-images-idx3-ubyte': 5 of 25 images have no "
                                    "labels, first '20' (--limit N takes only the first N images)");
  EXPECT_TRUE(CheckMatch(labels, *Open("more", 20)));
  WriteIdx("classes", Labels(kImages, 3));
  EXPECT_EQ(message(*Open("classes")), " does not match the images of 'classes-images-idx3-ubyte': its classes are "
                                       "numbered otherwise: class 3 is '3' in the label set, missing here");
}

// A student would see other pixels than the teacher did.
TEST_F(MatchTest, PixelsOfAnotherConventionAreRefused) {
  WriteIdx("a", Labels());
  const auto data = Open("a");
  const auto message = [&](std::string AugmentationInfo::*field, const char* value) {
    edit_ = [&](AugmentationInfo* augmentation) { augmentation->*field = value; };
    const auto match = CheckMatch(BuildDb(*data), *data);
    EXPECT_TRUE(match || match.error().code == ErrorCode::kUnsupported);
    return match ? "" : match.error().message.substr(Path("l.fkdb").string().size());
  };
  EXPECT_EQ(message(&AugmentationInfo::wide_samples, "high-byte"), "");
  EXPECT_EQ(message(&AugmentationInfo::wide_samples, "rounded"),
            ": its crops were made with wide_samples 'rounded'; this fkdb can show only 'high-byte' to a student");
  EXPECT_EQ(message(&AugmentationInfo::exif, "applied"),
            ": its crops were made with exif 'applied'; this fkdb can show only 'ignored' to a student");
  EXPECT_EQ(message(&AugmentationInfo::resampling, "bilinear-float"),
            ": its crops were made with resampling 'bilinear-float'; this fkdb can show only "
            "'pillow-integer-horizontal-first' and 'pillow-integer-13' to a student");
  EXPECT_EQ(message(&AugmentationInfo::resampling, "pillow-integer-13"), "");
}

TEST_F(MatchTest, BatchesAreTheSameWithAnyNumberOfWorkersAndCoverEveryCropOnce) {
  WriteIdx("a", Labels());
  const auto data = Open("a");
  const Reader labels = BuildDb(*data);
  const auto supervision = DbSupervision(labels, CropOrder::kCycle, 3);
  ASSERT_TRUE(supervision);
  const InputSpec input = {4, 4, Interpolation::kBilinear, {0.5}, {0.5}};
  std::map<std::pair<uint32_t, uint32_t>, int> seen;  // (first box row, label) of each crop, over 5 passes of one crop
  for (uint64_t pass = 0; pass < 5; ++pass) {
    std::vector<std::vector<float>> inputs;  // with one worker, step by step
    std::vector<std::vector<uint32_t>> indices;
    for (const int workers : {1, 2, 8}) {
      const auto loader = BatchLoader::Make(*data, **supervision, {input, pass, {{static_cast<uint32_t>(pass), 1}}, 6, 3, 0, workers});
      ASSERT_TRUE(loader);
      size_t step = 0;
      while (true) {
        const auto batch = (*loader)->Next();
        ASSERT_TRUE(batch) << batch.error().message;
        if (!*batch) break;
        EXPECT_EQ((*batch)->step, step);
        if (workers == 1) {
          for (size_t i = 0; i < (*batch)->labels.size(); ++i) {
            ++seen[{(*batch)->labels.boxes()[i].top, (*batch)->arrays.indices[i]}];
          }
          inputs.push_back(test::InputsOf(**batch));
          indices.push_back((*batch)->arrays.indices);
        } else {
          EXPECT_EQ(test::InputsOf(**batch), inputs[step]);
          EXPECT_EQ((*batch)->arrays.indices, indices[step]);
        }
        ++step;
      }
      EXPECT_EQ(step, NumSteps(20, 1, 6));
    }
  }
  // 20 images x 5 crops, each once: for each of 5 rows, each of 4 labels 5 times.
  ASSERT_EQ(seen.size(), 20u);
  for (const auto& [what, n] : seen) EXPECT_EQ(n, 5);
}

TEST_F(MatchTest, ALoaderBeginsAtAnyStep) {
  WriteIdx("a", Labels());
  const auto data = Open("a");
  const auto supervision = HardSupervision(*data, {}, 1);
  ASSERT_TRUE(supervision);
  const InputSpec input = {4, 4, Interpolation::kBilinear, {0.5}, {0.5}};
  const auto whole = BatchLoader::Make(*data, **supervision, {input, 2, {{4, 2}}, 8, 1, 0, 1});
  const auto rest = BatchLoader::Make(*data, **supervision, {input, 2, {{4, 2}}, 8, 1, 3, 1});
  for (int step = 0; step < 3; ++step) ASSERT_TRUE(*(*whole)->Next());
  for (int step = 3; step < 5; ++step) {
    const auto a = (*whole)->Next(), b = (*rest)->Next();
    ASSERT_TRUE(*a && *b);
    EXPECT_EQ(test::InputsOf(**a), test::InputsOf(**b));
    EXPECT_EQ((*a)->labels.size(), 8u);
  }
  EXPECT_FALSE(*(*whole)->Next());
  EXPECT_FALSE(*(*rest)->Next());
}

TEST_F(MatchTest, AnImageResizedSinceLabellingIsNamed) {
  WriteIdx("a", Labels());
  const auto data = Open("a");
  const Reader labels = BuildDb(*data, 7);
  const auto supervision = DbSupervision(labels, CropOrder::kCycle, 3);
  const auto loader = BatchLoader::Make(*data, **supervision, {{4, 4, Interpolation::kBilinear, {0.5}, {0.5}}, 0, {{0, 1}}, 20, 3, 0, 1});
  const auto batch = (*loader)->Next();
  ASSERT_FALSE(batch);
  EXPECT_EQ(batch.error().code, ErrorCode::kMismatch);
  EXPECT_NE(batch.error().message.find("': it was 7 x 6 pixels when labelled and is 6 x 6 now"), std::string::npos)
      << batch.error().message;
}

TEST_F(MatchTest, HardLabelsNeedClasses) {
  WriteIdx("none", "");
  const auto data = Open("none");
  EXPECT_EQ(HardSupervision(*data, {}, 1).error().message,
            "'none-images-idx3-ubyte' has no classes to train on: expected a folder for each class, or an IDX label file "
            "beside the images");
}

}  // namespace
}  // namespace fkdb
