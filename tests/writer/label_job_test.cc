// SPDX-License-Identifier: Apache-2.0
#include "writer/label_job.h"

#include <gtest/gtest.h>

#include <set>

#include "db/rewrite.h"
#include "tests/writer/fake_job.h"
#include "writer/group_labeller.h"
#include "writer/probe.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using test::FakeData;
using test::FakeTeacher;
using LabelJobTest = test::LabelJob;

TEST(GroupSize, IsTheFewestImagesThatFillWholeBatches) {
  EXPECT_EQ(GroupSize(64, 200), 8u);
  EXPECT_EQ(GroupSize(64, 16), 4u);
  EXPECT_EQ(GroupSize(64, 7), 64u);
  EXPECT_EQ(GroupSize(1, 5), 1u);
}

TEST_F(LabelJobTest, LabelsEveryCropAsTheTeacherSaysIt) {
  const auto result = Run();
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->manifest.num_images, 61u);
  EXPECT_EQ(result->manifest.num_crops, 366u);
  // 8 images x 6 crops = 48 = 3 whole batches a group; the last group has 5 images, 30 crops.
  for (const int64_t size : teacher.sizes_) EXPECT_EQ(size, 16);
  EXPECT_EQ(teacher.sizes_.size(), 7u * 3 + 2);

  const auto reader = Reader::Open(Path("out.fkdb"));
  ASSERT_TRUE(reader);
  // The first group's first batch, done by hand.
  const auto sampler = CropSampler::Make({});
  const auto normalizer = Normalizer::Make(options.augmentation.mean, options.augmentation.std);
  CropResizer resizer(8, 8, Interpolation::kBilinear);
  std::vector<float> input(16 * 64), output(16 * 3), p(3);
  std::vector<std::pair<uint64_t, uint32_t>> crops;
  for (uint64_t image = 0; crops.size() < 16; ++image) {
    const auto record = reader->Get(image);
    const auto pixels = data.Load(image, nullptr);
    EXPECT_EQ(record->width(), pixels->width);
    EXPECT_EQ(record->class_index(), static_cast<int32_t>(image % 3));
    for (uint32_t crop = 0; crop < 6 && crops.size() < 16; ++crop) {
      const SampledCrop sampled = sampler->Sample(0, Hash64(data.keys()[image]), crop, pixels->width, pixels->height);
      EXPECT_EQ(record->pixel_box(crop), sampled.box);
      EXPECT_EQ(record->flip(crop), sampled.flip);
      std::vector<uint8_t> out(64);
      resizer.Run(*pixels, sampled.box, sampled.flip, out.data());
      normalizer->Run(out.data(), 64, input.data() + crops.size() * 64);
      crops.push_back({image, crop});
    }
  }
  ASSERT_TRUE(teacher.Forward(input.data(), 16, output.data()));
  for (size_t i = 0; i < 16; ++i) {
    ASSERT_TRUE(Softmax(std::span(output).subspan(i * 3, 3), 1, p));
    std::vector<uint32_t> index(2), stored_index(2);
    std::vector<float> value(2), stored_value(2);
    QuantizeCrop(options.spec, p, index, value);
    const auto record = reader->Get(crops[i].first);
    record->CopyIndices(crops[i].second, stored_index.data());
    record->CopyValues(crops[i].second, stored_value.data());
    EXPECT_EQ(stored_index, index);
    EXPECT_EQ(stored_value, value);
  }
}

TEST_F(LabelJobTest, TheDigestDoesNotDependOnThreadsOrTransactions) {
  const std::string digest = Digest("one.fkdb");
  EXPECT_EQ(digest.substr(0, 7), "sha256:") << digest;
  for (const int threads : {2, 5}) {
    options.threads = threads;
    EXPECT_EQ(Digest(std::to_string(threads) + ".fkdb"), digest);
  }
  options.file.commit_bytes = 1;
  options.file.block_bytes = 1024;
  EXPECT_EQ(Digest("small.fkdb"), digest);
  options.augmentation.seed = 1;
  EXPECT_NE(Digest("seed.fkdb"), digest);
}

// The fake teacher's outputs change with the batch: this holds only if batches are the same again.
TEST_F(LabelJobTest, AStoppedJobResumesToTheSameDigestFromAnyImage) {
  const std::string digest = Digest("whole.fkdb");
  std::atomic<bool> stop = false;
  options.stop = &stop;
  options.file.block_bytes = 256;  // commits at odd places within groups
  options.file.commit_seconds = 0;
  std::set<uint64_t> stops;
  for (uint64_t images = 1; images < 61; images += 3) {
    const std::string name = std::to_string(images) + ".fkdb";
    stop = false;
    options.file.resume = true;
    options.progress = [&](const LabelProgress& p) { stop = p.images >= images; };
    const auto stopped = Run(name);
    ASSERT_TRUE(stopped) << stopped.error().message;
    if (!stopped->interrupted) continue;
    stops.insert(stopped->images_written);
    stop = false;
    options.progress = {};
    EXPECT_EQ(Digest(name), digest);
  }
  EXPECT_GT(stops.size(), 3u);
}

TEST_F(LabelJobTest, SeveralTeachersLabelTogether) {
  FakeTeacher second(Path("second.pt"));
  test::WriteBytes(Path("second.pt"), "other weights");
  second.input_spec.height = 10;
  second.input_spec.interpolation = Interpolation::kBicubic;
  const Ensemble both({{&teacher, 1}, {&second, 3}});
  options.spec = test::MakeSpec(LabelKind::kFull, 3, 0, ValueEncoding::kF32);
  const auto made = LabelImages(data, both, Path("both.fkdb"), options);
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_TRUE(Run("a.fkdb"));
  ASSERT_TRUE(LabelImages(data, second, Path("b.fkdb"), options));
  const auto a = Reader::Open(Path("a.fkdb")), b = Reader::Open(Path("b.fkdb")), average = Reader::Open(Path("both.fkdb"));
  for (uint64_t i = 0; i < data.size(); ++i) {
    const auto of_a = a->Get(i), of_b = b->Get(i), of_both = average->Get(i);
    std::vector<float> p_a(3), p_b(3), p(3);
    for (uint32_t crop = 0; crop < 6; ++crop) {
      EXPECT_EQ(of_a->pixel_box(crop), of_both->pixel_box(crop));
      of_a->CopyValues(crop, p_a.data());
      of_b->CopyValues(crop, p_b.data());
      of_both->CopyValues(crop, p.data());
      for (size_t c = 0; c < 3; ++c) ASSERT_NEAR(p[c], (p_a[c] + 3 * p_b[c]) / 4, 1e-6);
    }
  }

  // What the manifest says of it; one teacher that sees what students see needs no words.
  const Manifest& m = average->manifest();
  ASSERT_EQ(m.teachers.size(), 2u);
  EXPECT_EQ(m.teacher_average, "probabilities");
  EXPECT_EQ(m.teachers[0].weight, 1);
  EXPECT_EQ(m.teachers[0].input, TeacherInputInfo());
  EXPECT_EQ(m.teachers[1].weight, 3);
  EXPECT_EQ(m.teachers[1].input, (TeacherInputInfo{10, 8, "bicubic", {0.5}, {0.25}}));
  EXPECT_EQ(a->manifest().teacher_average, "");
  EXPECT_EQ(a->manifest().teachers[0].weight, 0);
  const std::string json = ToJson(a->manifest());
  for (const char* field : {"weight", "teacher_average", "output", "autocast", "\"input\""}) EXPECT_EQ(json.find(field), std::string::npos) << field;
  EXPECT_EQ(RecipeDifference(m, *ParseManifest(ToJson(m))), "");

  const auto other = PlanRecipe(data, Ensemble({{&teacher, 1}, {&second, 2}}), options);
  EXPECT_EQ(RecipeDifference(m, *other), "teachers[1].weight: 3.0 in the file, 2.0 asked for");

  second.number_type = "bf16";
  const auto cast = PlanRecipe(data, Ensemble({{&teacher, 1}, {&second, 3}}), options);
  EXPECT_EQ(cast->teachers[0].autocast, "");
  EXPECT_EQ(cast->teachers[1].autocast, "bf16");
  EXPECT_EQ(RecipeDifference(*cast, *ParseManifest(ToJson(*cast))), "");
  EXPECT_EQ(RecipeDifference(m, *cast), "teachers[1].autocast: null in the file, \"bf16\" asked for");
  second.number_type = "";
  for (const int threads : {2, 5}) {
    options.threads = threads;
    const auto again = LabelImages(data, both, Path(std::to_string(threads) + ".fkdb"), options);
    EXPECT_EQ(again->manifest.digest, made->manifest.digest);
  }
}

TEST_F(LabelJobTest, AProbeSaysHowItWillGoAndWritesNothing) {
  const auto files = [&] {
    std::set<fs::path> names;
    for (const auto& entry : fs::directory_iterator(Path("."))) names.insert(entry.path().filename());
    return names;
  };
  const auto before = files();
  options.threads = 3;
  const auto probe = ProbeTeachers(data, teacher, options, 0);
  ASSERT_TRUE(probe) << probe.error().message;
  EXPECT_EQ(probe->crops, 3u * 16);  // a whole batch each, of 4 crops of 4 images
  EXPECT_GT(probe->seconds, 0);
  EXPECT_GT(probe->bytes_per_crop(), 2 * 8 + 8);  // two indices and values, a box
  EXPECT_LT(probe->bytes_per_crop(), 100);
  EXPECT_EQ(files(), before);

  data.broken = {0, 1, 2, 3, 4};
  EXPECT_EQ(ProbeTeachers(data, teacher, options, 0)->crops, 12u + 16 + 16);
  EXPECT_NE(ProbeTeachers(data, teacher, options, 0)->unread.find("broken"), std::string::npos);
  for (uint64_t i = 0; i < data.size(); ++i) data.broken.insert(i);
  EXPECT_EQ(ProbeTeachers(data, teacher, options, 0)->crops, 0u);
  data.broken.clear();
  for (const uint32_t crops : {1u, 5u, 16u, 500u}) {
    options.augmentation.crops = crops;
    teacher.sizes_.clear();
    EXPECT_EQ(ProbeTeachers(data, teacher, options, 0)->crops, 48u) << crops;
    EXPECT_EQ(teacher.sizes_, (std::vector<int64_t>{16, 16, 16}));
  }
  // What the job would refuse.
  options.augmentation.crops = 65536;
  EXPECT_EQ(ProbeTeachers(data, teacher, options, 0).error().message, "65536 crops an image: expected 1 to 65535");
  options.augmentation.crops = 6;
  options.batch_size = 0;
  EXPECT_EQ(ProbeTeachers(data, teacher, options, 0).error().message, "a teacher batch needs at least one crop");
  options.batch_size = 16;
  options.boxes_from = Path("none.fkdb");
  EXPECT_EQ(ProbeTeachers(data, teacher, options, 0).error().code, ErrorCode::kNotFound);
  options.boxes_from.clear();

  teacher.nan_at = 1;
  options.threads = 1;
  EXPECT_EQ(ProbeTeachers(data, teacher, options, 0).error().code, ErrorCode::kModel);
  const std::atomic<bool> stop = true;
  options.stop = &stop;
  EXPECT_EQ(ProbeTeachers(data, teacher, options, 0).error().code, ErrorCode::kIncomplete);
}

TEST_F(LabelJobTest, ASoftmaxWhereLogitsAreExpectedIsNoticed) {
  teacher.softmax = true;
  const auto probe = ProbeTeachers(data, teacher, options, 0);
  ASSERT_FALSE(probe);
  EXPECT_EQ(probe.error().code, ErrorCode::kModel);
  EXPECT_NE(probe.error().message.find("teacher 'fake.pt' gives probabilities, not logits: its outputs for 16 crops have no negative number and add up to 1; "
                                       "leave out its softmax, or say in '" + Path("fake.pt.json").string() + "': {\"output\": \"probabilities\"}"), std::string::npos)
      << probe.error().message;
  // What is said to be a distribution is stored as it is.
  teacher.kind = OutputKind::kProbabilities;
  EXPECT_TRUE(ProbeTeachers(data, teacher, options, 0));
  ASSERT_TRUE(Run("p.fkdb"));
  teacher.softmax = false;
  teacher.kind = OutputKind::kLogits;
  ASSERT_TRUE(Run("z.fkdb"));
  const auto p = Reader::Open(Path("p.fkdb")), z = Reader::Open(Path("z.fkdb"));
  EXPECT_EQ(p->manifest().teachers[0].output, "probabilities");
  float from_p[2], from_z[2];
  p->Get(5)->CopyValues(3, from_p);
  z->Get(5)->CopyValues(3, from_z);
  EXPECT_NEAR(from_p[0], from_z[0], 1e-6);
}

TEST_F(LabelJobTest, ResumesInTheMiddleOfAGroup) {
  const std::string digest = Digest("whole.fkdb");
  const auto whole = Reader::Open(Path("whole.fkdb"));
  const auto recipe = PlanRecipe(data, teacher, options);
  ASSERT_TRUE(whole && recipe);
  for (const uint64_t images : {1u, 7u, 8u, 9u, 20u, 60u}) {
    const std::string name = std::to_string(images) + ".fkdb";
    {
      auto writer = LabelFileWriter::Open(Path(name), *recipe);
      for (uint64_t i = 0; i < images; ++i) {
        const auto bytes = *whole->label_set().RecordBytes(i);
        ASSERT_TRUE(writer->Append({bytes.begin(), bytes.end()}));
      }
      ASSERT_TRUE(writer->Flush());
    }
    options.file.resume = true;
    EXPECT_EQ(Digest(name), digest) << images;
  }
}

TEST_F(LabelJobTest, ABadImageStopsTheJobUnlessSkipped) {
  data.broken = {17, 60};
  auto result = Run();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kIoError);
  EXPECT_EQ(result.error().message, "image 'a/1017.png': broken; --skip-bad labels the others");
  options.max_bad = kAnyBad;
  options.file.resume = true;
  result = Run();
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->manifest.skipped, (std::vector<uint64_t>{17, 60}));
  EXPECT_EQ(result->manifest.num_images, 61u);
  EXPECT_EQ(result->manifest.num_crops, 59u * 6);
  const auto reader = Reader::Open(Path("out.fkdb"));
  EXPECT_EQ(reader->Get(17)->skip_reason(), "image 'a/1017.png': broken");

  const std::string digest = result->manifest.digest;
  options.file = {};
  options.max_bad = 1;
  result = Run("few.fkdb");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "image 'a/1060.png': broken; one more than --max-bad 1 allows; what is labelled is kept");
  options.max_bad = 2;
  options.file.resume = true;
  LabelProgress last;
  options.progress = [&](const LabelProgress& p) { last = p; };
  EXPECT_EQ(Digest("few.fkdb"), digest);
  EXPECT_EQ(last.bad, 1u);  // in what was left
  EXPECT_LE(last.waiting, 2u);
  double all = 0;
  for (const double share : last.share) {
    EXPECT_GT(share, 0);
    all += share;
  }
  EXPECT_NEAR(all, 1, 1e-9);
}

TEST_F(LabelJobTest, ATeacherThatGivesNaNIsNamed) {
  teacher.nan_at = 5;
  const auto result = Run();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kModel);
  EXPECT_TRUE(result.error().message.starts_with("teacher 'fake.pt' gave NaN or infinity for crop ")) << result.error().message;
  EXPECT_NE(result.error().message.find("of image 'a/10"), std::string::npos) << result.error().message;
}

TEST_F(LabelJobTest, WrongOptionsAreRefusedBeforeAnythingIsWritten) {
  teacher.outputs = 4;
  EXPECT_EQ(Run().error().message,
            "teacher 'fake.pt' has 4 outputs, data set 'fake' 3 classes; if its folders are not the teacher's classes, "
            "say --no-classes");
  teacher.outputs = 3;
  options.spec.top_k = 4;
  EXPECT_EQ(Run().error().message, "top-k 4: expected 1 to the number of classes, 3");
  options.spec.top_k = 2;
  options.augmentation.crops = 65536;
  EXPECT_EQ(Run().error().message, "65536 crops an image: expected 1 to 65535");
  options.augmentation.crops = 0;
  EXPECT_EQ(Run().error().message, "0 crops an image: expected 1 to 65535");
  options.augmentation.crops = 6;
  options.augmentation.mean = {0.5, 0.5, 0.5};
  EXPECT_FALSE(Run());
  options.augmentation.std = {1, 1, 1};
  EXPECT_EQ(Run().error().message, "3 means for images of 1 channels");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1) << "only fake.pt";
}

TEST_F(LabelJobTest, ARecordOverOneGiBIsRefusedBeforeLabelling) {
  teacher.outputs = 20000;
  options.use_classes = false;
  options.spec.kind = LabelKind::kFull;
  options.augmentation.crops = 60000;
  const auto result = Run();
  EXPECT_EQ(result.error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(teacher.sizes_.empty());
}

}  // namespace
}  // namespace fkdb
