// SPDX-License-Identifier: Apache-2.0
// The images that a label set and a data set both have, for labels of a part of a data set (fkdb-share fetch --images), and for copies
// of it that lost images or changed since they were labelled.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "format/result.h"
#include "image/data_set.h"
#include "reader/reader.h"

namespace fkdb {

// How the images of a data set differ from those that were labelled. Keys in key order.
struct ImageDifferences {
  std::vector<std::string> missing;  // labelled, and not there
  uint64_t unlabelled = 0;           // there, and not in the label set
  std::vector<std::string> resized;  // of another size than when they were labelled
  std::vector<std::string> changed;  // of the same size, from another file

  // "2 of 500 labelled images are missing, first 'a.jpg'; 1 changed, first 'b.jpg'"; empty: nothing differs.
  std::string Text(uint64_t labelled) const;
};

struct CompareWork {
  int threads = 1;
  std::function<void(uint64_t, uint64_t)> progress;  // images compared, in all; from the calling thread
  const std::atomic<bool>* stop = nullptr;
};

// A data set numbered as the label set is: what is missing has an ordinal, and is not `has`. Borrows both.
class LabelledImages : public DataSet {
 public:
  // Looks at keys alone. Errors: Mismatch (no image in common).
  static Result<std::unique_ptr<LabelledImages>> Of(const Reader& labels, const DataSet& images);

  // Compares sizes, and content hashes where the label set has them; what differs is missing from then on. Errors: those of DataSet::Measure,
  // Incomplete (stopped).
  Result<void> Compare(const CompareWork& work);

  const ImageDifferences& differences() const { return differences_; }

  bool has(uint64_t ordinal) const override { return places_[ordinal] != kMissing; }
  Result<Image> Load(uint64_t ordinal, std::vector<std::byte>* file) const override;
  Result<ImageSize> Measure(uint64_t ordinal, std::vector<std::byte>* file) const override;
  Result<void> LoadRegion(uint64_t ordinal, const RegionOf& region, Image* image) const override;

 private:
  static constexpr uint64_t kMissing = UINT64_MAX;
  LabelledImages(const Reader& labels, const DataSet& images) : labels_(labels), images_(images) {}
  Result<uint64_t> PlaceOf(uint64_t ordinal) const;

  const Reader& labels_;
  const DataSet& images_;
  std::vector<uint64_t> places_;  // in images_
  ImageDifferences differences_;
};

}  // namespace fkdb
