// SPDX-License-Identifier: Apache-2.0
// Stored labels and their dense form in float64, for the kernels' tests.
#pragma once

#include <cmath>
#include <vector>

#include "cuda/label_ops.h"
#include "format/recover.h"
#include "tests/format/test_labels.h"

namespace fkdb::test {

// Stored labels of `rows` crops, as a LabelBatch would hold them, and their dense form in float64 by
// the paper's formulas.
struct Labels {
  LabelSpec spec;
  std::vector<uint32_t> indices;
  std::vector<float> values;
  std::vector<double> dense;  // (rows, C)

  Labels(const LabelSpec& s, uint32_t rows, double tau, std::mt19937_64& random) : spec(s) {
    const Record record = RandomRecord(spec, rows, random);
    const auto bytes = EncodeRecord(spec, record);
    const auto view = RecordView::Open(*bytes, spec);
    const size_t n = spec.num_indices(), v = spec.num_values(), c = spec.num_classes;
    indices.resize(rows * n);
    values.resize(rows * v);
    dense.assign(rows * c, 0);
    for (uint32_t r = 0; r < rows; ++r) {
      if (n > 0) view->CopyIndices(r, indices.data() + r * n);
      if (v > 0) view->CopyValues(r, values.data() + r * v);
      double* y = dense.data() + r * c;
      const float* p = values.data() + r * v;
      double sum = 0;
      for (size_t i = 0; i < v; ++i) sum += p[i];
      const double tail = spec.top_k < c ? (1 - sum) / static_cast<double>(c - spec.top_k) : 0;
      switch (spec.kind) {
        case LabelKind::kFull:
          for (size_t i = 0; i < c; ++i) y[i] = spec.values == ValueEncoding::kF32 ? p[i] : p[i] / sum;
          break;
        case LabelKind::kHard:
          y[indices[r]] = 1;
          break;
        case LabelKind::kSmoothing:
        case LabelKind::kMarginalSmoothing:
          std::fill(y, y + c, std::max(0.0, tail));
          for (size_t i = 0; i < n; ++i) y[indices[r * n + i]] = tail > 0 ? p[i] : p[i] / sum;
          break;
        case LabelKind::kMarginalRenorm:
          for (size_t i = 0; i < n; ++i) y[indices[r * n + i]] = p[i] / sum;
          break;
        case LabelKind::kLabelMap:  // no label of a crop
        case LabelKind::kLogits: {
          double largest = -INFINITY, total = 0;
          for (size_t i = 0; i < c; ++i) largest = std::max(largest, double{p[i]});
          for (size_t i = 0; i < c; ++i) total += y[i] = std::exp((p[i] - largest) / tau);
          for (size_t i = 0; i < c; ++i) y[i] /= total;
          break;
        }
      }
    }
  }
  SparseLabels sparse() const { return SparseLabelsOf(spec, indices.data(), values.data()); }
};

// Every kind and encoding.
inline std::vector<LabelSpec> AllSpecs() {
  std::vector<LabelSpec> specs;
  for (const LabelKind kind : kAllKinds) {
    for (const ValueEncoding encoding : kAllValues) {
      for (const uint32_t classes : {2u, 10u, 1000u, 21841u}) {
        for (const uint32_t k : {1u, 2u, 5u, 10u}) {
          const bool marginal = kind == LabelKind::kMarginalSmoothing || kind == LabelKind::kMarginalRenorm;
          if (k > classes || (!marginal && k > 1)) continue;
          specs.push_back(MakeSpec(kind, classes, k, encoding));
        }
      }
    }
  }
  return specs;
}

}  // namespace fkdb::test
