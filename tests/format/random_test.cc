// SPDX-License-Identifier: Apache-2.0
#include "format/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

namespace fkdb {
namespace {

// The known answers that Philox's authors publish for philox4x32-10.
TEST(Philox, KnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox(~0ull, ~0ull, ~0ull), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x0370734413198a2eull),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(CounterRandom, IsAFunctionOfSeedStreamAndIndex) {
  CounterRandom a(1, 2, 3), b(1, 2, 3), c(1, 2, 4), d(1, 3, 3), e(2, 2, 3);
  const uint32_t first = a.NextWord();
  EXPECT_EQ(first, b.NextWord());
  EXPECT_NE(first, c.NextWord());
  EXPECT_NE(first, d.NextWord());
  EXPECT_NE(first, e.NextWord());
}

TEST(CounterRandom, BoundedDrawsAreUniform) {
  CounterRandom random(7, 0, 0);
  std::vector<int> count(6);
  for (int i = 0; i < 60000; ++i) ++count[random.NextBelow(6)];
  for (const int n : count) EXPECT_NEAR(n, 10000, 500);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(random.NextBelow(1), 0u);
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double u = random.NextUniform(2, 4);
    ASSERT_TRUE(u >= 2 && u < 4);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 3, 0.03);
}

TEST(Permutation, VisitsEveryPositionOnce) {
  for (const uint64_t size : {1ull, 2ull, 3ull, 4ull, 5ull, 16ull, 17ull, 200ull, 1000ull, 65535ull}) {
    const Permutation permutation(size, 11, size);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < size; ++i) {
      ASSERT_LT(permutation(i), size);
      seen.insert(permutation(i));
    }
    EXPECT_EQ(seen.size(), size);
  }
}

// Each value as often at each place, each ordered pair as often at the first two places.
TEST(Permutation, MapsSeveralPositionsAsOneByOne) {
  for (const uint64_t size : {1ull, 2ull, 5ull, 16ull, 200ull, 1000ull}) {
    const Permutation permutation(size, 11, size);
    for (uint64_t first = 0; first < std::min<uint64_t>(size, 30); ++first) {
      for (uint64_t count = 0; count <= std::min<uint64_t>(size - first, 11); ++count) {
        std::vector<uint32_t> found(count), expected;
        for (uint64_t i = 0; i < count; ++i) expected.push_back(static_cast<uint32_t>(permutation(first + i)));
        permutation.Map(first, found);
        ASSERT_EQ(found, expected) << size << " " << first;
      }
    }
  }
}

TEST(Permutation, IsUniformOverStreams) {
  constexpr uint64_t kSize = 5, kTrials = 60000;
  std::map<std::pair<uint64_t, uint64_t>, int> at, pairs;
  for (uint64_t stream = 0; stream < kTrials; ++stream) {
    const Permutation permutation(kSize, 3, stream);
    for (uint64_t i = 0; i < kSize; ++i) ++at[{i, permutation(i)}];
    ++pairs[{permutation(0), permutation(1)}];
  }
  ASSERT_EQ(at.size(), kSize * kSize);
  for (const auto& [where, n] : at) EXPECT_NEAR(n, kTrials / kSize, 450) << where.first << " " << where.second;
  ASSERT_EQ(pairs.size(), kSize * (kSize - 1));
  for (const auto& [which, n] : pairs) EXPECT_NEAR(n, kTrials / 20, 250) << which.first << " " << which.second;
}

TEST(Portable, ExpAndLogAreExactToTheLastDigits) {
  for (double x = -20; x < 20; x += 0.0137) {
    EXPECT_NEAR(PortableExp(x) / std::exp(x), 1, 4e-16) << x;
    const double y = std::exp(x);
    EXPECT_NEAR(PortableLog(y), x, 4e-16 * std::max(1.0, std::fabs(x))) << x;
  }
  EXPECT_EQ(PortableExp(0), 1);
  EXPECT_EQ(PortableLog(1), 0);
}

}  // namespace
}  // namespace fkdb
