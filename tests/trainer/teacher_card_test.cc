// SPDX-License-Identifier: Apache-2.0
#include "trainer/teacher_card.h"

#include <gtest/gtest.h>

#include "tests/db/test_files.h"

namespace fkdb {
namespace {

class TeacherCardTest : public test::TempFolder {
 protected:
  Result<TeacherCard> Read(const std::string& json) {
    test::WriteBytes(Path("t.pt.json"), json);
    return ReadTeacherCard(Path("t.pt"), otherwise);
  }
  // The message, without the file's name in front of it.
  std::string Error(const std::string& json) {
    const auto card = Read(json);
    if (card) return "none";
    EXPECT_EQ(card.error().code, ErrorCode::kInvalidArgument);
    const std::string file = Path("t.pt.json").string() + ": ";
    EXPECT_EQ(card.error().message.substr(0, file.size()), file);
    return card.error().message.substr(file.size());
  }
  const InputSpec otherwise = {224, 224, Interpolation::kBilinear, {0.1, 0.2, 0.3}, {1, 1, 1}, PassOrder::kAsPillow13};
};

TEST_F(TeacherCardTest, SaysWhatIsSaid) {
  auto card = ReadTeacherCard(Path("t.pt"), otherwise);  // there is none
  ASSERT_TRUE(card);
  EXPECT_EQ(card->input, otherwise);
  EXPECT_EQ(card->output, OutputKind::kLogits);
  EXPECT_EQ(Read("{}")->input, otherwise);
  EXPECT_FALSE(Read(R"({"interpolation": "bicubic"})")->says_size);

  // What timm.data.resolve_model_data_config gives.
  card = Read(R"({"input_size": [3, 260, 261], "interpolation": "bicubic", "mean": [0.5, 0.4, 0.3], "std": [0.25, 1, 2], "crop_pct": 0.89,
                  "crop_mode": "center"})");
  ASSERT_TRUE(card) << card.error().message;
  EXPECT_EQ(card->input, (InputSpec{260, 261, Interpolation::kBicubic, {0.5, 0.4, 0.3}, {0.25, 1, 2}, PassOrder::kAsPillow13}));
  EXPECT_TRUE(card->says_size);
  EXPECT_EQ(Read(R"({"input_size": 475})")->input.width, 475u);
  EXPECT_EQ(Read(R"({"input_size": [475, 300]})")->input.height, 475u);
  EXPECT_EQ(Read(R"({"output": "probabilities"})")->output, OutputKind::kProbabilities);
  EXPECT_EQ(Read(R"({"output": "logits"})")->output, OutputKind::kLogits);
}

TEST_F(TeacherCardTest, WhatIsWrongIsNamed) {
  const std::string fields = "input_size, interpolation, mean, std, output";
  EXPECT_EQ(Error("not JSON"), "expected a JSON object with any of " + fields);
  EXPECT_EQ(Error("[1]"), "expected a JSON object with any of " + fields);
  EXPECT_EQ(Error(R"({"input": 224})"), "field 'input' is not known: expected " + fields);
  const std::string size = "expected N, [H, W] or [3, H, W] of 1 to 16384 pixels";
  for (const char* bad : {"0", "-3", "16385", "2.5", "\"224\"", "[224]", "[1,224,224]", "[3,224,0]", "[1,2,3,4]", "null", "{}"}) {
    EXPECT_EQ(Error(std::string(R"({"input_size": )") + bad + "}"), std::string("field 'input_size' is ") + bad + ": " + size);
  }
  EXPECT_EQ(Error(R"({"interpolation": "lanczos"})"), "field 'interpolation' is \"lanczos\": expected \"bilinear\" or \"bicubic\"");
  for (const char* bad : {"[0.5]", "0.5", "[\"a\",0,0]", "[0,0,0,0]"}) {
    EXPECT_EQ(Error(std::string(R"({"mean": )") + bad + "}"), std::string("field 'mean' is ") + bad + ": expected a list of 3, one for each channel of the images");
  }
  // Values that count from 0 to 255.
  EXPECT_EQ(Error(R"({"mean": [123.5, 116.3, 103.5]})"), "field 'mean' is [123.5,116.3,103.5]: expected numbers from 0 to 1: pixel values count from 0 to 1");
  EXPECT_EQ(Error(R"({"std": [0, 1, 1]})"), "field 'std' is [0,1,1]: expected numbers from 0.0001 to 10: pixel values count from 0 to 1");
  std::filesystem::remove(Path("t.pt.json"));
  std::filesystem::create_symlink(Path("gone"), Path("t.pt.json"));
  EXPECT_EQ(ReadTeacherCard(Path("t.pt"), otherwise).error().code, ErrorCode::kIoError);
  std::filesystem::remove(Path("t.pt.json"));
  EXPECT_EQ(Error(R"({"output": "softmax"})"), "field 'output' is \"softmax\": expected \"logits\" or \"probabilities\"");
  EXPECT_EQ(Error("{\"output\": \"" + std::string(100, 'x') + "\"}").substr(0, 79), "field 'output' is \"" + std::string(56, 'x') + "...:");
  EXPECT_EQ(Error(std::string(1 << 16, ' ')).substr(0, 24), "longer than 65536 bytes:");
}

}  // namespace
}  // namespace fkdb
