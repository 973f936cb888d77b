// SPDX-License-Identifier: Apache-2.0
#include "format/record.h"

#include <gtest/gtest.h>

#include <cstring>

#include "format/half.h"
#include "tests/format/test_labels.h"

namespace fkdb {
namespace {

using test::Describe;
using test::MakeSpec;

// What FORMAT.md promises of packed values, loosely; packed_test.cc measures it.
void ExpectPackedClose(const LabelSpec& spec, std::span<const float> values, std::span<const float> exact) {
  double exact_sum = 0;
  for (const float p : exact) exact_sum += p;
  for (size_t k = 0; k < values.size(); ++k) {
    if (spec.kind == LabelKind::kLogits) {
      const auto [low, high] = std::minmax_element(exact.begin(), exact.end());
      EXPECT_NEAR(values[k], exact[k], (*high - *low) / 509);
    } else {
      const double p = spec.kind == LabelKind::kMarginalRenorm ? exact[k] / exact_sum : exact[k];
      EXPECT_NEAR(values[k], p, 0.2 * p + 1e-3) << Describe(spec);
    }
  }
}

void ExpectSame(const LabelSpec& spec, const Record& record, const RecordView& view) {
  ASSERT_EQ(view.num_crops(), record.num_crops());
  EXPECT_EQ(view.key_hash(), record.key_hash);
  EXPECT_EQ(view.width(), record.width);
  EXPECT_EQ(view.height(), record.height);
  EXPECT_EQ(view.class_index(), record.class_index);
  EXPECT_EQ(view.content_hash(), record.content_hash);
  EXPECT_EQ(view.skip_reason(), record.skip_reason);
  std::vector<uint32_t> indices(spec.num_indices());
  std::vector<float> values(spec.num_values());
  for (uint32_t i = 0; i < record.num_crops(); ++i) {
    if (spec.boxes == BoxEncoding::kPixel) {
      EXPECT_EQ(view.pixel_box(i), record.pixel_boxes[i]);
    } else {
      const FractionBox got = view.fraction_box(i), exact = record.fraction_boxes[i];
      const float slack = spec.boxes == BoxEncoding::kFractionF32 ? 0 : 0x1p-11f;
      EXPECT_NEAR(got.top, exact.top, slack);
      EXPECT_NEAR(got.left, exact.left, slack);
      EXPECT_NEAR(got.height, exact.height, slack);
      EXPECT_NEAR(got.width, exact.width, slack);
    }
    EXPECT_EQ(view.flip(i), record.flips[i] != 0);
    EXPECT_EQ(view.Ops(i).value(), record.ops.empty() ? std::vector<CropOp>() : record.ops[i]);
    if (!indices.empty()) view.CopyIndices(i, indices.data());
    for (size_t k = 0; k < indices.size(); ++k) EXPECT_EQ(indices[k], record.indices[i * indices.size() + k]);
    if (!values.empty()) view.CopyValues(i, values.data());
    const auto exact = std::span(record.values).subspan(i * values.size(), values.size());
    if (spec.packed()) {
      ExpectPackedClose(spec, values, exact);
      continue;
    }
    for (size_t k = 0; k < values.size(); ++k) {
      if (spec.values == ValueEncoding::kF32) {
        EXPECT_EQ(values[k], exact[k]);
      } else if (spec.values == ValueEncoding::kF16) {
        EXPECT_NEAR(values[k], exact[k], std::max(0x1p-10f, std::fabs(exact[k]) * 0x1p-10f));
      } else {
        EXPECT_NEAR(values[k], exact[k], std::fabs(exact[k]) * 0x1p-8f);
      }
    }
  }
}

TEST(Record, RoundTripsEveryKindEncodingKAndM) {
  std::mt19937_64 random(1);
  for (const LabelKind kind : test::kAllKinds) {
    std::vector<ValueEncoding> encodings = test::kAllValues;
    if (kind == LabelKind::kLogits) encodings.push_back(ValueEncoding::kBf16);
    for (const ValueEncoding values : encodings) {
      for (const BoxEncoding boxes : test::kAllBoxes) {
        for (const auto& [classes, k] : {std::pair{2u, 1u}, {2u, 2u}, {10u, 5u}, {1000u, 10u}, {70000u, 5u}, {40u, 40u}}) {
          for (const uint32_t crops : {1u, 7u, 8u, 9u, 200u}) {
            if (uint64_t{classes} * crops > 200000) continue;
            const LabelSpec spec = MakeSpec(kind, classes, k, values, boxes);
            const Record record = test::RandomRecord(spec, crops, random);
            const auto bytes = EncodeRecord(spec, record);
            ASSERT_TRUE(bytes) << Describe(spec) << ": " << bytes.error().message;
            EXPECT_EQ(bytes->size() % 8, 0u);
            EXPECT_LE(bytes->size(), RecordBytesBound(spec, crops)) << Describe(spec);
            const auto view = RecordView::Open(*bytes, spec);
            ASSERT_TRUE(view) << Describe(spec);
            EXPECT_TRUE(view->Validate());
            ExpectSame(spec, record, *view);
          }
        }
      }
    }
  }
}

TEST(Record, LabelMapsKeepTheirCells) {
  std::mt19937_64 random(3);
  for (const ValueEncoding values : {ValueEncoding::kF32, ValueEncoding::kF16}) {
    for (const auto& [rows, columns] : {std::pair{15u, 15u}, {3u, 7u}, {1u, 1u}}) {
      const LabelSpec spec = test::MakeMapSpec(1000, 5, rows, columns, values);
      Record record = test::RandomRecord(spec, rows * columns, random);
      const auto bytes = EncodeRecord(spec, record);
      ASSERT_TRUE(bytes) << bytes.error().message;
      EXPECT_LE(bytes->size(), RecordBytesBound(spec, rows * columns));
      const auto view = RecordView::Open(*bytes, spec);
      ASSERT_TRUE(view);
      const auto decoded = DecodeRecord(*view);
      ASSERT_TRUE(decoded) << decoded.error().message;
      EXPECT_EQ(decoded->indices, record.indices);
      for (size_t i = 0; i < record.values.size(); ++i) {
        EXPECT_EQ(decoded->values[i], values == ValueEncoding::kF32 ? record.values[i] : FloatFromHalf(HalfFromFloat(record.values[i])));
      }
      EXPECT_TRUE(decoded->pixel_boxes.empty() && decoded->fraction_boxes.empty());
      const uint32_t last = rows * columns - 1;
      EXPECT_EQ(view->fraction_box(last), (FractionBox{static_cast<float>(rows - 1) / static_cast<float>(rows), static_cast<float>(columns - 1) / static_cast<float>(columns),
                                                       1 / static_cast<float>(rows), 1 / static_cast<float>(columns)}));
      const auto again = EncodeRecord(spec, *decoded);
      ASSERT_TRUE(again) << again.error().message;
      EXPECT_EQ(*again, *bytes);
      LabelSpec other = spec;
      other.grid_height += 1;
      const auto mistaken = RecordView::Open(*bytes, other);
      ASSERT_FALSE(mistaken);
      EXPECT_EQ(mistaken.error().code, ErrorCode::kCorruption);

      std::vector<std::byte> flipped = *bytes;
      flipped[static_cast<size_t>(reinterpret_cast<const std::byte*>(view->flip_bits().data()) - bytes->data())] |= std::byte{1};
      EXPECT_EQ(DecodeRecord(*RecordView::Open(flipped, spec)).error().message, "crop 0: a flip of a label map's cell");
      record.flips[0] = 1;
      EXPECT_EQ(EncodeRecord(spec, record).error().message, "a flip of a label map's cell");
      record.flips.push_back(0);
      EXPECT_FALSE(EncodeRecord(spec, record));
    }
  }
  const LabelSpec spec = test::MakeMapSpec(10, 2, 1, 2, ValueEncoding::kF32);
  Record record = test::RandomRecord(spec, 2, random);
  record.values[2] = NAN;
  EXPECT_EQ(EncodeRecord(spec, record).error().message, "crop 1: score 0 is nan");
}

TEST(LabelSpec, LabelMapsAndGridsBelongTogether) {
  const auto error = [](const auto& change) {
    LabelSpec spec = test::MakeMapSpec(10, 2, 3, 4, ValueEncoding::kF32);
    change(spec);
    return CheckLabelSpec(spec).error().message;
  };
  EXPECT_EQ(error([](LabelSpec& s) { s.boxes = BoxEncoding::kPixel; }), "boxes 'grid' are those of label maps, and of label maps alone");
  EXPECT_EQ(error([](LabelSpec& s) { s.kind = LabelKind::kHard; }), "boxes 'grid' are those of label maps, and of label maps alone");
  EXPECT_EQ(error([](LabelSpec& s) { s.grid_height = 0; }), "label maps of 0 x 4 cells: expected 1 to 65535 in all");
  EXPECT_EQ(error([](LabelSpec& s) { s.grid_height = s.grid_width = 1 << 16; }), "label maps of 65536 x 65536 cells: expected 1 to 65535 in all");
  EXPECT_EQ(error([](LabelSpec& s) { s.values = ValueEncoding::kPacked; }), "label maps as packed: their scores are stored as f32 or f16");
  EXPECT_EQ(error([](LabelSpec& s) { s.top_k = 11; }), "top-k 11: expected 1 to the number of classes, 10");
  EXPECT_EQ(error([](LabelSpec& s) { s.kind = LabelKind::kHard, s.boxes = BoxEncoding::kPixel; }), "a grid is for label maps only");
}

TEST(Record, ImagesOfAnySizeKeepTheirBoxes) {
  std::mt19937_64 random(2);
  for (const ValueEncoding values : {ValueEncoding::kF16, ValueEncoding::kPacked}) {
    const LabelSpec spec = MakeSpec(LabelKind::kHard, 10, 1, values);
    for (const auto& [width, height] : {std::pair{1u, 1u}, {1u, 2u}, {65535u, 4u}, {65536u, 3u}, {70000u, 3u},
                                        {1u << 31, 1u << 31}, {7u, 1u << 31}}) {
      const Record record = test::RandomRecord(spec, 20, random, width, height);
      const auto bytes = EncodeRecord(spec, record);
      ASSERT_TRUE(bytes) << width << " x " << height;
      const auto view = RecordView::Open(*bytes, spec);
      ASSERT_TRUE(view);
      EXPECT_EQ(view->boxes_u32().size(), !spec.packed() && (width > 65535 || height > 65535) ? 80u : 0u);
      ExpectSame(spec, record, *view);
    }
  }
}

TEST(Record, CropsKeepTheirOperations) {
  std::mt19937_64 random(11);
  for (const ValueEncoding values : {ValueEncoding::kF16, ValueEncoding::kPacked}) {
    const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, values);
    Record record = test::RandomRecord(spec, 4, random);
    const size_t without = EncodeRecord(spec, record)->size();
    record.ops.resize(4);
    EXPECT_EQ(EncodeRecord(spec, record)->size(), without) << "operations that are not there cost a byte";
    record.ops = {{{OpKind::kBrightness, 0, {1.25f}}, {OpKind::kHue, 0, {-0.1f}}},
                  {},
                  {{OpKind::kEqualize, 0, {}}, {OpKind::kErase, 0, {1, 2, 30, 40}}},
                  {{OpKind::kMixup, 0x0123456789abcdef, {0.3f}}, {OpKind::kCutmix, ~0ull, {0.75f, 0, 5, 112, 112}}}};
    const auto bytes = EncodeRecord(spec, record);
    ASSERT_TRUE(bytes) << bytes.error().message;
    const auto view = RecordView::Open(*bytes, spec);
    ASSERT_TRUE(view);
    EXPECT_TRUE(view->Validate());
    ExpectSame(spec, record, *view);

    const auto error = [&](CropOp op) {
      record.ops[1] = {op};
      return EncodeRecord(spec, record).error().message;
    };
    EXPECT_EQ(error({OpKind::kMixup, 1, {1.5f}}), "crop 1: operation mixup: lambda is 1.5");
    EXPECT_EQ(error({OpKind::kErase, 0, {-1, 0, 2, 2}}), "crop 1: operation erase: top is -1");
    EXPECT_EQ(error({OpKind::kErase, 0, {0, 0, 0, 2}}), "crop 1: operation erase: height is 0");
    EXPECT_EQ(error({OpKind::kRotate, 0, {NAN}}), "crop 1: operation rotate: degrees is nan");
    EXPECT_EQ(error({OpKind::kPartnerCrop, 0, {0, 0, 2, 2, 0.5f}}), "crop 1: operation partner-crop: flip is 0.5");
    EXPECT_EQ(error({OpKind::kReplay, 0, {3, 65536}}), "crop 1: operation replay: seed_low is 65536");
    EXPECT_EQ(error({static_cast<OpKind>(999), 0, {}}), "operation 999 is not known");
    record.ops.pop_back();
    EXPECT_EQ(EncodeRecord(spec, record).error().message, "record of 4 crops: expected 4 lists of operations, got 3");
  }
}

// Every operation's words are parsed back, and a word too many or too few is no operation.
TEST(CropOp, EveryKindRoundTripsAndUnknownOnesAreRefused) {
  uint16_t kinds = 0;
  for (; InfoOf(static_cast<OpKind>(kinds)) != nullptr; ++kinds) {
    const OpInfo& info = *InfoOf(static_cast<OpKind>(kinds));
    CropOp op = {static_cast<OpKind>(kinds), info.has_partner ? 77u : 0u, {}};
    for (size_t i = 0; i < info.values.size(); ++i) op.values[i] = info.values[i] == "flip" || info.values[i] == "applied" || info.values[i].starts_with("seed") ? 1 : 0.5f + static_cast<float>(i);
    std::vector<uint32_t> words;
    AppendOpWords(std::span(&op, 1), &words);
    EXPECT_EQ(ParseOpWords(words).value(), std::vector<CropOp>{op}) << info.name;
    words.push_back(0);
    EXPECT_EQ(ParseOpWords(words).error().code, ErrorCode::kCorruption) << info.name;
    words.resize(words.size() - 2);
    if (!words.empty()) {
      EXPECT_EQ(ParseOpWords(words).error().code, ErrorCode::kCorruption) << info.name;
    }
  }
  EXPECT_EQ(kinds, 23);
  const std::vector<uint32_t> newer = {kinds};
  EXPECT_EQ(ParseOpWords(newer).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(ParseOpWords(newer).error().message, "operation 23 is not known to this version of fkdb");
}

TEST(Record, ASkippedImageSaysWhy) {
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 10, 5);
  Record record;
  record.key_hash = 5;
  record.skip_reason = "broken JPEG";
  const auto bytes = EncodeRecord(spec, record);
  ASSERT_TRUE(bytes);
  const auto view = RecordView::Open(*bytes, spec);
  ASSERT_TRUE(view);
  EXPECT_TRUE(view->skipped());
  EXPECT_EQ(view->skip_reason(), "broken JPEG");
  record.skip_reason.clear();
  EXPECT_EQ(EncodeRecord(spec, record).error().message, "record: no crops and no reason for it");
}

class BadRecord : public testing::Test {
 protected:
  LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kF32);
  Record record = Good();

  Record Good() {
    std::mt19937_64 random(3);
    Record r = test::RandomRecord(spec, 2, random);
    r.indices = {1, 2, 3, 4, 5, 6};
    r.values = {0.5f, 0.25f, 0.125f, 0.5f, 0.25f, 0.125f};
    r.pixel_boxes = {{0, 0, 10, 10}, {5, 6, 7, 8}};
    return r;
  }
  std::string EncodeError() {
    const auto bytes = EncodeRecord(spec, record);
    if (bytes) return "";
    EXPECT_EQ(bytes.error().code, ErrorCode::kInvalidArgument);
    return bytes.error().message;
  }
};

TEST_F(BadRecord, EachFaultIsNamed) {
  EXPECT_EQ(EncodeError(), "");
  record.indices[4] = 10;
  EXPECT_EQ(EncodeError(), "index 10: expected below 10 classes");
  record = Good();
  record.indices[4] = 4;
  EXPECT_EQ(EncodeError(), "crop 1: an index comes twice");
  record = Good();
  record.values[1] = 0.75f;
  EXPECT_EQ(EncodeError(), "crop 0: probability 1 is 0.75, more than the one before, 0.5");
  record = Good();
  record.values[0] = NAN;
  EXPECT_EQ(EncodeError(), "crop 0: probability 0 is nan");
  record = Good();
  record.values[5] = -0.1f;
  EXPECT_EQ(EncodeError(), "crop 1: probability 2 is -0.1");
  record = Good();
  record.values = {0.5f, 0.5f, 0.5f, 0.5f, 0.25f, 0.125f};
  EXPECT_EQ(EncodeError(), "crop 0: probabilities sum to 1.5");
  record = Good();
  record.pixel_boxes[1] = {370, 0, 6, 5};
  EXPECT_EQ(EncodeError(), "box [370, 0, 6, 5] leaves the image of 500 x 375 pixels");
  record = Good();
  record.pixel_boxes[1] = {0, 0, 0, 5};
  EXPECT_EQ(EncodeError(), "box [0, 0, 0, 5] leaves the image of 500 x 375 pixels");
  record = Good();
  record.pixel_boxes.pop_back();
  EXPECT_EQ(EncodeError(), "record of 2 crops: expected 2 pixel boxes, got 1");
  record = Good();
  record.values.push_back(0);
  EXPECT_EQ(EncodeError(), "record of 2 crops: expected 6 values, got 7");
  record = Good();
  record.skip_reason = "why";
  EXPECT_EQ(EncodeError(), "record: 2 crops of a skipped image");
}

TEST_F(BadRecord, ReadUnderAnotherSpecIsRefused) {
  const auto bytes = EncodeRecord(spec, record);
  ASSERT_TRUE(bytes);
  const auto message = [&](const LabelSpec& other) { return RecordView::Open(*bytes, other).error().message; };
  EXPECT_EQ(message(MakeSpec(LabelKind::kMarginalSmoothing, 10, 4, ValueEncoding::kF32)),
            "record: expected 8 elements in indices_u16, got 6");
  EXPECT_EQ(message(MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kF16)),
            "record: array values_f32 is not expected for this label spec");
  EXPECT_EQ(message(MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kF32, BoxEncoding::kFractionF32)),
            "record: array boxes_u16 is not expected for this label spec");
  EXPECT_EQ(message(MakeSpec(LabelKind::kHard, 10, 1, ValueEncoding::kF32)),
            "record: expected 2 elements in indices_u16, got 6");
}

// Whatever a single byte becomes, and wherever the bytes end, reading stays inside them: no crash,
// no sanitizer report. (The record's checksum lies above this layer.)
TEST_F(BadRecord, EveryByteFlippedAndEveryTruncationIsSafe) {
  const auto good = EncodeRecord(spec, record);
  ASSERT_TRUE(good);
  int refused = 0;
  const auto read = [&](std::span<const std::byte> bytes) {
    const auto view = RecordView::Open(bytes, spec);
    if (!view || !view->Validate()) {
      ++refused;
      return;
    }
    std::vector<uint32_t> indices(spec.num_indices());
    std::vector<float> values(spec.num_values());
    for (uint32_t i = 0; i < view->num_crops(); ++i) {
      view->CopyIndices(i, indices.data());
      view->CopyValues(i, values.data());
    }
  };
  for (size_t at = 0; at < good->size(); ++at) {
    for (const int mask : {0x01, 0x80, 0xff}) {
      std::vector<std::byte> bytes = *good;
      bytes[at] ^= static_cast<std::byte>(mask);
      read(bytes);
    }
  }
  EXPECT_GT(refused, 100);
  refused = 0;
  for (size_t size = 0; size < good->size(); size += 8) {
    const std::vector<std::byte> bytes(good->begin(), good->begin() + static_cast<ptrdiff_t>(size));
    read(bytes);
  }
  EXPECT_EQ(refused, static_cast<int>(good->size() / 8));
}

TEST(Box, FractionEdgesRoundHalvesToEven) {
  EXPECT_EQ(ToPixels({0.25f, 0.5f, 0.5f, 0.25f}, 8, 8), (PixelBox{2, 4, 4, 2}));
  EXPECT_EQ(ToPixels({0.25f, 0.25f, 0.5f, 0.5f}, 10, 10), (PixelBox{2, 2, 6, 6}));  // 2.5 -> 2, 7.5 -> 8
  EXPECT_EQ(ToPixels({0, 0, 0.01f, 1}, 10, 10), (PixelBox{0, 0, 1, 10}));          // never empty
  for (const float odd : {NAN, INFINITY, -INFINITY, 1e30f, -5.0f}) {  // never outside
    const PixelBox box = ToPixels({odd, 0.5f, odd, odd}, 8, 9);
    EXPECT_TRUE(box.height >= 1 && box.width >= 1 && box.top + box.height <= 9 && box.left + box.width <= 8) << odd;
  }
}

// float32 fractions always give the whole-pixel box back.
TEST(Box, PixelBoxesSurviveAsFractions) {
  std::mt19937_64 random(4);
  for (int i = 0; i < 100000; ++i) {
    const auto width = 1 + static_cast<uint32_t>(random() % 6000), height = 1 + static_cast<uint32_t>(random() % 6000);
    PixelBox box;
    box.height = 1 + static_cast<uint32_t>(random() % height);
    box.width = 1 + static_cast<uint32_t>(random() % width);
    box.top = static_cast<uint32_t>(random() % (height - box.height + 1));
    box.left = static_cast<uint32_t>(random() % (width - box.width + 1));
    const auto h = static_cast<float>(height), w = static_cast<float>(width);
    const FractionBox fraction = {static_cast<float>(box.top) / h, static_cast<float>(box.left) / w,
                                  static_cast<float>(box.height) / h, static_cast<float>(box.width) / w};
    ASSERT_EQ(ToPixels(fraction, width, height), box) << width << " x " << height;
  }
}

TEST(LabelSpec, IsCheckedAndNamed) {
  LabelSpec spec;
  spec.num_classes = 10;
  spec.top_k = 11;
  EXPECT_EQ(CheckLabelSpec(spec).error().message, "top-k 11: expected 1 to the number of classes, 10");
  spec.top_k = 0;
  EXPECT_EQ(CheckLabelSpec(spec).error().message, "top-k 0: expected 1 to the number of classes, 10");
  spec.kind = LabelKind::kHard;
  EXPECT_EQ(CheckLabelSpec(spec)->top_k, 1u);
  spec.num_classes = (1u << 24) + 1;
  EXPECT_EQ(CheckLabelSpec(spec).error().message, "16777217 classes: expected 1 to 16777216");
  spec.num_classes = 10;
  spec.temperature = 0;
  EXPECT_EQ(CheckLabelSpec(spec).error().message, "temperature 0: expected a positive number");
  const auto unknown = ParseLabelKind("relabel");
  EXPECT_EQ(unknown.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(unknown.error().message,
            "label kind 'relabel' is not known to this version of fkdb; it knows full, hard, smoothing, "
            "marginal-smoothing, marginal-renorm, logits, label-map");
  for (const LabelKind kind : test::kAllKinds) EXPECT_EQ(*ParseLabelKind(Name(kind)), kind);
}

TEST(LabelSpec, ARecordOverOneGiBIsRefused) {
  const LabelSpec spec = MakeSpec(LabelKind::kFull, 21841, 0, ValueEncoding::kF32);
  EXPECT_GT(RecordBytesBound(spec, 20000), kMaxRecordBytes);
  EXPECT_LT(RecordBytesBound(spec, 10000), kMaxRecordBytes);
}

}  // namespace
}  // namespace fkdb
