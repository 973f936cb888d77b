// SPDX-License-Identifier: Apache-2.0
// Labels that are not filed by image: files of many rows, a row a crop of some image. They are gathered for as many
// images at a time as memory allows, in one pass over all files for each such window.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/label_source.h"

namespace fkdb {

class GatheredSource : public LabelSource {
 public:
  uint64_t window() const override { return window_; }
  std::optional<uint32_t> most_crops() const override { return most_crops_; }
  Result<void> Prepare(uint64_t first, uint64_t end) override;
  Result<ImageLabels> Load(uint64_t ordinal) const override;

 protected:
  // One row: a crop, as ImageLabels has it, with num_values values and indices.
  struct Row {
    const PixelBox* pixel_box = nullptr;  // or
    FractionBox fraction_box;
    bool half_box = false;
    bool flip = false;
    std::vector<CropOp> ops;
    bool half_values = false;
    std::span<const float> values;
    std::span<const uint32_t> indices;
  };
  static constexpr uint32_t kNobody = UINT32_MAX;  // the ordinal of a row of no image
  // Rows that are read together, and of which images they are.
  struct Rows {
    std::vector<uint32_t> ordinals;
    std::vector<uint16_t> crops;  // which of its image's crops a row makes; set by Ready
  };
  using Wants = std::function<bool(size_t row)>;
  using Put = std::function<void(size_t row, const Row&)>;

  GatheredSource(const LabelledImages& images, uint64_t memory_bytes, int threads)
      : data_(images.data), count_(images.count), memory_bytes_(memory_bytes), threads_(threads) {}

  // Calls put(row, ..) for the rows of `group` that wants(row). Many threads.
  virtual Result<void> ReadRows(size_t group, const Wants& wants, const Put& put) const = 0;

  // All groups are in groups_, and every row has `shape`'s form, num_values and kind of boxes, which is what an
  // image's labels begin as; bytes_a_row: about what a row takes in memory besides its values. Errors: Unsupported
  // (too many crops of one image).
  Result<void> Ready(const ImageLabels& shape, uint64_t bytes_a_row);

  // Runs `work` on each thread; the first error.
  Result<void> OnThreads(const std::function<Result<void>()>& work) const;

  const DataSet& data_;
  const uint64_t count_;  // of its images that are wanted
  std::vector<Rows> groups_;

 private:
  const uint64_t memory_bytes_;
  const int threads_;
  ImageLabels shape_;
  std::vector<uint32_t> counts_;  // crops of each image
  uint32_t most_crops_ = 0;
  uint64_t window_ = 1;

  std::mutex mutex_;
  uint64_t first_ = 0;
  std::vector<ImageLabels> ready_;  // of images first_ ..
};

}  // namespace fkdb
