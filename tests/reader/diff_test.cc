// SPDX-License-Identifier: Apache-2.0
// What tests/cli/test_share_diff.py cannot make: images of another size, work that is stopped, a label set that is not finished.
#include "reader/diff.h"

#include <gtest/gtest.h>

#include "tests/db/test_files.h"

namespace fkdb {
namespace {

class Diff : public test::TempFolder {
 protected:
  Reader Make(const std::string& name, const test::RandomLabels& labels) const {
    EXPECT_TRUE(labels.Build(Path(name)));
    return *Reader::Open(Path(name));
  }
};

TEST_F(Diff, CropsOfAnImageOfAnotherSizeAreOthers) {
  test::RandomLabels labels(10);
  const Reader a = Make("a.fkdb", labels);
  ++labels.records[3].width;
  ++labels.records[4].height;
  labels.records[5].content_hash[0] ^= 1;
  const Reader b = Make("b.fkdb", labels);
  const auto report = DiffLabelSets(a, b);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->images.both, 10u);
  EXPECT_EQ(report->crops_a, 40u);
  EXPECT_EQ(report->same_crops, 32u);
  ASSERT_TRUE(report->labels);
  EXPECT_EQ(report->labels->kl_ab, 0);
  EXPECT_EQ(report->labels->worst_key, "00000.jpg");
}

TEST_F(Diff, ProgressEndsWithAllImagesAndStopEndsIt) {
  const Reader a = Make("a.fkdb", test::RandomLabels(2100)), b = Make("b.fkdb", test::RandomLabels(2000, test::MakeSpec(LabelKind::kHard, 10, 1)));
  std::atomic<bool> stop = false;
  uint64_t last = 0;
  PairOptions options;
  options.threads = 3;
  options.stop = &stop;
  options.progress = [&](uint64_t done, uint64_t all) {
    EXPECT_EQ(all, 4100u);
    EXPECT_GT(done, last);
    last = done;
  };
  ASSERT_TRUE(DiffLabelSets(a, b, options));
  EXPECT_EQ(last, 4100u);
  options.progress = [&](uint64_t, uint64_t) { stop = true; };
  const auto report = DiffLabelSets(a, b, options);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kIncomplete);
  EXPECT_EQ(report.error().message, "stopped before everything was compared");
}

TEST_F(Diff, APartialHasNoKeys) {
  const test::RandomLabels labels(5);
  const Reader whole = Make("a.fkdb", labels);
  {
    auto writer = LabelFileWriter::Open(Path("b.fkdb"), labels.recipe, {});
    ASSERT_TRUE(writer && labels.AppendUntil(&*writer, 3) && writer->Flush());
  }
  LabelFileOptions options;
  options.allow_partial = true;
  const auto partial = Reader::Open(Path("b.fkdb.partial"), options);
  ASSERT_TRUE(partial) << partial.error().message;
  const auto report = DiffLabelSets(whole, *partial);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kIncomplete);
  EXPECT_EQ(report.error().message, Path("b.fkdb.partial").string() + ": it is not finished and has no keys yet");
}

}  // namespace
}  // namespace fkdb
