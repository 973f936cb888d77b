// SPDX-License-Identifier: Apache-2.0
// Label files of format version 1, as they were written once, still read as they did then: every kind
// in every encoding. tests/golden/v1 holds the files and what fkdb-dump said of them; added to, never
// regenerated. FKDB_MAKE_GOLDEN=FOLDER writes those that are not there yet.
#include <algorithm>
#include <cstdlib>

#include "reader/dump.h"
#include "reader/verify.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(FKDB_SOURCE_DIR) / "tests/golden/v1";

// Everything a reader sees: the digest, and each image with its dense labels.
std::string Describe(const fs::path& path) {
  const VerifyReport report = Verify(path);
  if (!report.ok) return report.errors[0];
  const auto reader = Reader::Open(path);
  std::string text = report.digest + "\n";
  DumpOptions options;
  options.dense = reader->spec().kind != LabelKind::kLogits && !reader->spec().is_map();  // a softmax would ask this machine's libm
  for (uint64_t i = 0; i < reader->num_images(); ++i) text += DumpImage(*reader, i, options).value_or("error") + "\n";
  return text;
}

struct Case {
  std::string name;
  LabelSpec spec;
  bool ops = false;       // those of a first version
  bool imported = false;  // and those that conversions brought
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const auto add = [&](LabelKind kind, ValueEncoding values, BoxEncoding boxes, bool ops = false) {
    const LabelSpec spec = test::MakeSpec(kind, 12, 3, values, boxes);
    cases.push_back({std::string(Name(kind)) + "." + std::string(Name(values)) + "." + std::string(Name(boxes)) + (ops ? ".ops" : ""),
                     spec, ops});
  };
  for (const LabelKind kind : test::kAllKinds) {
    for (const ValueEncoding values : {ValueEncoding::kF32, ValueEncoding::kF16, ValueEncoding::kPacked}) {
      add(kind, values, BoxEncoding::kPixel);
    }
  }
  add(LabelKind::kLogits, ValueEncoding::kBf16, BoxEncoding::kPixel);
  for (const BoxEncoding boxes : {BoxEncoding::kFractionF32, BoxEncoding::kFractionF16}) {
    add(LabelKind::kMarginalSmoothing, ValueEncoding::kF16, boxes);
    add(LabelKind::kMarginalSmoothing, ValueEncoding::kPacked, boxes);
  }
  add(LabelKind::kMarginalSmoothing, ValueEncoding::kPacked, BoxEncoding::kPixel, /*ops=*/true);
  cases.push_back({"marginal-smoothing.f16.pixel.imported", test::MakeSpec(LabelKind::kMarginalSmoothing, 12, 3, ValueEncoding::kF16), false, true});
  for (const ValueEncoding values : {ValueEncoding::kF32, ValueEncoding::kF16}) {
    cases.push_back({"label-map." + std::string(Name(values)) + ".grid", test::MakeMapSpec(12, 3, 2, 3, values)});
  }
  return cases;
}

void Make(const Case& golden, const fs::path& folder) {
  const fs::path path = folder / (golden.name + ".fkdb");
  if (fs::exists(path)) return;
  test::RandomLabels set(3, golden.spec, golden.spec.is_map() ? golden.spec.num_cells() : 2, 11);
  set.records[1].class_index = kNoClass;
  Record& skipped = set.records[2];
  skipped = {};
  skipped.key_hash = Hash64(set.keys[2]);
  skipped.skip_reason = "truncated JPEG";
  if (golden.ops) {
    set.records[0].ops = {{{OpKind::kContrast, 0, {1.5f}}, {OpKind::kErase, 0, {1, 2, 3, 4}}},
                          {{OpKind::kMixup, 0x0123456789abcdef, {0.25f}}, {OpKind::kCutmix, 7, {0.5f, 1, 2, 30, 40}}}};
  }
  if (golden.imported) {
    set.records[0].ops = {{{OpKind::kReplay, 0, {4660, 22136}}, {OpKind::kListed, 0, {3, 1, 0.5f}}},
                          {{OpKind::kPartnerCrop, 0, {1, 2, 30, 40, 1}}, {OpKind::kRotate, 0, {7}}, {OpKind::kMixup, 9, {0.75f}}}};
  }
  ASSERT_TRUE(set.Build(path));
  test::WriteBytes(folder / (golden.name + ".txt"), Describe(path));
}

TEST(Golden, FilesOfVersion1ReadAsTheyDid) {
  if (const char* folder = std::getenv("FKDB_MAKE_GOLDEN")) {
    for (const Case& golden : Cases()) Make(golden, folder);
  }
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(kGolden)) {
    if (entry.path().extension() != ".fkdb") continue;
    ++files;
    fs::path text = entry.path();
    EXPECT_EQ(Describe(entry.path()), test::ReadBytes(text.replace_extension(".txt"))) << entry.path();
  }
  EXPECT_GE(files, Cases().size());
}

}  // namespace
}  // namespace fkdb
