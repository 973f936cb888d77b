// SPDX-License-Identifier: Apache-2.0
// The training loop on real images: FKD is vanilla KD bit for bit, and a resumed run is the
// undisturbed one.
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <set>

#include "cuda/label_ops.h"
#include "format/compact.h"
#include "reader/reader.h"
#include "tests/db/test_files.h"
#include "trainer/batch_loader.h"
#include "trainer/checkpoint.h"
#include "trainer/discriminator.h"
#include "trainer/export.h"
#include "trainer/label_loss.h"
#include "trainer/mixing.h"
#include "trainer/models.h"
#include "trainer/optimizer.h"
#include "trainer/torch_teacher.h"
#include "trainer/train.h"
#include "writer/group_labeller.h"
#include "writer/label_job.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
constexpr const char* kFashion = "/usr/share/datasets/fashion-mnist/";

// Vanilla knowledge distillation: the teacher runs in every step, on the crops and in the batches the
// label writer would use (whole groups, since a teacher's bits depend on its batch).
class GroupTeacher : public Supervision {
 public:
  GroupTeacher(const Supervision& crops_of, const Reader& boxes, const DataSet& data, const Teacher& teacher,
                     uint64_t seed)
      : images_(crops_of.images()), boxes_(boxes), data_(data), teacher_(teacher), seed_(seed) {}

  const LabelSpec& spec() const override { return boxes_.spec(); }
  const std::vector<uint64_t>& images() const override { return images_; }
  Result<void> CheckInput(const InputSpec&) const override { return {}; }

  Result<void> FillLabels(const StepPlan& step, LabelBatch* labels) const override {
    const Manifest& recipe = boxes_.manifest();
    const uint32_t m = step.pass.crops;
    labels->Resize(spec(), step.ordinals.size(), step.ordinals.size() * m);
    FKDB_ASSIGN(GroupLabeller labeller, GroupLabeller::Make(data_, teacher_, recipe, 0));
    const uint64_t group = GroupSize(recipe.teacher_batch_size, recipe.augmentation.crops);
    std::vector<uint32_t> crops(m);
    for (size_t i = 0; i < step.ordinals.size(); ++i) {
      const uint64_t ordinal = step.ordinals[i], first = ordinal / group * group;
      FKDB_ASSIGN(const auto records,
                  labeller.Label(first, std::min(first + group, data_.size()), nullptr, nullptr));
      FKDB_ASSIGN(const RecordView view, RecordView::Open(records[ordinal - first], spec()));
      SelectCrops(CropOrder::kCycle, seed_, step.pass_number, ordinal, view.num_crops(), step.pass.epoch, crops);
      for (uint32_t c = 0; c < m; ++c) {
        const size_t row = i * m + c;
        FKDB_TRY(view.ReadCompactCrop(crops[c], &labels->boxes()[row], labels->indices() + row * CompactIndexBytes(spec()),
                                      labels->values() + row * CompactValueBytes(spec())));
        labels->flips()[row] = view.flip(crops[c]);
      }
      ++teacher_images;
    }
    return {};
  }
  Result<void> AddCrops(const StepPlan&, size_t, uint32_t, uint32_t, LabelBatch*) const override { return {}; }

  mutable std::atomic<uint64_t> teacher_images = 0;

 private:
  std::vector<uint64_t> images_;
  const Reader& boxes_;
  const DataSet& data_;
  const Teacher& teacher_;
  uint64_t seed_;
};

class TrainTest : public test::TempFolder {
 protected:
  static constexpr uint64_t kImages = 400;

  TrainTest() {
    data_ = std::move(*OpenDataSet(fs::path(kFashion) / "train-images-idx3-ubyte.gz", kImages));
    config_.model = "resnet6-w4";
    config_.batch_size = 32;
    config_.input = {28, 28, Interpolation::kBilinear, {0.449}, {0.226}};
    config_.supervision = "test";
    config_.num_threads = 1;
    config_.evaluate_resize = 0;
  }
  static TensorFile Tensors(const fs::path& folder) { return std::move(*ReadTensorFile(folder / kCheckpointFile)); }

  std::unique_ptr<DataSet> data_;
  TrainConfig config_;
};

void ExpectSameBits(const TensorFile& a, const TensorFile& b) {
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) {
    ASSERT_TRUE(b.tensors.contains(name)) << name;
    EXPECT_EQ(tensor.data, b.tensors.at(name).data) << name;
  }
}

double LargestDifference(const TensorFile& a, const TensorFile& b) {
  double largest = 0;
  for (const auto& [name, tensor] : a.tensors) {
    if (tensor.dtype != "F32") continue;
    const auto* x = reinterpret_cast<const float*>(tensor.data.data());
    const auto* y = reinterpret_cast<const float*>(b.tensors.at(name).data.data());
    for (size_t i = 0; i < tensor.data.size() / 4; ++i) largest = std::max(largest, std::fabs(double{x[i]} - y[i]));
  }
  return largest;
}

TEST_F(TrainTest, FkdIsVanillaKdBitForBit) {
  // A teacher with random weights, which labels 4 crops an image in batches of 32.
  torch::manual_seed(3);
  const auto teacher_model = MakeModel("resnet6-w8", 1, 10);
  TensorFile weights;
  StoreModel(**teacher_model, "", &weights);
  ASSERT_TRUE(WriteTensorFile(Path("teacher.safetensors"), weights));
  const TeacherOptions teacher_options = {config_.input, 32, "cpu"};
  const auto teacher = LoadTeacher("resnet6-w8:" + Path("teacher.safetensors").string(), teacher_options);
  ASSERT_TRUE(teacher) << teacher.error().message;

  LabelJobOptions job;
  job.spec = test::MakeSpec(LabelKind::kFull, 10, 0, ValueEncoding::kF32);
  job.augmentation.crops = 4;
  job.augmentation.input_height = job.augmentation.input_width = 28;
  job.augmentation.mean = {0.449};
  job.augmentation.std = {0.226};
  job.batch_size = 32;
  job.threads = 2;
  const auto labelled = LabelImages(*data_, **teacher, Path("l.fkdb"), job);
  ASSERT_TRUE(labelled) << labelled.error().message;
  const auto reader = Reader::Open(Path("l.fkdb"));
  ASSERT_TRUE(reader);

  config_.epochs = 8;
  config_.crops_per_image = 2;
  config_.max_steps = 50;
  const auto db = DbSupervision(*reader, CropOrder::kCycle, config_.seed);
  ASSERT_TRUE(db);
  config_.out = Path("fkd");
  const auto fkd = Train(config_, *data_, **db, nullptr);
  ASSERT_TRUE(fkd) << fkd.error().message;
  EXPECT_EQ(fkd->steps, 50u);

  const GroupTeacher online(**db, *reader, *data_, **teacher, config_.seed);
  config_.out = Path("kd");
  const auto kd = Train(config_, *data_, online, nullptr);
  ASSERT_TRUE(kd) << kd.error().message;
  EXPECT_GE(online.teacher_images, 50u * 16);
  ExpectSameBits(Tensors(Path("fkd")), Tensors(Path("kd")));

  // The comparison can fail: other labels give other weights.
  const auto hard = HardSupervision(*data_, {}, config_.seed);
  config_.out = Path("hard");
  ASSERT_TRUE(Train(config_, *data_, **hard, nullptr));
  EXPECT_GT(LargestDifference(Tensors(Path("fkd")), Tensors(Path("hard"))), 1e-3);
}

TEST_F(TrainTest, AResumedRunIsTheUndisturbedOne) {
  config_.epochs = 4;
  config_.crops_per_image = 2;
  const auto hard = HardSupervision(*data_, {}, config_.seed);
  ASSERT_TRUE(hard);
  config_.out = Path("whole");
  const auto whole = Train(config_, *data_, **hard, data_.get());
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_TRUE(whole->finished);

  // Stopped within a pass, at the end of one, within another.
  config_.out = Path("parts");
  config_.resume = true;
  for (const uint64_t steps : {1u, 7u, 25u, 31u, 0u}) {
    config_.max_steps = steps;
    const auto part = Train(config_, *data_, **hard, data_.get());
    ASSERT_TRUE(part) << part.error().message;
    EXPECT_EQ(part->finished, steps == 0);
  }
  ExpectSameBits(Tensors(Path("whole")), Tensors(Path("parts")));
  EXPECT_EQ(test::ReadBytes(Path("whole") / kWeightsFile), test::ReadBytes(Path("parts") / kWeightsFile));

  // A finished run that is resumed says again what it came to, and mends its metrics file.
  test::WriteBytes(Path("parts") / kMetricsFile, "half a line");
  const auto again = Train(config_, *data_, **hard, data_.get());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->top1, whole->top1);
  EXPECT_EQ(again->loss, whole->loss);
  const std::string metrics = test::ReadBytes(Path("parts") / kMetricsFile);
  EXPECT_EQ(std::count(metrics.begin(), metrics.end(), '\n'), 3);

  config_.schedule.rate = 0.2;
  EXPECT_EQ(Train(config_, *data_, **hard, nullptr).error().message,
            (Path("parts") / kCheckpointFile).string() +
                ": cannot resume with another configuration: learning_rate was 0.1, now 0.2");
  config_.schedule.rate = 0.1;
  config_.resume = false;
  EXPECT_EQ(Train(config_, *data_, **hard, nullptr).error().code, ErrorCode::kAlreadyExists);
}

// One that was written before there were these settings had none of them.
TEST_F(TrainTest, ACheckpointOlderThanASettingIsResumed) {
  const auto hard = HardSupervision(*data_, {}, config_.seed);
  ASSERT_TRUE(hard);
  config_.epochs = 2;
  config_.out = Path("run");
  config_.max_steps = 3;
  ASSERT_TRUE(Train(config_, *data_, **hard, nullptr));
  TensorFile checkpoint = Tensors(Path("run"));
  auto settings = nlohmann::ordered_json::parse(checkpoint.metadata.at("config"));
  for (const char* name : {"discriminator_rate", "rate_every_step"}) EXPECT_EQ(settings.erase(name), 1u) << name;
  checkpoint.metadata["config"] = settings.dump();
  ASSERT_TRUE(WriteTensorFile(Path("run") / kCheckpointFile, checkpoint));
  config_.resume = true;
  config_.schedule.every_step = true;
  EXPECT_EQ(Train(config_, *data_, **hard, nullptr).error().message,
            (Path("run") / kCheckpointFile).string() + ": cannot resume with another configuration: rate_every_step was false, now true");
  config_.schedule.every_step = false;
  config_.max_steps = 0;
  const auto resumed = Train(config_, *data_, **hard, nullptr);
  ASSERT_TRUE(resumed) << resumed.error().message;
  EXPECT_TRUE(resumed->finished);
}

// What MixBatch says of the inputs is what the loss says of the labels: against dense mixed labels of Torch.
TEST(Mixing, InputsAndLabelsAreMixedAlike) {
  const LabelSpec spec = test::MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kF32);
  std::mt19937_64 random(1);
  const Record record = test::RandomRecord(spec, 6, random);
  const SparseLabels labels = SparseLabelsOf(spec, record.indices.data(), record.values.data());
  std::vector<float> dense(60);
  RecoverDense(labels, 6, 1, dense.data());
  const torch::Tensor y = torch::from_blob(dense.data(), {6, 10});
  // Image n is n everywhere: a pixel says whose it is.
  const torch::Tensor x = torch::arange(6, torch::kFloat32).view({6, 1, 1, 1}).expand({6, 3, 8, 10}).contiguous();
  int mixups = 0, cuts = 0, none = 0;
  for (uint64_t step = 0; step < 400; ++step) {
    const auto mix = DrawBatchMix({0.8, 1, 0.75, 0.25}, 6, 8, 10, CounterRandom(1, step, 0));
    if (!mix) {
      ++none;
      continue;
    }
    const MixedBatch mixed = MixBatch(*mix, x);
    torch::Tensor others = torch::cat({x, torch::full({2, 3, 8, 10}, 7.0f)});  // as a loader does it, whose teachers' inputs have rows behind the crops
    MixInputs(*mix, 3, 8, 10, {others.data_ptr<float>(), static_cast<size_t>(others.numel())});
    EXPECT_TRUE(torch::allclose(others.narrow(0, 0, 6), mixed.inputs, 1e-6, 1e-6)) << step;
    EXPECT_TRUE(torch::equal(others.narrow(0, 6, 2), torch::full({2, 3, 8, 10}, 7.0f)));
    const torch::Tensor means = mixed.inputs.mean({1, 2, 3}), partners = mixed.rows.partners.to(torch::kInt64), own = torch::arange(6, torch::kFloat32);
    const torch::Tensor lambdas = mixed.rows.lambdas;
    EXPECT_TRUE(torch::equal(std::get<0>(partners.sort()), torch::arange(6)));
    EXPECT_TRUE(torch::allclose(means, lambdas * own + (1 - lambdas) * own.index_select(0, partners), 1e-5, 1e-5)) << step;
    const bool cut = torch::equal(mixed.inputs, mixed.inputs.round());
    ++(cut ? cuts : mixups);
    const torch::Tensor logits = torch::randn({6, 10}).requires_grad_();
    const torch::Tensor label = lambdas.unsqueeze(1) * y + (1 - lambdas).unsqueeze(1) * y.index_select(0, partners);
    const torch::Tensor expected = -(label * torch::log_softmax(logits, 1)).sum(1).mean();
    expected.backward();
    const auto [loss, gradient] = LabelLoss(logits.detach(), labels, 1, 1, 1, &mixed.rows);
    EXPECT_NEAR(loss.item<float>(), expected.item<float>(), 1e-5);
    EXPECT_TRUE(torch::allclose(gradient, logits.grad(), 1e-4, 1e-6));
  }
  EXPECT_NEAR(none, 100, 30);    // a box may be less than a pixel, too
  EXPECT_NEAR(mixups, 225, 35);  // three quarters of the others
  EXPECT_GT(cuts, 40);
  EXPECT_TRUE(torch::equal(x, torch::arange(6, torch::kFloat32).view({6, 1, 1, 1}).expand({6, 3, 8, 10})));  // as it was
  EXPECT_EQ(CheckMixing({0.001}).error().message, "mixup or cutmix 0.001: expected an alpha of 0.01 to 100, or 0");
  EXPECT_EQ(CheckMixing({.probability = 2}).error().message, "mix probability 2, mix switch 0.5: expected 0 to 1");
}

// Another supervision, whose labels are said to be of the mixed crops already.
class OfMixedCrops : public Supervision {
 public:
  explicit OfMixedCrops(const Supervision& of) : of_(of) {}
  const LabelSpec& spec() const override { return of_.spec(); }
  const std::vector<uint64_t>& images() const override { return of_.images(); }
  bool labels_with_crops() const override { return of_.labels_with_crops(); }
  bool labels_mixed_crops() const override { return true; }
  Result<void> FillLabels(const StepPlan& step, LabelBatch* labels) const override { return of_.FillLabels(step, labels); }
  Result<void> AddCrops(const StepPlan& step, size_t image, uint32_t width, uint32_t height, LabelBatch* labels) const override {
    return of_.AddCrops(step, image, width, height, labels);
  }
  Result<void> CheckInput(const InputSpec& input) const override { return of_.CheckInput(input); }

 private:
  const Supervision& of_;
};

TEST_F(TrainTest, LabelsOfMixedCropsAreNotMixedAgain) {
  config_.mixing.mixup_alpha = 1;
  config_.max_steps = 1;
  const auto hard = HardSupervision(*data_, {}, config_.seed);
  const OfMixedCrops mixed(**hard);
  std::vector<double> losses;
  TrainHooks hooks;
  hooks.progress = [&](const TrainProgress& p) { losses.push_back(p.step_loss); };
  for (const Supervision* const supervision : {static_cast<const Supervision*>(&mixed), static_cast<const Supervision*>(hard->get())}) {
    config_.out = Path(std::to_string(losses.size()));
    ASSERT_TRUE(Train(config_, *data_, *supervision, nullptr, hooks));
  }
  ASSERT_EQ(losses.size(), 2u);

  const auto loader = BatchLoader::Make(*data_, **hard, {.input = config_.input, .passes = {{0, 1}}, .batch_size = 32, .seed = config_.seed, .mixing = config_.mixing});
  TrainBatch* const batch = *(*loader)->Next();
  ASSERT_TRUE(batch->mix);
  torch::manual_seed(config_.seed);
  const auto model = *MakeModel(config_.model, 1, 10);
  const MixedBatch inputs = MixBatch(*batch->mix, torch::from_blob(batch->inputs.data(), {32, 1, 28, 28}));
  const torch::Tensor logits = model->forward(inputs.inputs).detach();
  const SparseLabels labels = SparseLabelsOf(batch->labels.spec(), batch->arrays.indices.data(), batch->arrays.values.data());
  EXPECT_NEAR(losses[0], LabelLoss(logits, labels, 1, 1).loss.item<double>(), 1e-5);
  EXPECT_NEAR(losses[1], LabelLoss(logits, labels, 1, 1, 1, &inputs.rows).loss.item<double>(), 1e-5);
  EXPECT_GT(std::fabs(losses[0] - losses[1]), 1e-3);
}

// Whatever a checkpoint must hold for it: both moments of AdamW, its two groups, the average, steps in parts, a warm-up.
TEST_F(TrainTest, AResumedRunIsTheUndisturbedOneWithEveryOption) {
  config_.epochs = 5;
  config_.crops_per_image = 2;
  config_.accumulate = 2;
  config_.optimizer = {.name = "adamw", .weight_decay = 0.05, .decay_vectors = false, .clip_norm = 0.5};
  config_.schedule = {.rate = 0.002, .min_rate = 1e-5, .warmup_epochs = 1, .warmup_rate = 1e-5, .every_step = true};
  config_.average_decay = 0.9;
  config_.mixing = {0.8, 1};
  const auto hard = HardSupervision(*data_, {}, config_.seed, /*smoothing=*/0.1);
  ASSERT_TRUE(hard);
  config_.out = Path("whole");
  const auto whole = Train(config_, *data_, **hard, data_.get());
  ASSERT_TRUE(whole) << whole.error().message;
  config_.out = Path("parts");
  config_.resume = true;
  for (const uint64_t steps : {5u, 12u, 20u, 0u}) {
    config_.max_steps = steps;
    const auto part = Train(config_, *data_, **hard, data_.get());
    ASSERT_TRUE(part) << part.error().message;
  }
  const TensorFile checkpoint = Tensors(Path("parts"));
  ExpectSameBits(Tensors(Path("whole")), checkpoint);
  for (const char* name : {"optimizer.mean.conv1.weight", "optimizer.square.bn1.bias", "optimizer.step.fc.bias", "average.bn1.running_mean"}) {
    EXPECT_TRUE(checkpoint.tensors.contains(name)) << name;
  }
  for (const char* file : {kWeightsFile, kBestFile}) EXPECT_EQ(test::ReadBytes(Path("whole") / file), test::ReadBytes(Path("parts") / file));

  // What is handed over is the average.
  const auto weights = ReadTensorFile(Path("whole") / kWeightsFile);
  ASSERT_TRUE(weights);
  EXPECT_EQ(weights->tensors.at("conv1.weight").data, checkpoint.tensors.at("average.conv1.weight").data);
  EXPECT_NE(weights->tensors.at("conv1.weight").data, checkpoint.tensors.at("model.conv1.weight").data);
  ASSERT_TRUE(ExportWeights(Path("whole"), Path("exported"), {.checkpoint = true}));
  ExpectSameBits(*ReadTensorFile(Path("exported")), *weights);
}

// Without gradients a step is weight decay alone.
TEST_F(TrainTest, WeightDecayReachesWhatItShould) {
  const auto moved = [&](const OptimizerConfig& optimizer) {
    torch::manual_seed(1);
    const auto model = *MakeModel("resnet6-w4", 1, 10);
    for (const auto& p : model->parameters()) {
      p.data().fill_(1);
      p.mutable_grad() = torch::zeros_like(p);
    }
    auto made = *MakeOptimizer(*model, optimizer);
    SetRate(made.get(), 0.1);
    made->step();
    std::set<std::string> names;
    for (const auto& p : model->named_parameters()) {
      if (p.value().min().item<float>() < 1) names.insert(p.key());
    }
    return names;
  };
  for (const char* name : {"sgd", "adamw"}) {
    const auto all = moved({.name = name, .weight_decay = 0.5});
    EXPECT_TRUE(all.contains("fc.bias") && all.contains("bn1.weight") && all.contains("conv1.weight"));
    const auto matrices = moved({.name = name, .weight_decay = 0.5, .decay_vectors = false});
    EXPECT_TRUE(matrices.contains("fc.weight") && matrices.contains("conv1.weight"));
    EXPECT_FALSE(matrices.contains("fc.bias") || matrices.contains("bn1.weight"));
    const auto biases = moved({.name = name, .weight_decay = 0.5, .no_decay = {"weight"}});
    EXPECT_TRUE(biases.contains("fc.bias") && biases.contains("bn1.bias"));
    EXPECT_FALSE(biases.contains("fc.weight") || biases.contains("bn1.weight"));
  }
}

// The images of another data set, until their classes are ones that no network knows.
class Unknowable : public DataSet {
 public:
  explicit Unknowable(const DataSet& of) : of_(of) {
    name_ = of.name(), layout_ = of.layout(), channels_ = of.channels(), keys_ = of.keys(), class_names_ = of.class_names();
    for (uint64_t i = 0; i < of.size(); ++i) class_indices_.push_back(of.class_index(i));
  }
  void ChangeClasses() { std::ranges::fill(class_indices_, 10); }
  Result<Image> Load(uint64_t ordinal, std::vector<std::byte>* file) const override { return of_.Load(ordinal, file); }

 private:
  const DataSet& of_;
};

TEST_F(TrainTest, TheBestStudentIsKept) {
  config_.epochs = 3;
  Unknowable val(*data_);
  const auto hard = HardSupervision(*data_, {}, config_.seed);
  config_.out = Path("out");
  std::vector<std::string> metrics;
  TrainHooks hooks;
  hooks.metrics = [&](const std::string& line) {
    if (metrics.empty()) fs::copy_file(Path("out") / kBestFile, Path("first"));
    metrics.push_back(line);
    val.ChangeClasses();
  };
  const auto result = Train(config_, *data_, **hard, &val, hooks);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(metrics.size(), 3);
  EXPECT_GT(result->best_top1, 0);
  EXPECT_EQ(result->top1, 0);
  EXPECT_EQ(test::ReadBytes(Path("out") / kBestFile), test::ReadBytes(Path("first")));
  EXPECT_NE(test::ReadBytes(Path("out") / kBestFile), test::ReadBytes(Path("out") / kWeightsFile));
}

// One pass of two epochs: the rate vanishes in its middle, and nothing is learned from there on.
TEST_F(TrainTest, TheRateCanChangeWithinAPass) {
  config_.epochs = config_.crops_per_image = 2;
  config_.schedule = {.decay = Decay::kStep, .step_epochs = {1}, .step_factor = 1e-30, .single_crop_tail = false, .every_step = true};
  const auto hard = HardSupervision(*data_, {}, config_.seed);
  std::vector<double> rates;
  TrainHooks hooks;
  hooks.progress = [&](const TrainProgress& p) { rates.push_back(p.learning_rate); };
  std::string metrics;
  hooks.metrics = [&](const std::string& line) { metrics += line; };
  config_.out = Path("whole");
  ASSERT_TRUE(Train(config_, *data_, **hard, nullptr, hooks));
  EXPECT_EQ(nlohmann::json::parse(metrics)["lr"], 0.1 * 1e-30);  // of the pass's last step
  const size_t half = (rates.size() + 1) / 2;
  EXPECT_EQ(rates.at(half - 1), 0.1);
  EXPECT_EQ(rates.at(half), 0.1 * 1e-30);
  const auto after = [&](uint64_t steps) {
    config_.out = Path(std::to_string(steps));
    config_.max_steps = steps;
    EXPECT_TRUE(Train(config_, *data_, **hard, nullptr));
    return Tensors(config_.out).tensors.at("model.conv1.weight").data;
  };
  const auto learned = Tensors(Path("whole")).tensors.at("model.conv1.weight").data;
  EXPECT_EQ(learned, after(half));
  EXPECT_NE(learned, after(half - 1));
}

TEST_F(TrainTest, PlainTrainingLearns) {
  config_.epochs = 12;
  config_.model = "resnet6-w8";
  const auto hard = HardSupervision(*data_, {{0.5, 1}, {3. / 4, 4. / 3}, 0.5}, config_.seed);
  config_.out = Path("out");
  std::vector<std::string> metrics;
  TrainHooks hooks;
  hooks.metrics = [&](const std::string& line) { metrics.push_back(line); };
  const auto result = Train(config_, *data_, **hard, data_.get(), hooks);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(metrics.size(), 12u);
  EXPECT_GT(result->top1, 0.4);  // chance is 0.1
  EXPECT_GT(result->top5, result->top1);
}

TEST_F(TrainTest, ALossThatIsNaNStopsTheRun) {
  config_.schedule.rate = 1e30;
  config_.epochs = 2;
  config_.out = Path("out");
  const auto hard = HardSupervision(*data_, {}, config_.seed);
  const auto result = Train(config_, *data_, **hard, nullptr);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kModel);
}

TEST_F(TrainTest, UnknownModelsAndDevicesAreNamed) {
  config_.out = Path("out");
  const auto hard = HardSupervision(*data_, {}, config_.seed);
  config_.model = "resnet19";
  EXPECT_EQ(Train(config_, *data_, **hard, nullptr).error().message,
            "model 'resnet19' is not known: expected " + ModelNames() + ", or FILE.pt");
  config_.model = "resnet6-w0";
  EXPECT_FALSE(Train(config_, *data_, **hard, nullptr));
  config_.model = "resnet6-w4";
  config_.device = "tpu";
  EXPECT_EQ(Train(config_, *data_, **hard, nullptr).error().message, "device 'tpu': expected cpu, cuda or cuda:N");
}

// Beside a network written down here with the same weights; its own step lowers its loss.
TEST(Discriminator, ItsLossAndGradientAreThoseOfItsLayers) {
  torch::manual_seed(3);
  Discriminator discriminator(130, 0.01, torch::kCPU);
  TensorFile file;
  discriminator.Store("d.", &file);
  const auto tensor = [&](const std::string& name, std::vector<int64_t> shape) {
    torch::Tensor loaded = torch::empty(shape);
    EXPECT_TRUE(LoadTensor(file, "d.model." + name, loaded)) << name;
    return loaded;
  };
  const torch::Tensor w0 = tensor("0.weight", {16, 130}), w2 = tensor("2.weight", {8, 16}), w4 = tensor("4.weight", {2, 8});
  const torch::Tensor b0 = tensor("0.bias", {16}), b2 = tensor("2.bias", {8}), b4 = tensor("4.bias", {2});
  const torch::Tensor logits = (3 * torch::randn({6, 130})).requires_grad_(), labels = torch::softmax(2 * torch::randn({6, 130}), 1);
  labels.select(0, 4).zero_().select(0, 7).fill_(1);  // as f16 rounds it
  const auto centred = [](const torch::Tensor& x) { return x - x.sum(1, true) / 130; };
  const torch::Tensor x = torch::cat({centred(logits), centred(labels.clamp_min(1.0 / (1 << 24)).log())});
  const torch::Tensor out = torch::relu(torch::relu(x.matmul(w0.t()) + b0).matmul(w2.t()) + b2).matmul(w4.t()) + b4;
  const torch::Tensor right = torch::cat({torch::tensor({{1.0f, 0.0f}}).expand({6, 2}), torch::tensor({{0.0f, 1.0f}}).expand({6, 2})});
  const torch::Tensor expected = -(right * torch::log_sigmoid(out) + (1 - right) * torch::log_sigmoid(-out)).mean();
  expected.backward();

  torch::Tensor gradient = torch::ones({6, 130});
  EXPECT_NEAR(discriminator.AddGradient(logits.detach(), labels, 0.5, &gradient), expected.item<double>(), 1e-6);
  EXPECT_GT(logits.grad().abs().max().item<double>(), 1e-6);
  EXPECT_TRUE(torch::allclose(gradient - 1, 0.5 * logits.grad(), 1e-3, 1e-7));
  double before = expected.item<double>();
  for (int step = 0; step < 5; ++step) {
    discriminator.Step();
    const double loss = discriminator.AddGradient(logits.detach(), labels, 1, &gradient);
    EXPECT_LT(loss, before) << step;
    before = loss;
  }
  EXPECT_EQ(CheckDiscriminator(1e-4, test::MakeSpec(LabelKind::kMarginalRenorm, 10, 3, ValueEncoding::kF32)).error().message,
            "a discriminator needs a probability of every class: labels of kind 'marginal-renorm' give most of them none");
  EXPECT_EQ(CheckDiscriminator(-1, test::MakeSpec(LabelKind::kFull, 10, 3, ValueEncoding::kF32)).error().message,
            "discriminator's learning rate -1: expected more than 0");
}

// Its gradient, handed to autograd, is that of Torch's own operations on dense labels.
TEST(LabelLoss, IsTorchsOnDenseLabels) {
  const LabelSpec spec = test::MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kF32);
  std::mt19937_64 random(1);
  const Record record = test::RandomRecord(spec, 7, random);
  const SparseLabels labels = SparseLabelsOf(spec, record.indices.data(), record.values.data());
  torch::manual_seed(1);
  const torch::Tensor weights = torch::randn({5, 10}, torch::requires_grad()), inputs = torch::randn({7, 5});
  std::vector<float> dense(70);
  RecoverDense(labels, 7, 1, dense.data());
  const torch::Tensor y = torch::from_blob(dense.data(), {7, 10});
  const torch::Tensor expected = -(y * torch::log_softmax(inputs.matmul(weights) / 2, 1)).sum(1).mean();
  expected.backward();
  const torch::Tensor slope = weights.grad().clone();

  for (const auto& [type, near] : {std::pair(torch::kFloat32, 1e-6), {torch::kFloat16, 2e-3}, {torch::kBFloat16, 2e-2}}) {
    weights.mutable_grad().reset();
    const torch::Tensor logits = inputs.matmul(weights).to(type);
    const auto [loss, gradient] = LabelLoss(logits.detach(), labels, 2, 1);
    EXPECT_EQ(loss.scalar_type(), torch::kFloat32);
    EXPECT_EQ(gradient.scalar_type(), type);
    EXPECT_NEAR(loss.item<float>(), expected.item<float>(), std::min(near, 1e-2));
    logits.backward(gradient);
    EXPECT_LT((weights.grad() - slope).abs().max().item<double>(), near * slope.abs().max().item<double>()) << type;
  }
  const torch::Tensor logits = inputs.matmul(weights).detach();
  EXPECT_TRUE(torch::equal(LabelLoss(logits, labels, 2, 1, 0.25).gradient, LabelLoss(logits, labels, 2, 1).gradient / 4));
  EXPECT_TRUE(torch::equal(DenseLabels(labels, 7, 1, torch::kCPU), y));
  const MixedRows mixed = {torch::tensor({6, 5, 4, 3, 2, 1, 0}, torch::kInt), torch::full({7}, 0.25f)};
  EXPECT_TRUE(torch::allclose(DenseLabels(labels, 7, 1, torch::kCPU, &mixed), 0.25 * y + 0.75 * y.flip(0)));
  EXPECT_THROW(LabelLoss(inputs, labels, 2, 1), c10::Error);
  EXPECT_THROW(LabelLoss(torch::zeros({7, 10}, torch::kFloat64), labels, 2, 1), c10::Error);
}

}  // namespace
}  // namespace fkdb
