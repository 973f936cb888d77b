// SPDX-License-Identifier: Apache-2.0
// Records of every kind and encoding: whatever the bytes, nothing is read outside them, and what
// validates decodes to labels that sum to 1.
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "format/recode.h"
#include "format/recover.h"
#include "tests/format/test_labels.h"
#include "tests/fuzz/fuzz.h"

namespace fkdb {
namespace {

// The first byte of an input chooses the spec.
const std::vector<LabelSpec>& Specs() {
  static const std::vector<LabelSpec> specs = [] {
    std::vector<LabelSpec> all;
    for (const LabelKind kind : test::kAllKinds) {
      for (const ValueEncoding values : {ValueEncoding::kF32, ValueEncoding::kF16, ValueEncoding::kBf16, ValueEncoding::kPacked}) {
        for (const BoxEncoding boxes : test::kAllBoxes) {
          if (values == ValueEncoding::kBf16 && kind != LabelKind::kLogits) continue;
          all.push_back(test::MakeSpec(kind, 20, 3, values, boxes));
        }
      }
    }
    all.push_back(test::MakeSpec(LabelKind::kMarginalSmoothing, 100000, 5, ValueEncoding::kF16));
    all.push_back(test::MakeSpec(LabelKind::kMarginalSmoothing, 100000, 5, ValueEncoding::kPacked));
    all.push_back(test::MakeMapSpec(20, 3, 1, 5, ValueEncoding::kF16));
    return all;
  }();
  return specs;
}

void Check(bool good) {
  if (!good) std::abort();
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  std::vector<std::string> seeds;
  std::mt19937_64 random(1);
  for (size_t i = 0; i < Specs().size(); ++i) {
    Record record = test::RandomRecord(Specs()[i], Specs()[i].is_map() ? Specs()[i].num_cells() : 1 + i % 3 * 4, random);
    if (i % 4 == 0) {
      record.ops.resize(record.num_crops());
      record.ops[0] = {{OpKind::kErase, 0, {1, 2, 3, 4}}, {OpKind::kCutmix, 9, {0.5f, 1, 2, 3, 4}}};
    }
    const auto bytes = *EncodeRecord(Specs()[i], record);
    seeds.push_back(static_cast<char>(i) + std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  return seeds;
}

}  // namespace fkdb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fkdb;
  if (size < 2) return 0;
  const LabelSpec& spec = Specs()[data[0] % Specs().size()];
  // Exactly as many bytes as there are, 8-byte aligned: a sanitizer sees a read of one more.
  std::vector<uint64_t> aligned((size - 1 + 7) / 8);
  std::memcpy(aligned.data(), data + 1, size - 1);
  const auto view = RecordView::Open(std::as_bytes(std::span(aligned)), spec);
  if (!view) return 0;
  std::vector<uint32_t> indices(spec.num_indices());
  std::vector<float> values(spec.num_values()), dense(spec.num_classes);
  for (uint32_t i = 0; i < view->num_crops(); ++i) {
    const bool valid = view->ValidateCrop(i).has_value();
    view->pixel_box(i);
    view->flip(i);
    static_cast<void>(view->Ops(i));
    if (!indices.empty()) view->CopyIndices(i, indices.data());
    if (!values.empty()) view->CopyValues(i, values.data());
    if (!valid) continue;
    RecoverCrop(spec, indices, values, 1, dense);
    double sum = 0;
    for (const float y : dense) {
      Check(y >= 0);
      sum += y;
    }
    // Full labels at f32 are recovered as they were stored.
    Check(std::fabs(sum - 1) < (spec.kind == LabelKind::kFull && spec.values == ValueEncoding::kF32 ? 1.1e-4 : 1e-5));
  }
  view->CountBits();
  if (!view->Validate() || view->skipped()) return 0;
  // What reads as valid can be written again.
  const auto again = EncodeRecord(spec, *DecodeRecord(*view));
  Check(again.has_value() || spec.boxes == BoxEncoding::kFractionF16 || spec.kind == LabelKind::kFull);
  return 0;
}
