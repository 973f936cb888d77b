// SPDX-License-Identifier: Apache-2.0
// A labelling without images or networks: both are made up.
#pragma once

#include <gtest/gtest.h>

#include <mutex>
#include <optional>
#include <set>

#include "format/quantize.h"
#include "reader/reader.h"
#include "tests/db/test_files.h"
#include "writer/label_job.h"

namespace fkdb::test {

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
  explicit FakeTeacher(std::filesystem::path file) : file_(std::move(file)) {}
  const std::string& name() const override { return name_; }
  const std::filesystem::path& file() const override { return file_; }
  const InputSpec& input() const override { return input_spec; }
  uint32_t num_outputs() const override { return outputs; }
  OutputKind output_kind() const override { return kind; }
  std::string autocast() const override { return number_type; }
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
    for (int64_t r = 0; drift != 0 && r < n; ++r) output[r * outputs] += drift;
    if (nan_at && --*nan_at == 0) output[0] = NAN;
    return {};
  }
  uint32_t outputs = 3;
  bool softmax = false;
  float drift = 0;  // of the first class
  OutputKind kind = OutputKind::kLogits;
  std::string number_type;
  InputSpec input_spec = {8, 8, Interpolation::kBilinear, {0.5}, {0.25}};
  mutable std::optional<int> nan_at;
  mutable std::vector<int64_t> sizes_;

 private:
  std::string name_ = "fake.pt";
  std::filesystem::path file_;
  mutable std::mutex mutex_;
};

class LabelJob : public TempFolder {
 protected:
  LabelJob() : teacher(Path("fake.pt")) {
    WriteBytes(Path("fake.pt"), "weights");
    options.spec = MakeSpec(LabelKind::kMarginalSmoothing, 3, 2, ValueEncoding::kF32);
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

}  // namespace fkdb::test
