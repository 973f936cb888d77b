// SPDX-License-Identifier: Apache-2.0
#include "writer/label_job.h"

#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "db/rewrite.h"
#include "format/quantize.h"
#include "reader/reader.h"
#include "tests/db/test_files.h"
#include "writer/group_labeller.h"
#include "writer/probe.h"
#include "writer/recipe.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

// Images that are made up, some of them broken.
class FakeData : public DataSet {
 public:
  explicit FakeData(uint64_t size) {
    name_ = "fake";
    layout_ = "folder";
    channels_ = 1;
    class_names_ = {"a", "b", "c"};
    for (uint64_t i = 0; i < size; ++i) {
      keys_.push_back("a/" + std::to_string(1000 + i) + ".png");
      class_indices_.push_back(static_cast<int32_t>(i % 3));
    }
  }
  Result<Image> Load(uint64_t ordinal, std::vector<std::byte>* file) const override {
    if (file) file->assign(3, static_cast<std::byte>(ordinal + (changed.contains(ordinal) ? 100 : 0)));
    if (broken.contains(ordinal)) return Fail(ErrorCode::kCorruption, "image '" + keys_[ordinal] + "': broken");
    Image image = {20 + static_cast<uint32_t>(ordinal % 7), 24, 1, {}};
    for (uint32_t i = 0; i < image.height * image.width; ++i) {
      image.pixels.push_back(static_cast<uint8_t>(i * (ordinal + 3)));
    }
    return image;
  }
  std::set<uint64_t> broken, changed;
};

// Outputs that depend on the whole batch and on its size, as real teachers' last bits do.
class FakeTeacher : public Teacher {
 public:
  explicit FakeTeacher(fs::path file) : file_(std::move(file)) {}
  const std::string& name() const override { return name_; }
  const fs::path& file() const override { return file_; }
  const InputSpec& input() const override { return input_spec; }
  uint32_t num_outputs() const override { return outputs; }
  OutputKind output_kind() const override { return kind; }
  Result<void> Forward(const float* input, int64_t n, float* output) const override {
    EXPECT_EQ(n % kBatchMultiple, 0);
    {
      const std::lock_guard guard(mutex_);
      sizes_.push_back(n);
    }
    const int64_t kInput = int64_t{input_spec.height} * input_spec.width;
    float whole = 0;
    for (int64_t i = 0; i < n * kInput; ++i) whole += input[i];
    for (int64_t r = 0; r < n; ++r) {
      for (uint32_t c = 0; c < outputs; ++c) {
        float z = whole * 1e-6f + static_cast<float>(n) * 1e-3f * static_cast<float>(c);
        for (int64_t i = 0; i < kInput; ++i) z += input[r * kInput + i] * static_cast<float>((i * (c + 1)) % 5) * 0.02f;
        output[r * outputs + c] = z;
      }
    }
    for (int64_t r = 0; softmax && r < n; ++r) EXPECT_TRUE(Softmax({output + r * outputs, outputs}, 1, {output + r * outputs, outputs}));
    if (nan_at && --*nan_at == 0) output[0] = NAN;
    return {};
  }
  uint32_t outputs = 3;
  bool softmax = false;
  OutputKind kind = OutputKind::kLogits;
  InputSpec input_spec = {8, 8, Interpolation::kBilinear, {0.5}, {0.25}};
  mutable std::optional<int> nan_at;
  mutable std::vector<int64_t> sizes_;

 private:
  std::string name_ = "fake.pt";
  fs::path file_;
  mutable std::mutex mutex_;
};

class LabelJobTest : public test::TempFolder {
 protected:
  LabelJobTest() : teacher(Path("fake.pt")) {
    test::WriteBytes(Path("fake.pt"), "weights");
    options.spec = test::MakeSpec(LabelKind::kMarginalSmoothing, 3, 2, ValueEncoding::kF32);
    options.augmentation.crops = 6;
    options.augmentation.input_height = options.augmentation.input_width = 8;
    options.augmentation.mean = {0.5};
    options.augmentation.std = {0.25};
    options.batch_size = 16;
  }
  Result<LabelJobResult> Run(const std::string& name = "out.fkdb") { return LabelImages(data, teacher, Path(name), options); }
  std::string Digest(const std::string& name) {
    const auto result = Run(name);
    return result ? result->manifest.digest : result.error().message;
  }

  FakeData data{61};
  FakeTeacher teacher;
  LabelJobOptions options;
};

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
  for (const char* field : {"weight", "teacher_average", "output", "\"input\""}) EXPECT_EQ(json.find(field), std::string::npos) << field;
  EXPECT_EQ(RecipeDifference(m, *ParseManifest(ToJson(m))), "");

  const auto other = PlanRecipe(data, Ensemble({{&teacher, 1}, {&second, 2}}), options);
  EXPECT_EQ(RecipeDifference(m, *other), "teachers[1].weight: 3.0 in the file, 2.0 asked for");
  for (const int threads : {2, 5}) {
    options.threads = threads;
    const auto again = LabelImages(data, both, Path(std::to_string(threads) + ".fkdb"), options);
    EXPECT_EQ(again->manifest.digest, made->manifest.digest);
  }
}

// Another teacher for the crops of a label set, whatever drew them.
TEST_F(LabelJobTest, TheCropsOfAnotherLabelSetAreLabelled) {
  data.broken = {7};
  options.skip_bad = true;
  options.augmentation.seed = 5;
  const auto first = Run("first.fkdb");
  ASSERT_TRUE(first) << first.error().message;
  LabelJobOptions other = options;
  other.boxes_from = Path("first.fkdb");
  other.augmentation = {};  // crops, seed and sampling are the label set's
  other.augmentation.input_height = other.augmentation.input_width = 8;
  other.augmentation.mean = {0.5};
  other.augmentation.std = {0.25};

  // The same teacher says the same.
  const auto same = LabelImages(data, teacher, Path("same.fkdb"), other);
  ASSERT_TRUE(same) << same.error().message;
  EXPECT_EQ(same->manifest.digest, first->manifest.digest);
  EXPECT_EQ(same->manifest.boxes_from, first->manifest.digest);
  EXPECT_EQ(same->manifest.augmentation, first->manifest.augmentation);
  EXPECT_EQ(same->manifest.skipped, std::vector<uint64_t>{7});

  // Fractions stay fractions, and are labelled as the pixels they show.
  test::RandomLabels set(61, test::MakeSpec(LabelKind::kHard, 3, 1, ValueEncoding::kF32, BoxEncoding::kFractionF16), 6);
  for (uint64_t i = 0; i < 61; ++i) {
    set.keys[i] = data.keys()[i];
    Record& record = set.records[i];
    record.key_hash = Hash64(data.keys()[i]);
    record.width = 24;
    record.height = 20 + static_cast<uint32_t>(i % 7);
    record.content_hash = {};
  }
  set.recipe.data_set = Describe(data, true);
  set.recipe.augmentation.crops = 6;
  ASSERT_TRUE(set.Build(Path("fractions.fkdb"))) << "fractions";
  other.boxes_from = Path("fractions.fkdb");
  data.broken = {};
  const auto made = LabelImages(data, teacher, Path("of_fractions.fkdb"), other);
  ASSERT_TRUE(made) << made.error().message;
  const auto boxes = Reader::Open(Path("fractions.fkdb")), labels = Reader::Open(Path("of_fractions.fkdb"));
  EXPECT_EQ(labels->spec().boxes, BoxEncoding::kFractionF16);
  for (uint64_t i = 0; i < 61; ++i) {
    const auto a = boxes->Get(i), b = labels->Get(i);
    ASSERT_EQ(a->num_crops(), b->num_crops());
    for (uint32_t crop = 0; crop < a->num_crops(); ++crop) {
      EXPECT_EQ(a->fraction_box(crop), b->fraction_box(crop));
      EXPECT_EQ(a->flip(crop), b->flip(crop));
    }
  }
}

TEST_F(LabelJobTest, CropsThatAreNotOfTheseImagesAreRefused) {
  ASSERT_TRUE(Run("first.fkdb"));
  options.boxes_from = Path("first.fkdb");
  options.file.overwrite = true;  // what is refused in mid-work leaves a partial file
  const auto refused = [&](const DataSet& images) {
    const auto result = LabelImages(images, teacher, Path("no.fkdb"), options);
    EXPECT_FALSE(result);
    return result ? Error{} : result.error();
  };
  const std::string first = Path("first.fkdb").string();
  const Error fewer = refused(FakeData(60));
  EXPECT_EQ(fewer.code, ErrorCode::kMismatch);
  EXPECT_TRUE(fewer.message.starts_with(first + ": cannot label its crops: ")) << fewer.message;
  data.changed = {3};
  const Error changed = refused(data);
  EXPECT_EQ(changed.code, ErrorCode::kMismatch);
  EXPECT_EQ(changed.message, "image 'a/1003.png': it changed since it was labelled; the stored crops of it are of another file");
  data.changed = {};
  options.append_to = Path("first.fkdb");
  EXPECT_EQ(refused(data).message, "more crops for a label set, or labels for another one's crops: not both");
  options.append_to.clear();

  test::RandomLabels set(61, options.spec, 2);
  for (uint64_t i = 0; i < 61; ++i) {
    set.keys[i] = data.keys()[i];
    set.records[i].key_hash = Hash64(data.keys()[i]);
    set.records[i].width = i == 9 ? 25 : 24;
    set.records[i].height = 20 + static_cast<uint32_t>(i % 7);
    for (PixelBox& box : set.records[i].pixel_boxes) box = {0, 0, 10, 10};
    set.records[i].content_hash = {};
  }
  set.recipe.data_set = Describe(data, true);
  ASSERT_TRUE(set.Build(Path("other.fkdb")));
  options.boxes_from = Path("other.fkdb");
  EXPECT_EQ(refused(data).message, "image 'a/1009.png': it was 25 x 22 pixels when its crops were drawn and is 24 x 22 now");
  fs::remove(Path("other.fkdb"));
  set.records[9].width = 24;
  set.records[11].ops = {{}, {{OpKind::kSolarize, 0, {128}}}};
  ASSERT_TRUE(set.Build(Path("other.fkdb")));
  EXPECT_EQ(refused(data).message, "image 'a/1011.png': its crops were changed by 'solarize', which this fkdb cannot do");
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
  EXPECT_EQ(probe->crops, 3u * 6);
  EXPECT_GT(probe->seconds, 0);
  EXPECT_GT(probe->bytes_per_crop(), 2 * 8 + 8);  // two indices and values, a box
  EXPECT_LT(probe->bytes_per_crop(), 100);
  EXPECT_EQ(files(), before);

  data.broken = {0, 1, 2, 3, 4};
  EXPECT_EQ(ProbeTeachers(data, teacher, options, 0)->crops, 18u);
  for (uint64_t i = 0; i < data.size(); ++i) data.broken.insert(i);
  EXPECT_EQ(ProbeTeachers(data, teacher, options, 0).error().message, "none of the 61 images of 'fake' can be read");
  data.broken.clear();

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
  EXPECT_NE(probe.error().message.find("teacher 'fake.pt' gives probabilities, not logits: its outputs for 6 crops have no negative number and add up to 1; "
                                       "leave out its softmax, or say in 'fake.pt.json': {\"output\": \"probabilities\"}"), std::string::npos)
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

// Crops 6 to 11 of a label set that had 6: the old ones untouched, the new ones those a build of 12
// would have drawn, with the labels of the batches they make by themselves.
TEST_F(LabelJobTest, AppendedCropsComeAfterTheOldOnes) {
  for (const ValueEncoding values : {ValueEncoding::kF32, ValueEncoding::kPacked}) {
    options.spec.values = values;
    options.file.overwrite = true;
    options.append_to.clear();
    options.augmentation.crops = 6;
    const std::string old = Digest("old.fkdb");
    options.augmentation.crops = 12;
    ASSERT_TRUE(Run("twelve.fkdb"));
    options.augmentation.crops = 6;
    options.append_to = Path("old.fkdb");
    teacher.sizes_.clear();
    const auto appended = Run("more.fkdb");
    ASSERT_TRUE(appended) << appended.error().message;
    EXPECT_EQ(appended->manifest.num_crops, 61u * 12);
    EXPECT_EQ(appended->manifest.augmentation.crops, 12u);
    EXPECT_EQ(appended->manifest.extends, old);
    EXPECT_EQ(teacher.sizes_.size(), 7u * 3 + 2) << "only the new crops are labelled";

    SubsetOptions first_six;
    first_six.file.overwrite = true;
    first_six.crops = 6;
    EXPECT_EQ(SubsetLabelSet(Path("more.fkdb"), Path("first.fkdb"), first_six)->digest, old);
    const auto more = Reader::Open(Path("more.fkdb")), twelve = Reader::Open(Path("twelve.fkdb"));
    for (uint64_t i = 0; i < 61; ++i) {
      for (uint32_t crop = 0; crop < 12; ++crop) {
        EXPECT_EQ(more->Get(i)->pixel_box(crop), twelve->Get(i)->pixel_box(crop));
        EXPECT_EQ(more->Get(i)->flip(crop), twelve->Get(i)->flip(crop));
      }
    }
    for (const int threads : {1, 3}) {
      options.threads = threads;
      EXPECT_EQ(Digest("threads.fkdb"), appended->manifest.digest);
    }
  }
}

// A teacher whose outputs do not depend on the batch: then nothing tells an extended label set from
// one built in one go.
TEST_F(LabelJobTest, AppendedCropsAreThoseOfOneBuildWhereBatchesDoNotMatter) {
  options.batch_size = 1;
  options.augmentation.crops = 9;
  const std::string whole = Digest("whole.fkdb");
  options.augmentation.crops = 2;
  ASSERT_TRUE(Run("0.fkdb"));
  int n = 0;
  for (const uint32_t crops : {3u, 4u}) {
    options.append_to = Path(std::to_string(n) + ".fkdb");
    options.augmentation.crops = crops;
    ASSERT_TRUE(Run(std::to_string(++n) + ".fkdb"));
  }
  EXPECT_EQ(Reader::Open(Path("2.fkdb"))->manifest().digest, whole);
}

TEST_F(LabelJobTest, AStoppedAppendResumes) {
  options.skip_bad = true;
  data.broken = {3};
  ASSERT_TRUE(Run("old.fkdb"));
  options.append_to = Path("old.fkdb");
  options.augmentation.crops = 5;
  const std::string digest = Digest("whole.fkdb");
  std::atomic<bool> stop = false;
  options.stop = &stop;
  options.file.commit_seconds = 0;
  options.file.block_bytes = 256;
  options.progress = [&](const LabelProgress& p) { stop = p.images >= 20; };
  ASSERT_TRUE(Run("part.fkdb")->interrupted);
  stop = false;
  options.progress = {};
  options.file.resume = true;
  options.append_to.clear();
  options.augmentation.crops = 11;
  EXPECT_EQ(Run("part.fkdb").error().message.substr(Path("part.fkdb.partial").string().size()),
            ": cannot resume with another recipe: extends: \"" + Reader::Open(Path("old.fkdb"))->manifest().digest +
                "\" in the file, null asked for");
  options.append_to = Path("old.fkdb");
  options.augmentation.crops = 5;
  EXPECT_EQ(Digest("part.fkdb"), digest);
}

TEST_F(LabelJobTest, WhatCannotBeAppendedToIsRefusedByName) {
  options.skip_bad = true;
  data.broken = {17};
  ASSERT_TRUE(Run("old.fkdb"));
  options.append_to = Path("old.fkdb");
  data.broken.clear();
  ASSERT_TRUE(Run("more.fkdb"));  // an image that was skipped stays skipped, readable or not
  EXPECT_EQ(Reader::Open(Path("more.fkdb"))->manifest().skipped, std::vector<uint64_t>{17});

  const std::string old = Path("old.fkdb").string();
  const auto refused = [&](ErrorCode code) {
    const auto result = Run("no.fkdb");
    EXPECT_FALSE(result);
    EXPECT_EQ(result.error().code, code);
    return result.error().message;
  };
  options.augmentation.seed = 4;
  EXPECT_EQ(refused(ErrorCode::kInvalidArgument),
            old + ": cannot append to it: augmentation.seed: 0 in the file, 4 asked for");
  options.augmentation.seed = 0;
  options.batch_size = 8;
  EXPECT_EQ(refused(ErrorCode::kInvalidArgument), old + ": cannot append to it: teacher_batch_size: 16 in the file, 8 asked for");
  options.batch_size = 16;
  options.augmentation.crops = 65530;
  EXPECT_EQ(refused(ErrorCode::kInvalidArgument), "65536 crops an image in all: expected 1 to 65535");
  options.augmentation.crops = 6;
  test::WriteBytes(Path("fake.pt"), "other weights");
  EXPECT_TRUE(refused(ErrorCode::kInvalidArgument).starts_with(old + ": cannot append to it: teachers[0].sha256: \""));
  test::WriteBytes(Path("fake.pt"), "weights");
  EXPECT_FALSE(fs::exists(Path("no.fkdb.partial")));

  data.changed = {20};
  EXPECT_EQ(refused(ErrorCode::kMismatch),
            "image 'a/1020.png': it changed since it was labelled; the first crops of it are of another file");
  FakeData fewer(60);
  const auto result = LabelImages(fewer, teacher, Path("no.fkdb"), options);
  EXPECT_EQ(result.error().code, ErrorCode::kMismatch);
  EXPECT_EQ(result.error().message, old + ": cannot append to it: 1 of 61 labelled images are missing, first 'a/1060.png'");
}

TEST_F(LabelJobTest, ABadImageStopsTheJobUnlessSkipped) {
  data.broken = {17, 60};
  auto result = Run();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kIoError);
  EXPECT_EQ(result.error().message, "image 'a/1017.png': broken; --skip-bad labels the others");
  options.skip_bad = true;
  options.file.resume = true;
  result = Run();
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->manifest.skipped, (std::vector<uint64_t>{17, 60}));
  EXPECT_EQ(result->manifest.num_images, 61u);
  EXPECT_EQ(result->manifest.num_crops, 59u * 6);
  const auto reader = Reader::Open(Path("out.fkdb"));
  EXPECT_EQ(reader->Get(17)->skip_reason(), "image 'a/1017.png': broken");
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
