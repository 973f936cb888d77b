// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "image/data_set.h"
#include "trainer/batch_loader.h"

namespace fkdb::test {

// Grey images of 8 x 8 in two classes, made on the spot; image `ordinal` begins with before(ordinal).
class MadeUp : public DataSet {
 public:
  explicit MadeUp(uint64_t images, std::function<Result<void>(uint64_t)> before = {}) : before_(std::move(before)) {
    name_ = layout_ = "made up";
    channels_ = 1;
    class_names_ = {"a", "b"};
    for (uint64_t i = 0; i < images; ++i) {
      keys_.push_back(std::to_string(i));
      class_indices_.push_back(static_cast<int32_t>(i % 2));
    }
  }
  Result<Image> Load(uint64_t ordinal, std::vector<std::byte>*) const override {
    if (before_) FKDB_TRY(before_(ordinal));
    return Image{8, 8, 1, std::vector<uint8_t>(64, static_cast<uint8_t>(ordinal))};
  }

 private:
  std::function<Result<void>(uint64_t)> before_;
};

// Noise in colour, of sizes that differ; a few are larger than a chunk of decoded regions.
class MadeUpPhotos : public DataSet {
 public:
  explicit MadeUpPhotos(uint64_t images) {
    name_ = layout_ = "made up";
    class_names_ = {"a", "b"};
    for (uint64_t i = 0; i < images; ++i) {
      keys_.push_back(std::to_string(i));
      class_indices_.push_back(static_cast<int32_t>(i % 2));
    }
  }
  Result<Image> Load(uint64_t ordinal, std::vector<std::byte>*) const override {
    std::minstd_rand random(static_cast<uint32_t>(ordinal) + 1);
    Image image = {20 + static_cast<uint32_t>(random() % 90), 20 + static_cast<uint32_t>(random() % 90), 3, {}};
    if (ordinal % 8 == 3) image.height = image.width = 1300 + static_cast<uint32_t>(ordinal);
    image.pixels.resize(size_t{image.height} * image.width * 3);
    for (uint8_t& sample : image.pixels) sample = static_cast<uint8_t>(random());
    return image;
  }
};

inline std::vector<float> InputsOf(const TrainBatch& batch) { return {batch.inputs.begin(), batch.inputs.end()}; }

}  // namespace fkdb::test
