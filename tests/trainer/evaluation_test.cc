// SPDX-License-Identifier: Apache-2.0
// Which classes validation images have: by name, by number, by ReaL. And TensorBoard's checksums.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/db/test_files.h"
#include "trainer/class_order.h"
#include "trainer/event_file.h"
#include "trainer/real_labels.h"

namespace fkdb {
namespace {

class Named : public DataSet {
 public:
  Named(std::vector<std::string> classes, std::string layout = "folder") {
    name_ = "val";
    layout_ = std::move(layout);
    class_names_ = std::move(classes);
  }
  Result<Image> Load(uint64_t, std::vector<std::byte>*) const override { return Fail(ErrorCode::kNotFound, "no images"); }
};

using Classes = std::vector<int32_t>;

std::string Message(const Result<Classes>& result) { return result ? "" : result.error().message; }

const std::vector<std::string> kTwelve = {"0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"};  // in text order
const Classes kByNumber = {0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9};
const Classes kByText = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

TEST(ClassOrder, FoldersOfAllNumbersAreNumbers) {
  EXPECT_EQ(*ModelClasses(Named(kTwelve), 12, {}, ClassOrder::kAuto), kByNumber);
  EXPECT_EQ(*ModelClasses(Named(kTwelve), 12, {}, ClassOrder::kText), kByText);
  EXPECT_EQ(*ModelClasses(Named({"a", "b"}), 2, {}, ClassOrder::kAuto), Classes({0, 1}));
  EXPECT_EQ(*ModelClasses(Named({"1", "2"}), 2, {}, ClassOrder::kAuto), Classes({0, 1}));
  EXPECT_EQ(*ModelClasses(Named({"0", "00"}), 2, {}, ClassOrder::kAuto), Classes({0, 1}));
}

TEST(ClassOrder, ATrainingsOwnNamesComeFirst) {
  EXPECT_EQ(*ModelClasses(Named(kTwelve), 12, kTwelve, ClassOrder::kAuto), kByText);
  EXPECT_EQ(*ModelClasses(Named({"10", "2"}), 12, kTwelve, ClassOrder::kAuto), Classes({2, 4}));
  const std::vector<std::string> synsets(12, "n");
  EXPECT_EQ(*ModelClasses(Named(kTwelve), 12, synsets, ClassOrder::kAuto), kByNumber);
}

TEST(ClassOrder, APartOfTheClassesIsTakenOnlyWhereItsNumbersAreSure) {
  EXPECT_EQ(Message(ModelClasses(Named({"0", "1"}), 12, {}, ClassOrder::kAuto)),
            "'val' has 2 classes, the weights have 12: expected folders of all classes; of a part that are named by number, --class-order number");
  EXPECT_EQ(*ModelClasses(Named({"10", "2"}), 12, {}, ClassOrder::kNumber), Classes({10, 2}));
  EXPECT_EQ(*ModelClasses(Named({"0", "1", "2"}, "idx"), 12, {}, ClassOrder::kAuto), Classes({0, 1, 2}));
  EXPECT_FALSE(ModelClasses(Named({"0", "1", "2"}, "idx"), 2, {}, ClassOrder::kAuto));
  for (const std::string name : {"12", "-1", "1x", "", "+1", "99999999999999999999"}) {
    EXPECT_EQ(Message(ModelClasses(Named({"1", name}), 12, {}, ClassOrder::kNumber)),
              "class '" + name + "' of 'val': expected the number of a class, 0 to 11");
  }
}

class RealTest : public test::TempFolder {
 protected:
  Result<RealLabels> Read(const std::string& text) {
    test::WriteBytes(path_, text);
    return RealLabels::Read(path_, 10);
  }
  std::string ReadError(const std::string& text) {
    auto read = Read(text);
    return read ? "" : read.error().message;
  }

  const std::filesystem::path path_ = Path("real.json");
};

TEST_F(RealTest, TheLastNumberOfAFileNameIsLookedUp) {
  const auto real = Read("[[1, 2], [], [9]]");
  ASSERT_TRUE(real);
  EXPECT_EQ(**real->Of("ILSVRC2012_val_00000001.JPEG"), Classes({1, 2}));
  EXPECT_EQ(**real->Of("n01/3/ILSVRC2012_val_00000002.JPEG"), Classes());
  EXPECT_EQ(**real->Of("3.x.png"), Classes({9}));
  for (const std::string number : {"0", "4", "00000000000000000000000000000000004"}) {
    EXPECT_EQ(real->Of("a/x_" + number + ".JPEG").error().message,
              "image 'a/x_" + number + ".JPEG': number " + number + " of 3 entries in " + path_.string() + ": expected 1 to 3");
  }
  EXPECT_EQ(real->Of("1/a.jp2").error().message,
            "image '1/a.jp2': no number in its name; ReaL's labels are found by it, as entry 0 by ILSVRC2012_val_00000001.JPEG");
}

TEST_F(RealTest, WhatIsNoListOfClassesIsNamed) {
  const std::string expected = ", expected a list of lists of class indices, as ImageNet ReaL's real.json";
  const std::string file = path_.string() + ": ";
  EXPECT_EQ(ReadError("[[1"), file + "is not JSON" + expected);
  EXPECT_EQ(ReadError(""), file + "is not JSON" + expected);
  EXPECT_EQ(ReadError("{\"a\": [1]}"), file + "is a JSON object" + expected);
  EXPECT_EQ(ReadError("[[1], 2]"), file + "entry 1 is a number" + expected);
  EXPECT_EQ(ReadError("[[1], [], [1, 2.5]]"), file + "entry 2 has a fraction in it" + expected);
  EXPECT_EQ(ReadError("[[\"1\"]]"), file + "entry 0 has a string in it" + expected);
  for (const std::string label : {"10", "-1", "18446744073709551615"}) {
    EXPECT_EQ(ReadError("[[9], [" + label + "]]"), file + "entry 1 has class " + label + ", the weights' classes are 0 to 9");
  }
  EXPECT_EQ(RealLabels::Read(Path("no.json"), 10).error().message, Path("no.json").string() + ": no such file (expected ImageNet ReaL's real.json)");
}

TEST(EventFile, ChecksumsAreThePublishedOnes) {
  const auto masked = [](uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; };
  EXPECT_EQ(MaskedCrc32c("123456789"), masked(0xe3069283));             // the catalogue's check value
  EXPECT_EQ(MaskedCrc32c(std::string(32, '\0')), masked(0x8a9136aa));   // RFC 3720, B.4
  EXPECT_EQ(MaskedCrc32c(std::string(32, '\xff')), masked(0x62a8ab43));
}

}  // namespace
}  // namespace fkdb
