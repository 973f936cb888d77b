// SPDX-License-Identifier: Apache-2.0
#include "trainer/match.h"

#include <fmt/format.h>

#include <algorithm>

#include "format/text.h"
#include "image/resample.h"

namespace fkdb {
namespace {

tl::unexpected<Error> Mismatch(const Reader& labels, std::string_view name, const std::string& what) {
  return Fail(ErrorCode::kMismatch, fmt::format("{} does not match the images of '{}': {}", labels.label_set().path().string(),
                                                Printable(name), what));
}

// Pixels and channels.
Result<void> CheckLook(const Reader& labels, const DataSet& images) {
  FKDB_TRY(CheckPixels(labels));
  if (const uint32_t channels = labels.manifest().data_set.channels; channels != images.channels()) {
    return Mismatch(labels, images.name(), fmt::format("labelled images have {} channels, these {}", channels, images.channels()));
  }
  return {};
}

}  // namespace

Result<void> CheckPixels(const Reader& labels) {
  const AugmentationInfo& pixels = labels.manifest().augmentation;
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
  return {};
}

Result<void> CheckCrops(const Reader& labels) {
  if (!labels.spec().is_map()) return {};
  return Fail(ErrorCode::kUnsupported, fmt::format("{}: its labels are label maps, which hold no crops: fkdb-train --supervision relabel and the Python loaders train from them",
                                                   labels.label_set().path().string()));
}

Result<void> CheckMaps(const Reader& labels) {
  if (labels.spec().is_map()) return {};
  return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: its labels are of kind '{}': --supervision relabel is for label maps, --supervision db for these",
                                                       labels.label_set().path().string(), Name(labels.spec().kind)));
}

Result<void> CheckSize(const Reader& labels, uint64_t ordinal, ImageSize then, ImageSize now) {
  if (then.width == now.width && then.height == now.height) return {};
  return Fail(labels.About(ordinal, {ErrorCode::kMismatch, fmt::format("it was {} x {} pixels when labelled and is {} x {} now", then.width, then.height,
                                                                       now.width, now.height)}));
}

std::vector<uint64_t> LabelledOrdinals(const Reader& labels, const DataSet* images) {
  const auto& skipped = labels.manifest().skipped;
  std::vector<uint64_t> ordinals;
  for (uint64_t i = 0; i < labels.num_images(); ++i) {
    if ((images == nullptr || images->has(i)) && !std::binary_search(skipped.begin(), skipped.end(), i)) ordinals.push_back(i);
  }
  return ordinals;
}

Result<void> CheckKeys(const Reader& labels, std::string_view name, std::span<const std::string> sorted_keys) {
  FKDB_ASSIGN(const std::vector<std::string> keys, labels.label_set().AllKeys());
  const std::string what = KeyDifference(keys, sorted_keys);
  return what.empty() ? Result<void>() : Mismatch(labels, name, what);
}

Result<void> CheckClasses(const Reader& labels, std::string_view name, std::span<const std::string> class_names) {
  const auto& stored = labels.manifest().data_set.class_names;
  const auto differs = std::mismatch(stored.begin(), stored.end(), class_names.begin(), class_names.end());
  if (stored.empty() || (differs.first == stored.end() && differs.second == class_names.end())) return {};
  const auto n = static_cast<size_t>(differs.first - stored.begin());
  const auto at = [&](std::span<const std::string> names) {
    return n < names.size() ? fmt::format("'{}'", Printable(names[n])) : std::string("missing");
  };
  return Mismatch(labels, name, fmt::format("its classes are numbered otherwise: class {} is {} in the label set, {} here", n, at(stored),
                                            at(class_names)));
}

Result<void> CheckForm(const Reader& labels, const DataSet& images) {
  FKDB_TRY(CheckLook(labels, images));
  return CheckClasses(labels, images.name(), images.class_names());
}

Result<void> CheckMatch(const Reader& labels, const DataSet& images) {
  FKDB_TRY(CheckLook(labels, images));
  FKDB_TRY(CheckKeys(labels, images.name(), images.keys()));
  return CheckClasses(labels, images.name(), images.class_names());
}

}  // namespace fkdb
