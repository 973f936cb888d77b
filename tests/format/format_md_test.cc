// SPDX-License-Identifier: Apache-2.0
// The worked records of format/FORMAT.md are records, and say what the text beside them says; its
// tables are those of the code.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "format/record.h"
#include "tests/format/test_labels.h"

namespace fkdb {
namespace {

// The lines of the code block marked `mark`.
std::vector<std::string> BlockInFormatMd(const std::string& mark) {
  std::ifstream in(std::string(FKDB_SOURCE_DIR) + "/format/FORMAT.md");
  std::vector<std::string> lines;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("```")) {
      inside = line == "```" + mark;
    } else if (inside) {
      lines.push_back(line);
    }
  }
  return lines;
}

// Rows "0000  1c 00 ..  | what it is".
std::vector<std::byte> BytesInFormatMd(const std::string& mark) {
  std::vector<std::byte> bytes;
  for (const std::string& line : BlockInFormatMd(mark)) {
    std::istringstream row(line.substr(0, line.find('|')));
    std::string offset, digits;
    row >> offset;
    EXPECT_EQ(std::stoul(offset, nullptr, 16), bytes.size()) << line;
    while (row >> digits) bytes.push_back(static_cast<std::byte>(std::stoul(digits, nullptr, 16)));
  }
  return bytes;
}

Record WorkedRecord() {
  Record record;
  record.key_hash = Hash64("n01440764/x.JPEG");
  record.width = 500;
  record.height = 375;
  record.class_index = 0;
  for (uint8_t i = 0; i < 16; ++i) record.content_hash[i] = i;
  record.pixel_boxes = {{12, 34, 200, 210}, {0, 0, 375, 500}};
  record.flips = {1, 0};
  record.indices = {1, 0, 0, 217};
  record.values = {0.75f, 0.125f, 0.5f, 0.25f};
  return record;
}

struct Worked {
  const char* mark;
  ValueEncoding values;
};
constexpr Worked kWorked[] = {{"hex f16", ValueEncoding::kF16}, {"hex packed", ValueEncoding::kPacked}};

TEST(FormatMd, TheWorkedRecordsAreReadAsItSays) {
  for (const auto& [mark, encoding] : kWorked) {
    const LabelSpec spec = test::MakeSpec(LabelKind::kMarginalSmoothing, 1000, 2, encoding);
    const Record expected = WorkedRecord();
    const std::vector<std::byte> bytes = BytesInFormatMd(mark);
    const auto view = RecordView::Open(bytes, spec);
    ASSERT_TRUE(view) << mark << ": " << view.error().message;
    EXPECT_TRUE(view->Validate());
    EXPECT_EQ(view->key_hash(), expected.key_hash);
    EXPECT_EQ(view->width(), 500u);
    EXPECT_EQ(view->height(), 375u);
    EXPECT_EQ(view->class_index(), 0);
    EXPECT_EQ(view->content_hash(), expected.content_hash);
    ASSERT_EQ(view->num_crops(), 2u);
    for (uint32_t i = 0; i < 2; ++i) {
      EXPECT_EQ(view->pixel_box(i), expected.pixel_boxes[i]);
      EXPECT_EQ(view->flip(i), expected.flips[i] != 0);
      uint32_t indices[2];
      float values[2];
      view->CopyIndices(i, indices);
      view->CopyValues(i, values);
      for (size_t k = 0; k < 2; ++k) {
        EXPECT_EQ(indices[k], expected.indices[i * 2 + k]);
        EXPECT_NEAR(values[k], expected.values[i * 2 + k], spec.packed() ? 0.01 : 0);
      }
    }
  }
}

// Nothing in the table is left out of the text: the same record encodes to as many bytes.
TEST(FormatMd, TheWorkedRecordsAreWhatFkdbWrites) {
  for (const auto& [mark, encoding] : kWorked) {
    const auto encoded = EncodeRecord(test::MakeSpec(LabelKind::kMarginalSmoothing, 1000, 2, encoding), WorkedRecord());
    ASSERT_TRUE(encoded);
    std::string hex;
    for (size_t i = 0; i < encoded->size(); ++i) {
      char text[32];
      std::snprintf(text, sizeof text, "\n%04zx ", i);
      hex += i % 16 == 0 ? text : "";
      std::snprintf(text, sizeof text, " %02x", static_cast<unsigned>((*encoded)[i]));
      hex += text;
    }
    EXPECT_TRUE(*encoded == BytesInFormatMd(mark)) << mark << hex;
  }
}

std::vector<int> TableInFormatMd(const std::string& mark) {
  std::vector<int> table;
  for (const std::string& line : BlockInFormatMd(mark)) {
    std::istringstream row(line);
    for (int n; row >> n;) table.push_back(n);
  }
  return table;
}

// Two values read with the text alone: p1 = 1 / Z, p2 = ratio / Z, Z = 1 + ratio + tail.
TEST(FormatMd, ThePackedTablesAreThoseOfTheCode) {
  const std::vector<int> ratio = TableInFormatMd("ratio"), tail = TableInFormatMd("tail");
  ASSERT_EQ(ratio.size(), 32u);
  ASSERT_EQ(tail.size(), 128u);
  const LabelSpec spec = test::MakeSpec(LabelKind::kMarginalSmoothing, 1000, 2, ValueEncoding::kPacked);
  for (uint32_t t = 0; t < 128; ++t) {
    for (uint32_t r = 0; r < 32; ++r) {
      BitWriter bits;
      bits.Put(t, 7);
      bits.Put(r, 5);
      float p[2];
      UnpackValues(spec, std::move(bits).Finish().data(), 0, p);
      const double w2 = std::exp2(-ratio[r] / 32.0), z = 1 + w2 + std::exp2(tail[t] / 32.0);
      ASSERT_FLOAT_EQ(p[0], static_cast<float>(1 / z)) << t << " " << r;
      ASSERT_FLOAT_EQ(p[1], static_cast<float>(w2 / z)) << t << " " << r;
    }
  }
}

}  // namespace
}  // namespace fkdb
