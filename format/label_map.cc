// SPDX-License-Identifier: Apache-2.0
#include "format/label_map.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace fkdb {
namespace {

// How much each cell of one axis counts: bilinear weights are products of a row's and a column's.
struct AxisWeights {
  uint32_t first = 0;        // cell
  std::vector<double> each;  // from there on

  // A crop's `size` pixels from `begin` on, of `side`, on an axis of `cells`.
  void Set(uint32_t begin, uint32_t size, uint32_t side, uint32_t cells) {
    const double scale = static_cast<double>(cells) / side, start = begin * scale - 0.5, length = std::max(size * scale, 1.0);
    const uint64_t samples = (uint64_t{size} * cells + side - 1) / side;
    const double step = length / static_cast<double>(samples), share = 1 / static_cast<double>(samples);
    const auto at = [&](uint64_t i) { return std::clamp(start + (static_cast<double>(i) + 0.5) * step, 0.0, static_cast<double>(cells - 1)); };
    first = static_cast<uint32_t>(at(0));
    const auto last = static_cast<uint32_t>(std::ceil(at(samples - 1)));
    each.assign(last - first + 1, 0);
    for (uint64_t i = 0; i < samples; ++i) {
      const double place = at(i), low = std::floor(place), of_next = place - low;
      const size_t cell = static_cast<uint32_t>(low) - first;
      each[cell] += (1 - of_next) * share;
      if (of_next > 0) each[cell + 1] += of_next * share;
    }
  }
};

// The scores of the classes that touched cells name; all others are 0. A crop allocates nothing.
class Scores {
 public:
  struct Entry {
    uint32_t class_index;
    uint32_t last_cell;
    double score;
  };

  void Clear(uint32_t num_classes) {
    for (const Entry& e : entries_) places_[e.class_index] = 0;  // whether the last crop was good or not
    places_.resize(num_classes);
    entries_.clear();
  }
  // False if the cell is not what RecordView::ValidateCrop wants. classes, values: (K).
  bool Add(uint32_t cell, double weight, std::span<const uint32_t> classes, const float* values) {
    for (size_t k = 0; k < classes.size(); ++k) {
      if (classes[k] >= places_.size() || !std::isfinite(values[k])) return false;
      uint32_t& place = places_[classes[k]];
      if (place == 0) {
        entries_.push_back({classes[k], cell, weight * values[k]});
        place = static_cast<uint32_t>(entries_.size());
        continue;
      }
      Entry& entry = entries_[place - 1];
      if (entry.last_cell == cell) return false;  // it names a class twice
      entry.last_cell = cell;
      entry.score += weight * values[k];
    }
    return true;
  }
  std::vector<Entry>& entries() { return entries_; }

 private:
  std::vector<Entry> entries_;
  std::vector<uint32_t> places_;  // (C): in entries_, counted from 1
};

// exp(x) for x <= 0 to 1e-11 of it, 0 where no float is as small. Additions and multiplications alone, and fewer than PortableExp's.
double Exp(double x) {
  if (x < -200) return 0;
  constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  constexpr double kSeries[] = {1. / 362880, 1. / 40320, 1. / 5040, 1. / 720, 1. / 120, 1. / 24, 1. / 6, 1. / 2, 1, 1};
  const auto n = static_cast<int64_t>(x * 0x1.71547652b82fep+0 - 0.5);  // to the nearest, for it is not above 0
  const double whole = static_cast<double>(n), r = (x - whole * kLn2High) - whole * kLn2Low;  // |r| <= ln(2) / 2
  double sum = 0;
  for (const double c : kSeries) sum = sum * r + c;
  return sum * std::bit_cast<double>(static_cast<uint64_t>(n + 1023) << 52);  // times 2^n
}

// Turns scores into their exponentials on the way.
void SoftmaxOf(std::vector<Scores::Entry>& entries, std::span<float> label) {
  const size_t others = label.size() - entries.size();
  double largest = others > 0 ? 0 : entries[0].score;
  for (const auto& e : entries) largest = std::max(largest, e.score);
  const double of_others = others > 0 ? Exp(-largest) : 0;
  double sum = static_cast<double>(others) * of_others;
  for (auto& e : entries) sum += e.score = Exp(e.score - largest);
  const double scale = 1 / sum;
  std::fill(label.begin(), label.end(), static_cast<float>(of_others * scale));
  for (const auto& e : entries) label[e.class_index] = static_cast<float>(e.score * scale);
}

}  // namespace

Result<void> PoolLabelMap(const RecordView& map, const PixelBox& crop, std::span<float> label) {
  thread_local AxisWeights rows, columns;
  thread_local Scores scores;
  thread_local std::vector<uint32_t> classes;  // of a cell
  thread_local std::vector<float> values;
  const LabelSpec& spec = map.spec();
  rows.Set(crop.top, crop.height, map.height(), spec.grid_height);
  columns.Set(crop.left, crop.width, map.width(), spec.grid_width);
  scores.Clear(spec.num_classes);
  classes.resize(spec.top_k);
  values.resize(spec.top_k);
  for (size_t i = 0; i < rows.each.size(); ++i) {
    const uint32_t row = (rows.first + static_cast<uint32_t>(i)) * spec.grid_width + columns.first;
    for (size_t j = 0; j < columns.each.size(); ++j) {
      const double weight = rows.each[i] * columns.each[j];
      if (weight == 0) continue;
      const uint32_t cell = row + static_cast<uint32_t>(j);
      map.CopyIndices(cell, classes.data());
      map.CopyValues(cell, values.data());
      if (map.flip(cell) || !scores.Add(cell, weight, classes, values.data())) return map.ValidateCrop(cell);
    }
  }
  SoftmaxOf(scores.entries(), label);
  return {};
}

}  // namespace fkdb
