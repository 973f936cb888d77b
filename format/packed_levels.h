// SPDX-License-Identifier: Apache-2.0
// What the codes of packed values stand for (FORMAT.md section "Packed values"): every level is 2^(n / 32) for an
// integer n. Constants, so that code for any processor can have them as it likes.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace fkdb {

// A crop of the top-k kinds is a tail's code where spec.has_tail(), then K - 1 ratios. With w_1 = 1 and
// w_k+1 = w_k * ratio, p_k is max(w_k * (1 / (1 + tail + w_2 + w_3 ..)), kSmallestPacked), every operation in double
// and in this order. Of full and logits, C codes.
constexpr uint32_t kRatioBits = 5, kTailBits = 7, kFullBits = 8, kLogitBits = 8;

// 2^(j / 32).
constexpr std::array<double, 32> kRoots = {
    1.0,                1.0218971486541166, 1.0442737824274138, 1.0671404006768237, 1.0905077326652577,
    1.1143867425958924, 1.1387886347566916, 1.1637248587775775, 1.189207115002721,  1.215247359980469,
    1.241857812073484,  1.2690509571917332, 1.2968395546510096, 1.3252366431597413, 1.3542555469368927,
    1.383909881963832,  1.4142135623730951, 1.4451808069770467, 1.4768261459394993, 1.5091644275934228,
    1.5422108254079407, 1.5759808451078865, 1.6104903319492543, 1.645755478153965,  1.681792830507429,
    1.718619298122478,  1.7562521603732995, 1.7947090750031072, 1.8340080864093424, 1.8741676341103,
    1.9152065613971474, 1.9571441241754002};

// Of a probability to the one before: level c is 2^(-kRatio[c] / 32).
constexpr std::array<int, 1 << kRatioBits> kRatio = {0,  5,   10,  15,  21,  26,  31,  37,  42,  48,  54,
                                                     60, 66,  73,  80,  87,  94,  103, 111, 121, 131, 142,
                                                     154, 169, 185, 204, 226, 255, 292, 342, 413, 512};

// Of all classes outside the K together to the largest: level c is 2^(kTail[c] / 32).
constexpr std::array<int, 1 << kTailBits> kTail = {
    768, 683, 601, 526, 460, 406, 364, 330, 302, 280, 261, 244, 230, 217, 206, 196,
    186, 178, 170, 162, 155, 149, 143, 137, 131, 126, 121, 116, 112, 107, 103, 99,
    95, 91, 87, 84, 80, 76, 73, 70, 67, 63, 60, 57, 54, 51, 48, 46,
    43, 40, 37, 34, 32, 29, 26, 24, 21, 19, 16, 13, 11, 8, 6, 3,
    1, -2, -4, -7, -10, -12, -15, -17, -20, -22, -25, -28, -30, -33, -36, -38,
    -41, -44, -47, -50, -53, -56, -59, -62, -65, -68, -71, -75, -78, -82, -85, -89,
    -93, -97, -101, -105, -109, -114, -119, -123, -129, -134, -140, -146, -152, -159, -166, -173,
    -182, -191, -200, -211, -223, -237, -252, -269, -290, -315, -345, -383, -431, -490, -561, -640};

// Of a class of a full label to the largest: 2^(-n / 32) in steps of 1/16, then 3/16 octave.
constexpr int FullExponent(int code) { return code < 128 ? 2 * code : 256 + 6 * (code - 128); }

// What is read back is never 0, however many steep ratios follow one another: no label diverges
// without bound from what the teacher said.
constexpr double kSmallestPacked = 0x1p-126;

// 2^(n / 32).
constexpr double RootPower(int n) {
  return kRoots[static_cast<size_t>(n & 31)] * std::bit_cast<double>(static_cast<uint64_t>(1023 + (n >> 5)) << 52);
}

// In descending order.
template <size_t N, class Exponent>
constexpr std::array<double, N> MakeLevels(Exponent exponent) {
  std::array<double, N> levels{};
  for (size_t c = 0; c < N; ++c) levels[c] = RootPower(exponent(static_cast<int>(c)));
  return levels;
}
constexpr auto kRatioLevels = MakeLevels<1 << kRatioBits>([](int c) { return -kRatio[static_cast<size_t>(c)]; });
constexpr auto kTailLevels = MakeLevels<1 << kTailBits>([](int c) { return kTail[static_cast<size_t>(c)]; });
constexpr auto kFullLevels = MakeLevels<1 << kFullBits>([](int c) { return -FullExponent(c); });

}  // namespace fkdb
