// SPDX-License-Identifier: Apache-2.0
// The worked record of format/FORMAT.md is a record, and says what the text beside it says.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "format/record.h"
#include "tests/format/test_labels.h"

namespace fkdb {
namespace {

// The bytes of the code block marked `hex`: rows "0000  1c 00 ..  | what it is".
std::vector<std::byte> BytesInFormatMd() {
  std::ifstream in(std::string(FKDB_SOURCE_DIR) + "/format/FORMAT.md");
  std::vector<std::byte> bytes;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("```")) {
      inside = line == "```hex";
      continue;
    }
    if (!inside) continue;
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

TEST(FormatMd, TheWorkedRecordIsReadAsItSays) {
  const LabelSpec spec = test::MakeSpec(LabelKind::kMarginalSmoothing, 1000, 2);
  const Record expected = WorkedRecord();
  const std::vector<std::byte> bytes = BytesInFormatMd();
  const auto view = RecordView::Open(bytes, spec);
  ASSERT_TRUE(view) << view.error().message;
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
      EXPECT_EQ(values[k], expected.values[i * 2 + k]);
    }
  }
}

// Nothing in the table is left out of the text: the same record encodes to as many bytes.
TEST(FormatMd, TheWorkedRecordIsWhatFkdbWrites) {
  const auto encoded = EncodeRecord(test::MakeSpec(LabelKind::kMarginalSmoothing, 1000, 2), WorkedRecord());
  ASSERT_TRUE(encoded);
  std::string hex;
  for (size_t i = 0; i < encoded->size(); ++i) {
    char text[32];
    std::snprintf(text, sizeof text, i % 16 == 0 ? "\n%04zx " : "", i);
    hex += i % 16 == 0 ? text : "";
    std::snprintf(text, sizeof text, " %02x", static_cast<unsigned>((*encoded)[i]));
    hex += text;
  }
  EXPECT_EQ(*encoded, BytesInFormatMd()) << hex;
}

}  // namespace
}  // namespace fkdb
