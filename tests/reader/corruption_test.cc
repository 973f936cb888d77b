// SPDX-License-Identifier: Apache-2.0
// A small label file damaged in every way at every place: each damage is refused, or shown to be
// harmless by the very same digest; never a crash, a hang or another label.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "db/label_file.h"
#include "reader/verify.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

using test::RandomLabels;
using test::MakeSpec;

class CorruptionTest : public test::TempFolder {
 protected:
  void Build(const LabelSpec& spec, uint64_t images, size_t block_bytes) {
    LabelFileWriterOptions options;
    options.block_bytes = block_bytes;
    const auto made = RandomLabels(images, spec, 3).Build(path_, options);
    ASSERT_TRUE(made) << made.error().message;
    digest_ = made->digest;
    good_ = test::ReadBytes(path_);
    file_ = ::open(path_.c_str(), O_RDWR);
  }
  void TearDown() override { ::close(file_); }

  // Puts `bytes` at `at` for one look at the file, and takes them away again.
  void Try(size_t at, std::string_view bytes) {
    ASSERT_EQ(::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(at)), static_cast<ssize_t>(bytes.size()));
    const VerifyReport report = Verify(path_);
    if (report.ok) {
      ++harmless_;
      ASSERT_EQ(report.digest, digest_) << "other labels, byte " << at;
    } else {
      ++refused_;
      ASSERT_TRUE(report.code == ErrorCode::kCorruption || report.code == ErrorCode::kUnsupported)
          << at << ": " << report.errors[0];
      newer_ += report.code == ErrorCode::kUnsupported;
    }
    ASSERT_EQ(::pwrite(file_, good_.data() + at, bytes.size(), static_cast<off_t>(at)), static_cast<ssize_t>(bytes.size()));
  }

  std::filesystem::path path_ = Path("a.fkdb");
  std::string digest_, good_;
  int file_ = -1;
  size_t refused_ = 0, harmless_ = 0, newer_ = 0;
};

// One bit low, one bit high, all bits, of every byte.
TEST_F(CorruptionTest, EveryByteFlippedIsRefusedOrHarmless) {
  for (const ValueEncoding values : {ValueEncoding::kPacked, ValueEncoding::kF16}) {
    path_ = Path(std::string(Name(values)) + ".fkdb");
    Build(MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, values), 12, 1200);
    const size_t step = std::getenv("FKDB_LONG_TESTS") ? 1 : 3;  // the short tier: every third byte, all masks
    for (size_t at = 0; at < good_.size(); at += step) {
      for (const int mask : {0x01, 0x80, 0xff}) {
        const char byte = static_cast<char>(good_[at] ^ mask);
        Try(at, {&byte, 1});
        if (HasFatalFailure()) return;
      }
    }
    // Only unused bytes may be harmless: page ends, freed pages, most of LMDB's older meta page.
    const FileUse use = *LabelFile::Open(path_)->Use();
    const size_t used = use.record_bytes + use.directory_bytes + use.names_bytes + use.manifest_bytes;
    std::printf("%zu bytes, %zu used: %zu mutations refused (%zu as a newer version), %zu harmless\n", good_.size(), used,
                refused_, newer_, harmless_);
    EXPECT_GE(refused_, 3 * (used / step));
    refused_ = harmless_ = newer_ = 0;
    ::close(file_);
  }
  file_ = -1;
}

TEST_F(CorruptionTest, ZeroedSwappedAndMovedPagesAreRefusedOrHarmless) {
  Build(MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kPacked), 400, 9000);
  constexpr size_t kPage = 4096;
  const size_t pages = good_.size() / kPage;
  ASSERT_GT(pages, 10u);
  const std::string zeros(kPage, '\0'), ones(kPage, '\xff');
  for (size_t a = 0; a < pages; ++a) {
    Try(a * kPage, zeros);
    Try(a * kPage, ones);
    for (size_t b = 0; b < pages; ++b) {
      if (b != a) Try(a * kPage, std::string_view(good_).substr(b * kPage, kPage));  // page b stands in for page a
      if (HasFatalFailure()) return;
    }
  }
  std::printf("%zu pages: %zu refused, %zu harmless\n", pages, refused_, harmless_);
  EXPECT_GT(refused_, 3 * harmless_);
  // Two whole blocks change places: each is sound, but not where it belongs.
  size_t first = std::string::npos, second = std::string::npos;
  for (size_t at = 0; at < good_.size(); at += kPage) {
    if (std::memcmp(good_.data() + at + 16, "FKDBLOCK", 8) != 0) continue;
    (first == std::string::npos ? first : second) = at;
    if (second != std::string::npos) break;
  }
  ASSERT_NE(second, std::string::npos);
  const size_t length = second - first;
  std::string moved = good_;
  moved.replace(first, length, good_.substr(second, length));
  moved.replace(second, length, good_.substr(first, length));
  test::WriteBytes(Path("moved.fkdb"), moved);
  EXPECT_FALSE(Verify(Path("moved.fkdb")).ok);
}

// Every length a copy may have stopped at.
TEST_F(CorruptionTest, EveryTruncationIsRefused) {
  Build(MakeSpec(LabelKind::kHard, 10, 1, ValueEncoding::kPacked), 12, 1200);
  const size_t step = std::getenv("FKDB_LONG_TESTS") ? 1 : 7;
  for (size_t size = good_.size(); size > 0;) {
    size -= std::min(size, step);
    ASSERT_EQ(::ftruncate(file_, static_cast<off_t>(size)), 0);
    const VerifyReport report = Verify(path_);
    ASSERT_FALSE(report.ok) << size;
    ASSERT_EQ(report.code, ErrorCode::kCorruption) << size << ": " << report.errors[0];
  }
}

}  // namespace
}  // namespace fkdb
