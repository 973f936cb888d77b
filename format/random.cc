// SPDX-License-Identifier: Apache-2.0
#include "format/random.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fkdb {

std::array<uint32_t, 4> Philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> c = {
      static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
      static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

uint32_t CounterRandom::NextWord() {
  if (used_ == 4) {
    block_ = Philox(seed_, stream_, uint64_t{index_} << 32 | draw_++);
    used_ = 0;
  }
  return block_[used_++];
}

double CounterRandom::NextUniform(double low, double high) {
  const uint64_t word = uint64_t{NextWord()} << 32 | NextWord();
  return low + (high - low) * (static_cast<double>(word >> 11) * 0x1p-53);
}

uint64_t CounterRandom::NextBelow(uint64_t bound) {
  // Rejection keeps every value equally likely: drop the words above the last whole multiple.
  const uint64_t excess = (0 - bound) % bound;
  uint64_t word;
  do {
    word = uint64_t{NextWord()} << 32 | NextWord();
  } while (word < excess);
  return word % bound;
}

Permutation::Permutation(uint64_t size, uint64_t seed, uint64_t stream) : size_(size) {
  const int bits = std::bit_width(size - 1);
  half_bits_ = bits < 2 ? 1 : (bits + 1) / 2;
  CounterRandom random(seed, stream, 0);
  for (uint64_t& key : round_keys_) {
    const uint64_t high = random.NextWord();
    key = high << 32 | random.NextWord();
  }
}

template <size_t N>
void Permutation::Mix(uint64_t* positions) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  std::array<uint64_t, N> left, right;
  for (size_t i = 0; i < N; ++i) {
    left[i] = positions[i] >> half_bits_;
    right[i] = positions[i] & mask;
  }
  for (const uint64_t key : round_keys_) {
    for (size_t i = 0; i < N; ++i) {  // a round waits for the one before: N at a time wait together
      uint64_t mixed = (right[i] ^ key) * 0x9E3779B97F4A7C15u;
      mixed = (mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93u;
      mixed ^= mixed >> 32;
      const uint64_t next = left[i] ^ (mixed & mask);
      left[i] = right[i];
      right[i] = next;
    }
  }
  for (size_t i = 0; i < N; ++i) positions[i] = left[i] << half_bits_ | right[i];
}

uint64_t Permutation::operator()(uint64_t position) const {
  do Mix<1>(&position);
  while (position >= size_);
  return position;
}

void Permutation::Map(uint64_t first, std::span<uint32_t> out) const {
  constexpr size_t kTogether = 4;
  for (size_t done = 0; done < out.size(); done += kTogether) {
    std::array<uint64_t, kTogether> positions;
    const size_t count = std::min(kTogether, out.size() - done);
    for (size_t i = 0; i < kTogether; ++i) positions[i] = first + done + (i < count ? i : 0);
    Mix<kTogether>(positions.data());
    for (size_t i = 0; i < count; ++i) {
      out[done + i] = static_cast<uint32_t>(positions[i] < size_ ? positions[i] : (*this)(positions[i]));
    }
  }
}

double PortableExp(double x) {
  constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  const double n = std::nearbyint(x * 0x1.71547652b82fep+0);
  const double r = (x - n * kLn2High) - n * kLn2Low;  // |r| <= ln(2) / 2
  double sum = 1;
  for (int i = 17; i >= 1; --i) sum = 1 + sum * r / i;
  return std::ldexp(sum, static_cast<int>(n));
}

double PortableLog(double x) {
  int exponent;
  const double mantissa = std::frexp(x, &exponent);  // in [0.5, 1)
  // ln m = 2 artanh((m - 1) / (m + 1)); m is moved to [sqrt(1/2), sqrt(2)) so the series is short.
  const bool low = mantissa < 0x1.6a09e667f3bcdp-1;
  const double m = low ? 2 * mantissa : mantissa;
  const double e = low ? exponent - 1 : exponent;
  const double z = (m - 1) / (m + 1), z2 = z * z;
  double sum = 0;
  for (int i = 23; i >= 1; i -= 2) sum = sum * z2 + 1.0 / i;
  return e * 0x1.62e42fefa39efp-1 + 2 * z * sum;
}

}  // namespace fkdb
