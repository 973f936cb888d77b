// SPDX-License-Identifier: Apache-2.0
#include "trainer/match.h"

#include <fmt/format.h>

#include <algorithm>

#include "format/text.h"

namespace fkdb {
namespace {

// In one sorted list but not in the other: how many, and the first.
struct Missing {
  uint64_t count = 0;
  std::string first;
};

Missing InFirstOnly(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  Missing missing;
  auto it = b.begin();
  for (const std::string& key : a) {
    it = std::lower_bound(it, b.end(), key);
    if (it != b.end() && *it == key) continue;
    if (missing.count++ == 0) missing.first = key;
  }
  return missing;
}

}  // namespace

Result<void> CheckMatch(const Reader& labels, const DataSet& images) {
  const Manifest& manifest = labels.manifest();
  const auto mismatch = [&](std::string what) {
    return Fail(ErrorCode::kMismatch, fmt::format("{} does not match the images of '{}': {}",
                                                  labels.file().path().string(), images.name(), what));
  };
  const AugmentationInfo& pixels = manifest.augmentation;
  const AugmentationInfo known;  // the conventions of this version
  if (pixels.resampling != known.resampling || pixels.exif != known.exif) {
    return Fail(ErrorCode::kUnsupported,
                fmt::format("{}: its crops were made with resampling '{}' and exif '{}'; this fkdb can show only '{}' and "
                            "'{}' to a student",
                            labels.file().path().string(), Printable(pixels.resampling), Printable(pixels.exif),
                            known.resampling, known.exif));
  }
  if (manifest.data_set.channels != images.channels()) {
    return mismatch(fmt::format("labelled images have {} channels, these {}", manifest.data_set.channels,
                                images.channels()));
  }
  FKDB_ASSIGN(const std::vector<std::string> keys, labels.file().names().AllKeys());
  if (keys != images.keys()) {
    const Missing unlabelled = InFirstOnly(images.keys(), keys), absent = InFirstOnly(keys, images.keys());
    std::string what;
    if (absent.count > 0) {
      what = fmt::format("{} of {} labelled images are missing, first '{}'", absent.count, keys.size(),
                         Printable(absent.first));
    }
    if (unlabelled.count > 0) {
      what += fmt::format("{}{} of {} images have no labels, first '{}'", what.empty() ? "" : "; ", unlabelled.count,
                          images.size(), Printable(unlabelled.first));
    }
    return mismatch(what + (absent.count == 0 ? " (--limit N takes only the first N images)" : ""));
  }
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
