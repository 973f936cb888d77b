// SPDX-License-Identifier: Apache-2.0
// Columns of every kind and encoding: whatever the bytes, nothing is read outside them, and what comes back either does
// not validate or can be written again.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "format/columns.h"
#include "tests/format/test_labels.h"
#include "tests/fuzz/fuzz.h"

namespace fkdb {
namespace {

constexpr uint32_t kImages = 3;

// The first byte of an input chooses the rule.
const std::vector<ColumnRule>& Rules() {
  static const std::vector<ColumnRule> rules = [] {
    std::vector<ColumnRule> all;
    const auto add = [&](const LabelSpec& spec) {
      ColumnRule rule;
      rule.spec = spec;
      rule.sampler = *CropSampler::Make({});
      rule.layer_ends = {2, 5};
      all.push_back(rule);
    };
    for (const ValueEncoding values : {ValueEncoding::kF32, ValueEncoding::kF16, ValueEncoding::kPacked}) {
      for (const BoxEncoding boxes : test::kAllBoxes) add(test::MakeSpec(LabelKind::kMarginalSmoothing, 20, 3, values, boxes));
      add(test::MakeSpec(LabelKind::kLogits, 20, 0, values));
      add(test::MakeSpec(LabelKind::kHard, 70000, 1, values));
    }
    add(test::MakeSpec(LabelKind::kMarginalSmoothing, 400, 40, ValueEncoding::kPacked));
    add(test::MakeMapSpec(20, 3, 1, 5, ValueEncoding::kF16));
    return all;
  }();
  return rules;
}

// rule, crops, key hash of the first image, then each column as length u16 and bytes.
constexpr size_t kHead = 1 + 1 + 8;

std::string Flat(uint8_t rule, uint64_t key_hash, const Columns& heads, const std::vector<Columns>& layers) {
  std::string text(kHead, '\0');
  text[0] = static_cast<char>(rule);
  text[1] = 9;
  std::memcpy(text.data() + 2, &key_hash, 8);
  const auto add = [&](const Columns& columns) {
    for (const Column& column : columns) {
      text += {static_cast<char>(column.size()), static_cast<char>(column.size() >> 8)};
      text.append(reinterpret_cast<const char*>(column.data()), column.size());
    }
  };
  add(heads);
  for (const Columns& layer : layers) add(layer);
  return text;
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  std::vector<std::string> seeds;
  std::mt19937_64 random(1);
  for (size_t r = 0; r < Rules().size(); ++r) {
    const ColumnRule& rule = Rules()[r];
    ColumnWriter writer(rule);
    uint64_t first_hash = 0;
    for (uint32_t i = 0; i < kImages; ++i) {
      Record record = test::RandomRecord(rule.spec, rule.spec.is_map() ? rule.spec.num_cells() : 3 * i + 1, random);
      if (i == 0) first_hash = record.key_hash;
      if (i == 1) {
        record.ops.resize(record.num_crops());
        record.ops[0] = {{OpKind::kErase, 0, {1, 2, 3, 4}}, {OpKind::kCutmix, 9, {0.5f, 1, 2, 3, 4}}};
      }
      if (i == 0 && rule.spec.boxes == BoxEncoding::kPixel) {
        const SampledCrop crop = rule.sampler->Sample(rule.seed, record.key_hash, 0, record.width, record.height);
        record.pixel_boxes[0] = crop.box;
        record.flips[0] = crop.flip;
      }
      static_cast<void>(writer.Add(*RecordView::Open(*EncodeRecord(rule.spec, record), rule.spec)));
    }
    Columns heads;
    std::vector<Columns> layers;
    writer.Finish(&heads, &layers);
    seeds.push_back(Flat(static_cast<uint8_t>(r), first_hash, heads, layers));
  }
  return seeds;
}

}  // namespace fkdb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fkdb;
  if (size < kHead) return 0;
  const ColumnRule& rule = Rules()[data[0] % Rules().size()];
  const uint32_t crops = rule.spec.is_map() ? kMaxCropsPerImage : 1 + data[1] % 10;
  uint64_t key_hash;
  std::memcpy(&key_hash, data + 2, 8);
  size_t at = kHead;
  const auto take = [&](size_t count) {
    Columns columns(count);
    for (Column& column : columns) {
      const size_t length = at + 2 <= size ? data[at] | size_t{data[at + 1]} << 8 : 0;
      at = std::min(size, at + 2);
      column.assign(data + at, data + at + std::min(length, size - at));
      at += column.size();
    }
    return columns;
  };
  auto reader = ColumnReader::OpenHeads(rule, kImages, take(kHeadColumns));
  if (!reader) return 0;
  std::vector<Columns> layers;
  for (size_t l = 0; l < rule.LayersFor(crops); ++l) layers.push_back(take(NumCropColumns(rule.spec)));
  if (!reader->OpenLayers(layers, crops)) return 0;
  ColumnWriter writer(rule);
  for (uint32_t i = 0; i < kImages; ++i) {
    if (data[1] & 0x80 && i == 1) {
      if (!reader->Skip()) return 0;
      continue;
    }
    const auto record = reader->Next(key_hash + i);
    if (!record) return 0;
    const auto view = RecordView::Open(*record, rule.spec);
    if (!view || !view->Validate()) std::abort();
    // What validates can be written again.
    if (!writer.Add(*view)) std::abort();
  }
  static_cast<void>(reader->Finish());
  return 0;
}
