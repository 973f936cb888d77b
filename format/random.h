// SPDX-License-Identifier: Apache-2.0
// Randomness that is a function, not a stream: which crops an image gets and which order an epoch
// visits depend on (seed, key, index) alone, never on threads, ranks or what came before.
// Everything here is part of the format: a changed bit changes the label set a seed stands for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace fkdb {

// Philox4x32-10 (Salmon et al., SC 2011): 128 random bits for each (key, counter).
std::array<uint32_t, 4> Philox(uint64_t key, uint64_t counter_low, uint64_t counter_high);

// Consecutive draws for one (seed, stream, index): a Philox key is the seed, its counter the
// stream, the index and the number of the draw. At most 2^32 blocks of four words.
class CounterRandom {
 public:
  CounterRandom(uint64_t seed, uint64_t stream, uint32_t index)
      : seed_(seed), stream_(stream), index_(index) {}

  uint32_t NextWord();
  // Uniform in [low, high), 53 random bits.
  double NextUniform(double low, double high);
  // Uniform integer in [0, bound), bound >= 1, without bias.
  uint64_t NextBelow(uint64_t bound);

 private:
  uint64_t seed_;
  uint64_t stream_;
  uint32_t index_;
  uint32_t draw_ = 0;
  std::array<uint32_t, 4> block_{};
  uint32_t used_ = 4;
};

// A random permutation of [0, size) that can be asked for any position in O(1) and needs no
// memory: a balanced Feistel network over the next power of four, walked until inside the range.
class Permutation {
 public:
  // size >= 1; (seed, stream) choose the permutation.
  Permutation(uint64_t size, uint64_t seed, uint64_t stream);
  uint64_t operator()(uint64_t position) const;  // position < size
  // The same of positions first, first + 1, .., all < size <= 2^32, several at a time.
  void Map(uint64_t first, std::span<uint32_t> out) const;
  uint64_t size() const { return size_; }

 private:
  // Where the network sends N positions below the power of four.
  template <size_t N>
  void Mix(uint64_t* positions) const;

  static constexpr int kRounds = 8;
  uint64_t size_;
  int half_bits_;
  std::array<uint64_t, kRounds> round_keys_;
};

// e^x and ln x from additions, multiplications and divisions only: the same bits on every machine,
// which the C library does not promise. Relative error below 4e-16 for |x| <= 700; x > 0 for ln.
double PortableExp(double x);
double PortableLog(double x);

}  // namespace fkdb
