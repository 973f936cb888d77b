// SPDX-License-Identifier: Apache-2.0
// A row of logits on the GPU: the rows of label_kernels.h for a group of lanes. The lanes hold a tile of the row in
// registers, kNumbers each, read and written 16 bytes at a time. Where one tile holds the row, its logits are read once
// and its gradient written once; a longer row is read twice (three times with dense labels), tile by tile.
//
// A row of an odd number of classes begins anywhere: tiles are laid out from the 16-byte boundary before it, so that
// all its whole vectors are aligned, and what is left at both ends goes number by number. Where all rows are whole vectors
// (kVectorsAlone), there are no such ends and no code for them.
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
template <class Number, class Group, int kNumbers, bool kOneTile, bool kDense, bool kVectorsAlone = false>
class TileRow {
 public:
  // Whether labels of all classes are stored: known when this is compiled.
  FKDB_HOST_DEVICE static constexpr bool IsDense(const SparseLabels&) { return kDense; }

  // gradient: (classes); null; or logits, if a label has no more indices than the group lanes. Dense labels go to `gradient`,
  // too; logits may be null for those.
  FKDB_HOST_DEVICE TileRow(const Number* logits, Number* gradient, uint32_t classes, float temperature)
      : logits_(logits), gradient_(gradient), classes_(static_cast<int>(classes)), slope_(kLog2E / temperature) {
    const void* row = logits != nullptr ? static_cast<const void*>(logits) : gradient;
    if (!kVectorsAlone) head_ = static_cast<int>(reinterpret_cast<uintptr_t>(row) % sizeof(Words) / sizeof(Number));
  }
  static bool AreVectorsAlone(const Number* logits, const Number* gradient, uint32_t classes) {
    const auto aligned = [](const Number* matrix) { return reinterpret_cast<uintptr_t>(matrix) % sizeof(Words) == 0; };
    return classes % kWide == 0 && aligned(logits) && aligned(gradient);
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

  FKDB_HOST_DEVICE void Begin() {
    if constexpr (kOneTile) Fetch(0);
  }

  FKDB_HOST_DEVICE void Largest() {
    if constexpr (kOneTile) {
      Unpack();
      float largest = -INFINITY;
      FKDB_UNROLL
      for (int i = 0; i < kNumbers; ++i) largest = fmaxf(largest, x_[i]);
      largest_ = Group::Max(largest);
    } else {
      SumExpOfTiles();
    }
  }

  // Nobody has looked at labels on a device: a class that is none makes the loss NaN, not the memory unreadable.
  FKDB_HOST_DEVICE float At(uint32_t c) const { return c < static_cast<uint32_t>(classes_) ? ToFloat(logits_[c]) : NAN; }
  FKDB_HOST_DEVICE float Z(float logit) const { return kLn2 * Binary(logit); }

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
        if (y != 0) weights.dot += y * Binary(x_[i]);
      });
    }
    weights.dot *= kLn2;
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
      for (int v = 0; v < kVectors; ++v) {
        const int first = of_lane + v * kStep;
        float z[kWide], plain = 0;
        FKDB_UNROLL
        for (int w = 0; w < kWide; ++w) {
          z[w] = Binary(x_[v * kWide + w]);
          x_[v * kWide + w] = Exp2(z[w]);  // 0 where there is no class
          sums_.exp += x_[v * kWide + w];
          plain += z[w];
        }
        if (!Whole(first)) {
          plain = 0;
          FKDB_UNROLL
          for (int w = 0; w < kWide; ++w) plain += !kVectorsAlone && InRow(first + w) ? z[w] : 0;
        }
        sums_.plain += plain;
      }
      Group::Sum(sums_.exp, sums_.plain);
      sums_.plain *= kLn2;
    }
    return sums_;
  }

  FKDB_HOST_DEVICE bool wants_gradient() const { return gradient_ != nullptr; }

  template <int kParts>
  FKDB_HOST_DEVICE void WriteGradient(float factor, float scale, const RowLabel* parts) {
    float tail = 0;
    FKDB_UNROLL
    for (int part = 0; part < kParts; ++part) tail += scale * parts[part].tail;
    for (int tile = 0; tile < Tiles(); ++tile) {
      if constexpr (!kOneTile) {
        Load(tile);
        FKDB_UNROLL
        for (int i = 0; i < kNumbers; ++i) x_[i] = Exp2(Binary(x_[i]));
      }
      FKDB_UNROLL
      for (int i = 0; i < kNumbers; ++i) x_[i] = x_[i] * factor - tail;
      if constexpr (kDense) {
        FKDB_UNROLL
        for (int part = 0; part < kParts; ++part) {
          ForEach(tile, [&](int i, int c) { x_[i] -= scale * parts[part].at(static_cast<uint32_t>(c)); });
        }
      }
      Store(tile);
    }
    if constexpr (!kDense) {
      // The numbers at a label's indices are computed apart, each by one lane, and replace what all of them wrote: to find them
      // in somebody's registers costs more. Where the gradient is where the logits were, there is a lane for each.
      Group::Meet();
      FKDB_UNROLL
      for (int part = 0; part < kParts; ++part) {
        const RowLabel &label = parts[part], *other = kParts == 1 ? nullptr : &parts[1 - part];
        const auto put = [&](uint32_t c, float y, float logit) {
          if (InRow(static_cast<int>(c))) FromFloat(GradientAt(c, logit, factor, scale, tail + scale * (y - label.tail), other), gradient_ + c);
        };
        auto k = static_cast<uint32_t>(Group::lane());
        if (k < label.count) put(label.own_index, label.own(), label.own_logit);
        for (k += static_cast<uint32_t>(Group::size()); k < label.count; k += static_cast<uint32_t>(Group::size())) {
          put(label.indices[k], label.at(k), At(label.indices[k]));
        }
      }
    }
  }

 private:
  static constexpr int kWide = sizeof(Words) / sizeof(Number);  // numbers of a vector
  static constexpr int kVectors = kNumbers / kWide;             // vectors a lane holds
  static_assert(kVectors * kWide == kNumbers);

  static constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

  // z / ln 2 of a logit.
  FKDB_HOST_DEVICE float Binary(float logit) const { return (logit - largest_) * slope_; }

  // 2^x, or 0 where that is below 2^-126. Its relative error is some 2^-22.
  FKDB_HOST_DEVICE static float Exp2(float x) {
#ifdef __CUDA_ARCH__
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
#else
    return std::exp2(x);
#endif
  }

  // At class c: `label` is what the label takes off, but for the share of another it is mixed with, or null.
  FKDB_HOST_DEVICE float GradientAt(uint32_t c, float logit, float factor, float scale, float label, const RowLabel* other) const {
    float gradient = Exp2(Binary(logit)) * factor - label;
    for (uint32_t k = 0; other != nullptr && k < other->count; ++k) {
      if (other->indices[k] == c) gradient -= scale * (other->at(k) - other->tail);
    }
    return gradient;
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
  // Whether a vector that begins with this class is all of classes.
  FKDB_HOST_DEVICE bool Whole(int first) const { return kVectorsAlone ? first < classes_ : first >= 0 && first + kWide <= classes_; }
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
  // -infinity where there is no class.
  FKDB_HOST_DEVICE void Load(int tile) {
    Fetch(tile);
    Unpack();
  }
  // Its bits, all on their way before the first of them is looked at.
  FKDB_HOST_DEVICE void Fetch(int tile) {
    const int of_lane = FirstOfLane(tile);
    FKDB_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int first = of_lane + v * kStep;
      if (Whole(first)) {
        words_[v] = *reinterpret_cast<const Words*>(logits_ + first);
        continue;
      }
      Number numbers[kWide];
      FKDB_UNROLL
      for (int w = 0; w < kWide; ++w) {
        FromFloat(-INFINITY, &numbers[w]);
        if (!kVectorsAlone && InRow(first + w)) numbers[w] = logits_[first + w];
      }
      memcpy(&words_[v], numbers, sizeof(Words));
    }
  }
  FKDB_HOST_DEVICE void Unpack() {
    FKDB_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      Number numbers[kWide];
      memcpy(numbers, &words_[v], sizeof(Words));
      FKDB_UNROLL
      for (int w = 0; w < kWide; ++w) x_[v * kWide + w] = ToFloat(numbers[w]);
    }
  }

  FKDB_HOST_DEVICE void Store(int tile) const {
    const bool aligned = kVectorsAlone || reinterpret_cast<uintptr_t>(gradient_ - head_) % sizeof(Words) == 0;
    const int of_lane = FirstOfLane(tile);
    FKDB_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int first = of_lane + v * kStep;
      if (aligned && Whole(first)) {
        *reinterpret_cast<Words*>(gradient_ + first) = Pack(&x_[v * kWide]);
        continue;
      }
      if constexpr (!kVectorsAlone) {
        FKDB_UNROLL
        for (int w = 0; w < kWide; ++w) {
          if (InRow(first + w)) FromFloat(x_[v * kWide + w], gradient_ + first + w);
        }
      }
    }
  }
  FKDB_HOST_DEVICE static Words Pack(const float* x) {
    Words words;
    FKDB_UNROLL
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(Number) == 4) {
        memcpy(&words.words[i], &x[i], sizeof(float));
      } else {
        words.words[i] = PairFromFloats(x[2 * i], x[2 * i + 1], static_cast<const Number*>(nullptr));
      }
    }
    return words;
  }

  // largest_ and sums_ in one reading: each lane's sums are of z less the largest it has seen, and are corrected when
  // that changes.
  FKDB_HOST_DEVICE void SumExpOfTiles() {
    float count = 0;
    largest_ = -INFINITY;
    sums_ = {0, 0};
    const auto rebase = [&](float to) {
      const float from = largest_;
      largest_ = to;
      if (from == to || from == -INFINITY) return;  // none so far, or all were -infinity or NaN
      sums_.exp *= Exp2(Binary(from));
      sums_.plain += count * Binary(from);
    };
    for (int tile = 0; tile < Tiles(); ++tile) {
      Load(tile);
      float with = largest_;
      FKDB_UNROLL
      for (int i = 0; i < kNumbers; ++i) with = fmaxf(with, x_[i]);
      rebase(with);
      ForEach(tile, [&](int i, int) {
        const float z = x_[i] == -INFINITY ? -INFINITY : Binary(x_[i]);
        sums_.exp += Exp2(z);
        sums_.plain += z;
        ++count;
      });
    }
    rebase(Group::Max(largest_));
    Group::Sum(sums_.exp, sums_.plain);
    sums_.plain *= kLn2;
  }

  const Number* logits_;
  Number* gradient_;
  int classes_;
  int head_ = 0;  // numbers between the last 16-byte boundary and the row
  float slope_;      // log2(e) / T
  float largest_ = 0;
  Sums sums_ = {0, 0};
  float x_[kNumbers];
  Words words_[kVectors];  // on their way to x_
};

}  // namespace fkdb
