// SPDX-License-Identifier: Apache-2.0
#include "reader/diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "format/recover.h"

namespace fkdb {
namespace {

// A crop's label; keeps its memory from crop to crop.
class Label {
 public:
  explicit Label(const LabelSpec& spec) : spec_(spec), indices_(spec.num_indices()), values_(spec.num_values()) {}

  Result<void> Read(const RecordView& record, uint32_t crop) { return record.ReadCrop(crop, &box_, indices_.data(), values_.data()); }
  const PixelBox& box() const { return box_; }
  bool sparse() const { return !indices_.empty(); }
  uint32_t Top1() const {
    return sparse() ? indices_[0] : static_cast<uint32_t>(std::max_element(values_.begin(), values_.end()) - values_.begin());
  }

  // As RecoverCrop makes it, (C).
  std::span<const float> Dense() {
    dense_.resize(spec_.num_classes);
    RecoverCrop(spec_, indices_, values_, /*tau=*/1, dense_);
    return dense_;
  }
  // The same numbers of a sparse label: those of the stored classes, which ascend, and that of every other.
  struct Sparse {
    std::span<const std::pair<uint32_t, float>> stored;
    float tail;
  };
  Sparse Stored() {
    const TailRule rule = TailOf(spec_, values_);
    stored_.clear();
    for (size_t i = 0; i < indices_.size(); ++i) {
      stored_.emplace_back(indices_[i], spec_.kind == LabelKind::kHard ? 1.0f : rule.scale * values_[i]);
    }
    std::sort(stored_.begin(), stored_.end());
    return {stored_, rule.tail};
  }

 private:
  const LabelSpec& spec_;
  PixelBox box_;
  std::vector<uint32_t> indices_;
  std::vector<float> values_, dense_;
  std::vector<std::pair<uint32_t, float>> stored_;
};

// Of two labels, class after class.
struct Distance {
  double kl_ab = 0, kl_ba = 0, total_variation = 0;

  // `classes` of them have p in A and q in B.
  void Add(double p, double q, double classes = 1) {
    total_variation += classes * std::abs(p - q) / 2;
    p = std::max(p, kLeastProbability);
    q = std::max(q, kLeastProbability);
    const double log_ratio = std::log(p / q);
    kl_ab += classes * p * log_ratio;
    kl_ba -= classes * q * log_ratio;
  }
};

// Of labels of the same `num_classes`.
Distance Between(Label* a, Label* b, uint32_t num_classes) {
  Distance distance;
  if (!a->sparse() || !b->sparse()) {
    const std::span<const float> p = a->Dense(), q = b->Dense();
    for (size_t c = 0; c < num_classes; ++c) distance.Add(p[c], q[c]);
    return distance;
  }
  // The classes that neither stores are alike.
  const Label::Sparse p = a->Stored(), q = b->Stored();
  uint32_t others = num_classes;
  for (size_t i = 0, j = 0; i < p.stored.size() || j < q.stored.size(); --others) {
    const bool in_p = j == q.stored.size() || (i < p.stored.size() && p.stored[i].first <= q.stored[j].first);
    const bool in_q = i == p.stored.size() || (j < q.stored.size() && q.stored[j].first <= p.stored[i].first);
    distance.Add(in_p ? p.stored[i++].second : p.tail, in_q ? q.stored[j++].second : q.tail);
  }
  distance.Add(p.tail, q.tail, others);
  return distance;
}

// What one image in both comes to; distances are sums over its same crops.
struct ImageDiff {
  uint32_t crops_a = 0, crops_b = 0, same = 0, same_top1 = 0;
  Distance sum;
  double worst_kl = -std::numeric_limits<double>::infinity();
  uint32_t worst_crop = 0;
};

// Compares images; for one thread.
class ImageComparer {
 public:
  ImageComparer(const Reader& a, const Reader& b, bool with_labels)
      : a_(a), b_(b), with_labels_(with_labels), label_a_(a.spec()), label_b_(b.spec()) {}

  Result<ImageDiff> Compare(const ImagePair& pair) {
    FKDB_ASSIGN(const RecordView a, a_.Get(pair.a));
    FKDB_ASSIGN(const RecordView b, b_.Get(pair.b));
    ImageDiff diff;
    diff.crops_a = a.num_crops();
    diff.crops_b = b.num_crops();
    const bool same_size = a.width() == b.width() && a.height() == b.height();
    for (uint32_t crop = 0; crop < std::min(a.num_crops(), b.num_crops()); ++crop) {
      if (auto read = label_a_.Read(a, crop); !read) return Fail(a_.About(pair.a, std::move(read).error()));
      if (auto read = label_b_.Read(b, crop); !read) return Fail(b_.About(pair.b, std::move(read).error()));
      if (!same_size || label_a_.box() != label_b_.box() || !ChangedAlike(a, b, crop)) continue;
      ++diff.same;
      if (!with_labels_) continue;
      diff.same_top1 += label_a_.Top1() == label_b_.Top1();
      const Distance distance = Between(&label_a_, &label_b_, a_.spec().num_classes);
      diff.sum.kl_ab += distance.kl_ab;
      diff.sum.kl_ba += distance.kl_ba;
      diff.sum.total_variation += distance.total_variation;
      if (distance.kl_ab > diff.worst_kl) {
        diff.worst_kl = distance.kl_ab;
        diff.worst_crop = crop;
      }
    }
    return diff;
  }

 private:
  const Reader &a_, &b_;
  const bool with_labels_;
  Label label_a_, label_b_;
};

// Why the labels of the two cannot be compared; empty if they can.
std::string NoLabels(const LabelSpec& a, const LabelSpec& b) {
  if (a.is_map() || b.is_map()) return "label maps are not compared";
  if (a.num_classes != b.num_classes) return fmt::format("{} classes in A, {} in B", a.num_classes, b.num_classes);
  return "";
}

}  // namespace

Result<DiffReport> DiffLabelSets(const Reader& a, const Reader& b, const PairOptions& options) {
  DiffReport report;
  report.no_labels = NoLabels(a.spec(), b.spec());
  const bool with_labels = report.no_labels.empty();
  LabelDistances mean;  // sums, until the end
  uint64_t same_top1 = 0;
  std::optional<ImagePair> worst;
  const auto make_compare = [&] {
    return [comparer = ImageComparer(a, b, with_labels)](const ImagePair& pair) mutable { return comparer.Compare(pair); };
  };
  const auto add = [&](const ImagePair& pair, const ImageDiff& diff) {
    report.crops_a += diff.crops_a;
    report.crops_b += diff.crops_b;
    report.same_crops += diff.same;
    same_top1 += diff.same_top1;
    mean.kl_ab += diff.sum.kl_ab;
    mean.kl_ba += diff.sum.kl_ba;
    mean.total_variation += diff.sum.total_variation;
    if (with_labels && diff.same > 0 && (!worst || diff.worst_kl > mean.worst_kl)) {
      worst = pair;
      mean.worst_kl = diff.worst_kl;
      mean.worst_crop = diff.worst_crop;
    }
  };
  FKDB_ASSIGN(report.images, ForEachPair<ImageDiff>(a, b, options, make_compare, add));
  if (!worst) {
    if (with_labels) report.no_labels = "no crop is the same in both";
    return report;
  }
  const auto crops = static_cast<double>(report.same_crops);
  mean.kl_ab /= crops;
  mean.kl_ba /= crops;
  mean.total_variation /= crops;
  mean.top1_agreement = static_cast<double>(same_top1) / crops;
  FKDB_ASSIGN(const std::optional<std::string> key, a.Key(worst->a));
  mean.worst_key = key.value_or("");
  report.labels = std::move(mean);
  return report;
}

}  // namespace fkdb
