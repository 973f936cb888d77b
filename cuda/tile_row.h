// SPDX-License-Identifier: Apache-2.0
// A row of logits on the GPU: the rows of label_kernels.h for a group of lanes. The lanes hold a tile of the row in
// registers, kNumbers each, read and written 16 bytes at a time. Where one tile holds the row, its logits are read once
// and its gradient written once; a longer row is read twice (three times with dense labels), tile by tile.
//
// A row of an odd number of classes begins anywhere: tiles are laid out from the 16-byte boundary before it, so that
// all its whole vectors are aligned, and what is left at both ends goes number by number.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/label_kernels.h"

namespace fkdb {

struct alignas(16) Words {
  uint32_t words[4];
};

// Number: float, Half or Bf16.
template <class Number, class Group, int kNumbers, bool kOneTile, bool kDense>
class TileRow {
 public:
  // Whether labels of all classes are stored: known when this is compiled.
  FKDB_HOST_DEVICE static constexpr bool IsDense(const SparseLabels&) { return kDense; }

  // gradient: (classes), null, or logits. Dense labels go to `gradient`, too. logits may be null for those.
  FKDB_HOST_DEVICE TileRow(const Number* logits, Number* gradient, uint32_t classes, float temperature)
      : logits_(logits), gradient_(gradient), classes_(static_cast<int>(classes)), inverse_t_(1 / temperature) {
    const void* row = logits != nullptr ? static_cast<const void*>(logits) : gradient;
    head_ = static_cast<int>(reinterpret_cast<uintptr_t>(row) % sizeof(Words) / sizeof(Number));
  }

  // The most classes of a row that is one tile, wherever it begins.
  static constexpr int kCapacity = kNumbers * Group::size() - (16 / static_cast<int>(sizeof(Number)) - 1);

  // Of any C numbers that all lanes can read.
  FKDB_HOST_DEVICE float LargestOf(const float* values) const {
    float largest = -INFINITY;
    for (int c = Group::lane(); c < classes_; c += Group::size()) largest = fmaxf(largest, values[c]);
    return Group::Max(largest);
  }
  FKDB_HOST_DEVICE float SumOf(const RowLabel& label) const {
    float sum = 0;
    for (int c = Group::lane(); c < classes_; c += Group::size()) sum += label.Stored(label.values[c]);
    Group::Sum(sum);
    return sum;
  }

  FKDB_HOST_DEVICE void WriteLabel(const RowLabel& label) {
    for (int tile = 0; tile < Tiles(); ++tile) {
      FKDB_UNROLL
      for (int i = 0; i < kNumbers; ++i) x_[i] = label.tail;
      if constexpr (kDense) ForEach(tile, [&](int i, int c) { x_[i] = label.at(static_cast<uint32_t>(c)); });
      Store(tile);
    }
    if constexpr (!kDense) {
      Group::Meet();  // the tail is there, whoever wrote it
      for (uint32_t k = static_cast<uint32_t>(Group::lane()); k < label.count; k += static_cast<uint32_t>(Group::size())) {
        if (InRow(static_cast<int>(label.indices[k]))) FromFloat(label.at(k), gradient_ + label.indices[k]);
      }
    }
  }

  FKDB_HOST_DEVICE float Largest() {
    if constexpr (kOneTile) {
      Load(0);
      float largest = -INFINITY;
      FKDB_UNROLL
      for (int i = 0; i < kNumbers; ++i) largest = fmaxf(largest, x_[i]);
      largest_ = Group::Max(largest);
    } else {
      SumExpOfTiles();
    }
    return largest_;
  }

  // Nobody has looked at labels on a device: a class that is none makes the loss NaN, not the memory unreadable.
  FKDB_HOST_DEVICE float At(uint32_t c) const { return c < static_cast<uint32_t>(classes_) ? ToFloat(logits_[c]) : NAN; }

  struct Weights {
    float label, dot;
  };
  FKDB_HOST_DEVICE Weights Weigh(const RowLabel& label) {
    Weights weights = {0, 0};
    for (int tile = 0; tile < Tiles(); ++tile) {
      if (!kOneTile) Load(tile);
      ForEach(tile, [&](int i, int c) {
        const float y = label.Stored(label.values[c]);
        weights.label += y;
        // A label of 0 times a logit of -infinity counts nothing.
        if (y != 0) weights.dot += y * ((x_[i] - largest_) * inverse_t_);
      });
    }
    Group::Sum(weights.label, weights.dot);
    return weights;
  }

  struct Sums {
    float exp, plain;
  };
  FKDB_HOST_DEVICE Sums SumExp() {
    if constexpr (kOneTile) {
      sums_ = {0, 0};
      const int of_lane = FirstOfLane(0);
      FKDB_UNROLL
      for (int i = 0; i < kNumbers; ++i) {
        const float z = (x_[i] - largest_) * inverse_t_;
        x_[i] = Exp(z);  // 0 where there is no class
        sums_.exp += x_[i];
        sums_.plain += InRow(of_lane + i / kWide * kStep + i % kWide) ? z : 0;
      }
      Group::Sum(sums_.exp, sums_.plain);
    }
    return sums_;
  }

  FKDB_HOST_DEVICE bool wants_gradient() const { return gradient_ != nullptr; }

  FKDB_HOST_DEVICE void WriteGradient(float factor, float scale, const RowLabel* parts, int num_parts) {
    float tail = 0;
    FKDB_UNROLL
    for (int part = 0; part < kMostParts; ++part) {
      if (part < num_parts) tail += scale * parts[part].tail;
    }
    for (int tile = 0; tile < Tiles(); ++tile) {
      if constexpr (!kOneTile) {
        Load(tile);
        FKDB_UNROLL
        for (int i = 0; i < kNumbers; ++i) x_[i] = Exp((x_[i] - largest_) * inverse_t_);
      }
      FKDB_UNROLL
      for (int i = 0; i < kNumbers; ++i) x_[i] = x_[i] * factor - tail;
      FKDB_UNROLL
      for (int part = 0; part < kMostParts; ++part) {
        if (part == num_parts) break;
        const RowLabel& label = parts[part];
        if constexpr (kDense) {
          ForEach(tile, [&](int i, int c) { x_[i] -= scale * label.at(static_cast<uint32_t>(c)); });
        } else {
          for (uint32_t k = 0; k < label.count; ++k) {
            const float excess = scale * (label.at(k) - label.tail);
            IfMine(tile, label.indices[k], [&](int i) { x_[i] -= excess; });
          }
        }
      }
      Store(tile);
    }
  }

 private:
  static constexpr int kWide = sizeof(Words) / sizeof(Number);  // numbers of a vector
  static constexpr int kVectors = kNumbers / kWide;             // vectors a lane holds
  static_assert(kVectors * kWide == kNumbers);

  // exp(z), or 0 where that is below 2^-126. Its relative error is some 2^-22 near z = 0 and grows with -z, as what it is
  // an error of shrinks.
  FKDB_HOST_DEVICE static float Exp(float z) {
#ifdef __CUDA_ARCH__
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(z * 1.44269504f));
    return power;
#else
    return std::exp(z);
#endif
  }

  FKDB_HOST_DEVICE int Tiles() const {
    if constexpr (kOneTile) return 1;
    constexpr int kTile = kNumbers * Group::size();
    return (head_ + classes_ + kTile - 1) / kTile;
  }
  // The class of a number that this lane would hold first; may be negative. The compiler is kept from knowing that it is
  // the same in every loop: it would hold the class of each number, and whether there is one, in registers from the first
  // loop to the last.
  FKDB_HOST_DEVICE int FirstOfLane(int tile) const {
    int first = (tile * kVectors * Group::size() + Group::lane()) * kWide - head_;
#ifdef __CUDA_ARCH__
    asm volatile("" : "+r"(first));
#endif
    return first;
  }
  // From the first number of one of a lane's vectors to that of the next.
  static constexpr int kStep = Group::size() * kWide;
  FKDB_HOST_DEVICE bool InRow(int c) const { return static_cast<uint32_t>(c) < static_cast<uint32_t>(classes_); }

  // body(i, c) for each number i of this lane that is a class c.
  template <class Body>
  FKDB_HOST_DEVICE void ForEach(int tile, Body body) const {
    const int of_lane = FirstOfLane(tile);
    FKDB_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int first = of_lane + v * kStep;
      FKDB_UNROLL
      for (int w = 0; w < kWide; ++w) {
        if (InRow(first + w)) body(v * kWide + w, first + w);
      }
    }
  }
  // body(i) in the lane that holds class c, if it is of this tile. Registers have no addresses: i is found by comparing.
  template <class Body>
  FKDB_HOST_DEVICE void IfMine(int tile, uint32_t c, Body body) const {
    const uint32_t at = c + static_cast<uint32_t>(head_), vector = at / kWide, w = at % kWide;
    constexpr auto kLanes = static_cast<uint32_t>(Group::size());
    if (vector % kLanes != static_cast<uint32_t>(Group::lane())) return;
    const int mine = static_cast<int>(vector / kLanes) - tile * kVectors;
    FKDB_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      if (v != mine) continue;
      FKDB_UNROLL
      for (int i = 0; i < kWide; ++i) {
        if (static_cast<uint32_t>(i) == w) body(v * kWide + i);
      }
    }
  }

  // -infinity where there is no class. All is on its way before the first of it is looked at.
  FKDB_HOST_DEVICE void Load(int tile) {
    Words words[kVectors];
    const int of_lane = FirstOfLane(tile);
    FKDB_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int first = of_lane + v * kStep;
      if (first >= 0 && first + kWide <= classes_) {
        words[v] = *reinterpret_cast<const Words*>(logits_ + first);
        continue;
      }
      Number numbers[kWide];
      FKDB_UNROLL
      for (int w = 0; w < kWide; ++w) {
        FromFloat(-INFINITY, &numbers[w]);
        if (InRow(first + w)) numbers[w] = logits_[first + w];
      }
      memcpy(&words[v], numbers, sizeof(Words));
    }
    FKDB_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      Number numbers[kWide];
      memcpy(numbers, &words[v], sizeof(Words));
      FKDB_UNROLL
      for (int w = 0; w < kWide; ++w) x_[v * kWide + w] = ToFloat(numbers[w]);
    }
  }

  FKDB_HOST_DEVICE void Store(int tile) const {
    const bool aligned = reinterpret_cast<uintptr_t>(gradient_ - head_) % sizeof(Words) == 0;
    const int of_lane = FirstOfLane(tile);
    FKDB_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int first = of_lane + v * kStep;
      Number numbers[kWide];
      FKDB_UNROLL
      for (int w = 0; w < kWide; ++w) FromFloat(x_[v * kWide + w], &numbers[w]);
      if (aligned && first >= 0 && first + kWide <= classes_) {
        Words words;
        memcpy(&words, numbers, sizeof words);
        *reinterpret_cast<Words*>(gradient_ + first) = words;
      } else {
        FKDB_UNROLL
        for (int w = 0; w < kWide; ++w) {
          if (InRow(first + w)) gradient_[first + w] = numbers[w];
        }
      }
    }
  }

  // largest_ and sums_ in one reading: each lane's sums are of z less the largest it has seen, and are corrected when
  // that changes.
  FKDB_HOST_DEVICE void SumExpOfTiles() {
    float largest = -INFINITY, count = 0;
    sums_ = {0, 0};
    const auto rebase = [&](float to) {
      if (largest == to || largest == -INFINITY) return;  // none so far, or all were -infinity or NaN
      sums_.exp *= Exp((largest - to) * inverse_t_);
      sums_.plain += count * ((largest - to) * inverse_t_);
    };
    for (int tile = 0; tile < Tiles(); ++tile) {
      Load(tile);
      float with = largest;
      FKDB_UNROLL
      for (int i = 0; i < kNumbers; ++i) with = fmaxf(with, x_[i]);
      rebase(with);
      largest = with;
      ForEach(tile, [&](int i, int) {
        const bool none = x_[i] == -INFINITY;
        const float z = none ? -INFINITY : (x_[i] - largest) * inverse_t_;
        sums_.exp += Exp(z);
        sums_.plain += z;
        ++count;
      });
    }
    largest_ = Group::Max(largest);
    rebase(largest_);
    Group::Sum(sums_.exp, sums_.plain);
  }

  const Number* logits_;
  Number* gradient_;
  int classes_;
  int head_;  // numbers between the last 16-byte boundary and the row
  float inverse_t_;
  float largest_ = 0;
  Sums sums_ = {0, 0};
  float x_[kNumbers];
};

}  // namespace fkdb
