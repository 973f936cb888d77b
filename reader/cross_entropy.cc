// SPDX-License-Identifier: Apache-2.0
#include "reader/cross_entropy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <utility>

#include "format/label_map.h"
#include "format/recover.h"
#include "reader/diff.h"

namespace fkdb {
namespace {

// The dense labels of one label set.
class Labels {
 public:
  explicit Labels(const Reader& reader)
      : reader_(reader), indices_(reader.spec().num_indices()), values_(reader.spec().num_values()), dense_(reader.spec().num_classes) {}

  // Of the record's crop `crop`, which gives its box; of a label map, of the box that is given.
  Result<void> Read(const RecordView& record, uint32_t crop, PixelBox* box) {
    if (reader_.spec().is_map()) return PoolLabelMap(record, *box, dense_);
    FKDB_TRY(record.ReadCrop(crop, box, indices_.data(), values_.data()));
    RecoverCrop(reader_.spec(), indices_, values_, /*tau=*/1, dense_);
    return {};
  }
  std::span<const float> dense() const { return dense_; }

 private:
  const Reader& reader_;
  std::vector<uint32_t> indices_;
  std::vector<float> values_, dense_;
};

// Whether another image is in the crop. Errors: Corruption, Unsupported (operations that are none, or of a newer version).
Result<bool> IsMixed(const RecordView& record, uint32_t crop) {
  FKDB_ASSIGN(const std::vector<CropOp> ops, record.Ops(crop));
  return std::ranges::any_of(ops, [](const CropOp& op) { return op.kind == OpKind::kMixup || op.kind == OpKind::kCutmix; });
}

// Sums over crops, until Mean.
void Add(const CrossEntropies& more, CrossEntropies* sum) {
  sum->crops += more.crops;
  sum->crops_with_class += more.crops_with_class;
  for (size_t y = 0; y < 3; ++y) {
    sum->a[y] += more.a[y];
    sum->b[y] += more.b[y];
  }
}

void Mean(CrossEntropies* sum) {
  for (auto* x : {&sum->a, &sum->b}) {
    for (size_t y = 0; y < 3; ++y) {
      const uint64_t crops = static_cast<Target>(y) == Target::kClass ? sum->crops_with_class : sum->crops;
      (*x)[y] /= static_cast<double>(std::max<uint64_t>(1, crops));
    }
  }
}

struct OfImage {
  int32_t class_index = kNoClass;
  CrossEntropies sums;
};

// Compares images; for one thread.
class ImageComparer {
 public:
  ImageComparer(const Reader& a, const Reader& b) : a_(a), b_(b), labels_a_(a), labels_b_(b) {}

  Result<OfImage> Compare(const ImagePair& pair) {
    FKDB_ASSIGN(const RecordView a, a_.Get(pair.a));
    FKDB_ASSIGN(const RecordView b, b_.Get(pair.b));
    OfImage image;
    if (a.skipped() || b.skipped() || a.width() != b.width() || a.height() != b.height()) return image;
    image.class_index = a.class_index() != kNoClass ? a.class_index() : b.class_index();
    const bool map_a = a_.spec().is_map(), map_b = b_.spec().is_map();
    const uint32_t crops = map_a ? b.num_crops() : map_b ? a.num_crops() : std::min(a.num_crops(), b.num_crops());
    for (uint32_t crop = 0; crop < crops; ++crop) {
      PixelBox box_a, box_b;
      if (map_a || map_b) {
        const auto mixed = IsMixed(map_a ? b : a, crop);
        if (!mixed) return Fail((map_a ? b_ : a_).About(map_a ? pair.b : pair.a, mixed.error()));
        if (*mixed) continue;
      }
      if (map_a) {
        FKDB_TRY(Read(b_, pair.b, b, crop, &labels_b_, &box_b));
        FKDB_TRY(Read(a_, pair.a, a, crop, &labels_a_, &box_b));
      } else {
        FKDB_TRY(Read(a_, pair.a, a, crop, &labels_a_, &box_a));
        box_b = box_a;
        FKDB_TRY(Read(b_, pair.b, b, crop, &labels_b_, &box_b));
        if (!map_b && (box_a != box_b || !ChangedAlike(a, b, crop))) continue;
      }
      AddCrop(&image);
    }
    return image;
  }

 private:
  static Result<void> Read(const Reader& reader, uint64_t ordinal, const RecordView& record, uint32_t crop, Labels* labels, PixelBox* box) {
    auto read = labels->Read(record, crop, box);
    return read ? Result<void>() : Fail(reader.About(ordinal, std::move(read).error()));
  }

  void AddCrop(OfImage* image) const {
    const std::span<const float> p = labels_a_.dense(), q = labels_b_.dense();
    const auto log = [](double x) { return std::log(std::max(x, kLeastProbability)); };
    double aa = 0, ab = 0, ba = 0, bb = 0;
    for (size_t c = 0; c < p.size(); ++c) {
      const double log_p = log(p[c]), log_q = log(q[c]);
      aa -= p[c] * log_p;
      ab -= q[c] * log_p;
      ba -= p[c] * log_q;
      bb -= q[c] * log_q;
    }
    CrossEntropies one = {1, 0, {aa, ab, 0}, {ba, bb, 0}};
    if (const auto c = static_cast<size_t>(image->class_index); image->class_index >= 0 && c < p.size()) {
      one.crops_with_class = 1;
      one.a[2] = -log(p[c]);
      one.b[2] = -log(q[c]);
    }
    Add(one, &image->sums);
  }

  const Reader &a_, &b_;
  Labels labels_a_, labels_b_;
};

Result<void> CheckBoth(const Reader& a, const Reader& b) {
  const auto bad = [&](ErrorCode code, const std::string& what) {
    return Fail(code, fmt::format("{} and {}: {}", a.label_set().path().string(), b.label_set().path().string(), what));
  };
  if (a.spec().is_map() && b.spec().is_map()) return bad(ErrorCode::kInvalidArgument, "both hold label maps, and no crops to compare their labels for");
  const auto &names_a = a.manifest().data_set.class_names, &names_b = b.manifest().data_set.class_names;
  if (a.spec().num_classes != b.spec().num_classes) {
    return bad(ErrorCode::kMismatch, fmt::format("labels of {} classes and of {}", a.spec().num_classes, b.spec().num_classes));
  }
  if (!names_a.empty() && !names_b.empty() && names_a != names_b) return bad(ErrorCode::kMismatch, "their classes are numbered otherwise");
  return {};
}

}  // namespace

Result<ComparisonOfLabels> CompareLabels(const Reader& a, const Reader& b, const PairOptions& options) {
  FKDB_TRY(CheckBoth(a, b));
  ComparisonOfLabels comparison;
  std::map<uint32_t, CrossEntropies> classes;
  const auto make_compare = [&] {
    return [comparer = ImageComparer(a, b)](const ImagePair& pair) mutable { return comparer.Compare(pair); };
  };
  const auto add = [&](const ImagePair&, const OfImage& image) {
    Add(image.sums, &comparison.all);
    if (image.sums.crops_with_class > 0) Add(image.sums, &classes[static_cast<uint32_t>(image.class_index)]);
  };
  FKDB_ASSIGN(comparison.images, ForEachPair<OfImage>(a, b, options, make_compare, add));
  if (comparison.all.crops == 0) {
    const bool map = a.spec().is_map() || b.spec().is_map();
    const char* const why = comparison.images.both == 0 ? "no image is in both"
                            : map                       ? "no crop that a map says something of: the images are of other sizes, or all crops are mixed"
                                                        : "no crop is the same in both; fkdb-write --boxes-from labels another label set's crops";
    return Fail(ErrorCode::kMismatch, fmt::format("{} and {}: {}", a.label_set().path().string(), b.label_set().path().string(), why));
  }
  Mean(&comparison.all);
  for (auto& [class_index, sums] : classes) {
    Mean(&sums);
    comparison.classes.push_back({class_index, sums});
  }
  return comparison;
}

}  // namespace fkdb
