// SPDX-License-Identifier: Apache-2.0
#include "trainer/match.h"

#include <fmt/format.h>

#include <algorithm>

#include "format/text.h"
#include "image/resample.h"

namespace fkdb {

Result<void> CheckMatch(const Reader& labels, const DataSet& images) {
  const Manifest& manifest = labels.manifest();
  const auto mismatch = [&](std::string what) {
    return Fail(ErrorCode::kMismatch, fmt::format("{} does not match the images of '{}': {}",
                                                  labels.label_set().path().string(), images.name(), what));
  };
  const AugmentationInfo& pixels = manifest.augmentation;
  const AugmentationInfo known;  // the conventions of this version
  const auto unknown = [&](const char* what, const std::string& theirs, const std::string& ours) {
    return Fail(ErrorCode::kUnsupported, fmt::format("{}: its crops were made with {} '{}'; this fkdb can show only {} to a student",
                                                     labels.label_set().path().string(), what, Printable(theirs), ours));
  };
  if (!ParsePassOrder(pixels.resampling)) {
    return unknown("resampling", pixels.resampling,
                   fmt::format("'{}' and '{}'", Name(PassOrder::kHorizontalFirst), Name(PassOrder::kAsPillow13)));
  }
  if (pixels.exif != known.exif) return unknown("exif", pixels.exif, fmt::format("'{}'", known.exif));
  if (!pixels.wide_samples.empty() && pixels.wide_samples != kHighByte) {
    return unknown("wide_samples", pixels.wide_samples, fmt::format("'{}'", kHighByte));
  }
  if (manifest.data_set.channels != images.channels()) {
    return mismatch(fmt::format("labelled images have {} channels, these {}", manifest.data_set.channels,
                                images.channels()));
  }
  FKDB_ASSIGN(const std::vector<std::string> keys, labels.label_set().AllKeys());
  if (const std::string what = KeyDifference(keys, images.keys()); !what.empty()) return mismatch(what);
  const auto& stored = manifest.data_set.class_names;
  if (!stored.empty() && stored != images.class_names()) {
    const auto& found = images.class_names();
    const size_t n = static_cast<size_t>(
        std::mismatch(stored.begin(), stored.end(), found.begin(), found.end()).first - stored.begin());
    const auto name = [&](const std::vector<std::string>& names) {
      return n < names.size() ? fmt::format("'{}'", Printable(names[n])) : std::string("missing");
    };
    return mismatch(fmt::format("its classes are numbered otherwise: class {} is {} in the label set, {} here", n,
                                name(stored), name(found)));
  }
  return {};
}

}  // namespace fkdb
