// SPDX-License-Identifier: Apache-2.0
// Labels in somebody else's form. A format brings a LabelSource; convert_job.h does the rest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "format/box.h"
#include "format/crop_op.h"
#include "format/label_spec.h"
#include "format/result.h"
#include "image/data_set.h"

namespace fkdb {

// What of a teacher's output a source has for a crop.
enum class LabelForm : uint8_t {
  kClass,       // a class
  kClassValue,  // a class and its p
  kTopK,        // K classes and their p: marginal smoothing or renorm, the bytes don't tell
  kTopKRenorm,  // K classes and p that sum to 1 over them
  kAll,         // the p of all classes
  kLogits,      // all values before softmax
  kLabelMap,    // K classes and their scores for each cell of a grid; the cells are the crops
};
std::string_view Name(LabelForm form);  // for messages: "a class a crop"

// One image's crops, M, as a source has them.
struct ImageLabels {
  uint32_t grid_height = 0, grid_width = 0;  // of a label map, which has no boxes
  std::vector<PixelBox> pixel_boxes;        // (M), or
  std::vector<FractionBox> fraction_boxes;  // (M)
  bool half_boxes = false;                  // the fractions are float16
  std::vector<uint8_t> flips;               // (M), 0 or 1
  std::vector<std::vector<CropOp>> ops;     // (M), or empty
  LabelForm form = LabelForm::kTopK;
  uint32_t num_values = 0;                  // K or C a crop; 1 for kClass
  bool half_values = false;                 // float16 loses nothing of the values
  std::vector<uint32_t> indices;            // (M, K); empty for kAll and kLogits
  std::vector<float> values;                // (M, K or C); empty for kClass

  uint32_t num_crops() const { return static_cast<uint32_t>(flips.size()); }
};

// The images whose labels are wanted: the first `count`, in key order, of a data set. Its other images count where
// labels know images by number, and as partners.
struct LabelledImages {
  const DataSet& data;
  uint64_t count;
};

// Some of a source's names, and how many there are.
struct NameList {
  static constexpr size_t kMost = 5;
  uint64_t count = 0;
  std::vector<std::string> first;
  void Add(std::string name) {
    if (++count <= kMost) first.push_back(std::move(name));
  }
};

// Load may be called from many threads, while nobody prepares.
class LabelSource {
 public:
  virtual ~LabelSource() = default;

  // Where labels are not filed by image, they are gathered for some images at a time: Load needs its image to be
  // among those that were prepared last. `window`: how many images to prepare at once.
  virtual uint64_t window() const { return UINT64_MAX; }
  virtual Result<void> Prepare(uint64_t /*first*/, uint64_t /*end*/) { return {}; }
  // Crops of the image that has most, if that is known without reading them all.
  virtual std::optional<uint32_t> most_crops() const { return std::nullopt; }

  // Where image `ordinal`'s labels are, for messages.
  virtual std::string PathOf(uint64_t ordinal) const = 0;
  // Errors: NotFound (no labels of this image), and those of reading foreign files; they name the file.
  virtual Result<ImageLabels> Load(uint64_t ordinal) const = 0;

  // Wanted images without labels, by key; labels without an image, by path.
  const NameList& unlabelled() const { return unlabelled_; }
  const NameList& strays() const { return strays_; }

 protected:
  NameList unlabelled_, strays_;
};

}  // namespace fkdb
