// SPDX-License-Identifier: Apache-2.0
// What makes this fast: samples stay bytes until they are multiplied, and the multiply-and-add of
// several bytes a lane that x86 has works on them. A 23-bit weight does not fit its operands, so it is
// split into digits that do, and their sums are shifted together: integers, hence exact.
//
//   AVX-512 with VBMI and VNNI   four samples a lane, three signed digits of 8 bits
//   AVX2                         two samples a lane, two digits of 15 bits
//   others                       plain loops
//
// The horizontal pass has a way for windows that fit a vector, lanes being output positions, and one for
// wider ones, an image shrunk to less than a third: lanes then share one position's window.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "image/resample_passes.cc"
#define HWY_WANT_AVX3_DL
#include <hwy/foreach_target.h>
// foreach_target.h comes before the code it includes again and again.
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "image/resample_passes.h"

HWY_BEFORE_NAMESPACE();
namespace fkdb::HWY_NAMESPACE {

constexpr int32_t kRound = 1 << (kWeightBits - 1);

inline uint8_t ToSample(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }

// The output positions of one pass: lane j of a row is channel j % channels of position j / channels,
// which under `flip` is made by the kernel of the position opposite.
struct Lanes {
  const ResampleKernel& kernel;
  uint32_t channels;
  bool flip;

  uint32_t count() const { return kernel.out * channels; }
  uint32_t position(uint32_t lane) const {
    const uint32_t x = std::min(lane / channels, kernel.out - 1);  // lanes behind the end repeat the last
    return flip ? kernel.out - 1 - x : x;
  }
  uint32_t channel(uint32_t lane) const { return lane % channels; }
  // Of the lanes [group, group + size): where their windows begin, and how many samples one has at most.
  // Reading so many from there ends within 3 positions of the row's end.
  uint32_t first(uint32_t group, uint32_t size) const {
    return std::min(kernel.first[position(group)], kernel.first[position(group + size - 1)]);
  }
  uint32_t samples(uint32_t group, uint32_t size) const {
    uint32_t most = 0;
    for (uint32_t lane = group; lane < group + size; ++lane) most = std::max(most, kernel.count[position(lane)]);
    return most;
  }
};

// -- Plain loops ------------------------------------------------------------------------------

template <uint32_t kChannels>
void PlainRow(const Lanes& lanes, const uint8_t* row, uint8_t* out) {
  for (uint32_t x = 0; x < lanes.kernel.out; ++x, out += kChannels) {
    const uint32_t position = lanes.position(x * kChannels);
    const int32_t* weights = &lanes.kernel.weights[size_t{position} * lanes.kernel.taps];
    const uint8_t* in = row + size_t{lanes.kernel.first[position]} * kChannels;
    int32_t sum[kChannels];
    for (uint32_t c = 0; c < kChannels; ++c) sum[c] = kRound;
    for (uint32_t i = 0; i < lanes.kernel.count[position]; ++i, in += kChannels) {
      for (uint32_t c = 0; c < kChannels; ++c) sum[c] += in[c] * weights[i];
    }
    for (uint32_t c = 0; c < kChannels; ++c) out[c] = ToSample(sum[c]);
  }
}

void PlainHorizontal(const Lanes& lanes, const uint8_t* const* rows, uint32_t num_rows, uint8_t* out, size_t out_stride) {
  for (uint32_t y = 0; y < num_rows; ++y) {
    (lanes.channels == 1 ? PlainRow<1> : PlainRow<3>)(lanes, rows[y], out + y * out_stride);
  }
}

// Bytes [begin, end) of every output row.
void PlainVertical(const ResampleKernel& kernel, const uint8_t* in, size_t in_stride, size_t begin, size_t end,
                   size_t row_bytes, uint8_t* out) {
  for (uint32_t y = 0; y < kernel.out; ++y) {
    const uint8_t* rows = in + kernel.first[y] * in_stride;
    const int32_t* weights = &kernel.weights[size_t{y} * kernel.taps];
    for (size_t x = begin; x < end; ++x) {
      int32_t sum = kRound;
      for (uint32_t i = 0; i < kernel.count[y]; ++i) sum += rows[i * in_stride + x] * weights[i];
      out[y * row_bytes + x] = ToSample(sum);
    }
  }
}

// -- AVX-512 ----------------------------------------------------------------------------------

#if HWY_TARGET == HWY_AVX3_DL
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni")  // a part of this target, and tested for with it

constexpr uint32_t kLanes = 16;  // of one vector

// The digits of four weights: byte i of word d is digit d of weight i, w = 65536 d2 + 256 d1 + d0.
struct Digits {
  uint32_t word[3];
};
inline Digits DigitsOf(const int32_t* weights) {
  Digits digits = {};
  for (int i = 0; i < 4; ++i) {
    const int32_t w = weights[i];
    const int32_t d0 = static_cast<int8_t>(w), w1 = (w - d0) >> 8, d1 = static_cast<int8_t>(w1), d2 = (w1 - d1) >> 8;
    digits.word[0] |= static_cast<uint32_t>(static_cast<uint8_t>(d0)) << (8 * i);
    digits.word[1] |= static_cast<uint32_t>(static_cast<uint8_t>(d1)) << (8 * i);
    digits.word[2] |= static_cast<uint32_t>(static_cast<uint8_t>(d2)) << (8 * i);
  }
  return digits;
}

inline __m512i Join(__m512i a0, __m512i a1, __m512i a2) {
  return _mm512_add_epi32(a0, _mm512_slli_epi32(_mm512_add_epi32(a1, _mm512_slli_epi32(a2, 8)), 8));
}

// One group of lanes over all rows. digits: (blocks, 3) vectors.
template <uint32_t kBlocks>
void Group(const uint8_t* const* rows, uint32_t num_rows, size_t at, uint32_t block_bytes, uint32_t blocks, __m512i bytes,
           const uint32_t* digits, uint8_t* out, size_t out_stride) {
  const uint32_t n = kBlocks > 0 ? kBlocks : blocks;
  const __m512i round = _mm512_set1_epi32(kRound), zero = _mm512_setzero_si512();
  for (uint32_t y = 0; y < num_rows; ++y) {
    __m512i a0 = round, a1 = zero, a2 = zero;
    for (uint32_t b = 0; b < n; ++b) {
      const __m512i samples = _mm512_permutexvar_epi8(bytes, _mm512_loadu_si512(rows[y] + at + b * block_bytes));
      a0 = _mm512_dpbusd_epi32(a0, samples, _mm512_load_si512(digits + (3 * b + 0) * kLanes));
      a1 = _mm512_dpbusd_epi32(a1, samples, _mm512_load_si512(digits + (3 * b + 1) * kLanes));
      a2 = _mm512_dpbusd_epi32(a2, samples, _mm512_load_si512(digits + (3 * b + 2) * kLanes));
    }
    const __m512i sum = _mm512_max_epi32(_mm512_srai_epi32(Join(a0, a1, a2), kWeightBits), zero);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + y * out_stride), _mm512_cvtusepi32_epi8(sum));
  }
}

// False where a group's samples do not fit one vector: an image shrunk to less than a third.
bool NarrowHorizontal(const Lanes& lanes, const uint8_t* const* rows, uint32_t num_rows, uint8_t* out, size_t out_stride,
                    PassScratch* scratch) {
  const ResampleKernel& kernel = lanes.kernel;
  const uint32_t channels = lanes.channels;
  const uint32_t steps = channels == 3 ? 0x09060300 : 0x03020100;
  uint32_t* bytes = scratch->Words((1 + 3 * size_t{kernel.taps} / 4) * kLanes);
  uint32_t* digits = bytes + kLanes;
  for (uint32_t group = 0; group < lanes.count(); group += kLanes) {
    const uint32_t first = lanes.first(group, kLanes), blocks = (lanes.samples(group, kLanes) + 3) / 4;
    uint32_t before = UINT32_MAX;
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const uint32_t position = lanes.position(group + lane);
      const uint32_t offset = (kernel.first[position] - first) * channels + lanes.channel(group + lane);
      if (offset + 3 * channels >= 64) return false;
      bytes[lane] = offset * 0x01010101u + steps;
      for (uint32_t b = 0; b < blocks; ++b) {
        uint32_t* words = digits + 3 * b * kLanes + lane;
        if (position == before) {  // the channels of a position have its weights
          for (size_t d = 0; d < 3; ++d) words[d * kLanes] = (words - 1)[d * kLanes];
        } else {
          const Digits split = DigitsOf(&kernel.weights[size_t{position} * kernel.taps + 4 * b]);
          for (size_t d = 0; d < 3; ++d) words[d * kLanes] = split.word[d];
        }
      }
      before = position;
    }
    const auto run = blocks == 1 ? Group<1> : blocks == 2 ? Group<2> : Group<0>;
    run(rows, num_rows, size_t{first} * channels, 4 * channels, blocks, _mm512_load_si512(bytes), digits, out + group,
        out_stride);
  }
  return true;
}

// Where a window is wider than that: one output position at a time, and a lane sums every fourth to
// twentieth of its samples: lane 3 g + c channel c of samples 4 g .. 4 g + 3 (one channel: lane g), of 20
// (64) a vector. Several rows at a time use the same digits.
template <uint32_t kChannels>
void WideHorizontal(const Lanes& lanes, const uint8_t* const* rows, uint32_t num_rows, uint8_t* out, size_t out_stride,
                    PassScratch* scratch) {
  constexpr uint32_t kGroups = kLanes / kChannels, kSamples = 4 * kGroups, kRows = 4;
  const ResampleKernel& kernel = lanes.kernel;
  const uint32_t blocks = (*std::max_element(kernel.count.begin(), kernel.count.end()) + kSamples - 1) / kSamples;
  uint32_t* bytes = scratch->Words((1 + 3 * size_t{kernel.out} * blocks) * kLanes);
  uint32_t* digits = bytes + kLanes;  // (out, blocks, 3) vectors
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    const uint32_t offset = lane / kChannels * 4 * kChannels + lane % kChannels;
    bytes[lane] = std::min(offset, 63 - 3 * kChannels) * 0x01010101u + (kChannels == 3 ? 0x09060300 : 0x03020100);
  }
  for (uint32_t x = 0; x < kernel.out; ++x) {
    const uint32_t position = lanes.position(x * kChannels);
    for (uint32_t b = 0; b < blocks; ++b) {
      for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const uint32_t tap = kSamples * b + lane / kChannels * 4;
        const bool used = lane / kChannels < kGroups && tap < kernel.taps;
        const Digits split = used ? DigitsOf(&kernel.weights[size_t{position} * kernel.taps + tap]) : Digits{};
        for (size_t d = 0; d < 3; ++d) digits[((size_t{x} * blocks + b) * 3 + d) * kLanes + lane] = split.word[d];
      }
    }
  }
  const __m512i shuffle = _mm512_load_si512(bytes);
  for (uint32_t y = 0; y < num_rows; y += kRows) {
    const uint8_t* row[kRows];
    for (uint32_t r = 0; r < kRows; ++r) row[r] = rows[std::min(y + r, num_rows - 1)];
    for (uint32_t x = 0; x < kernel.out; ++x) {
      const uint32_t position = lanes.position(x * kChannels), window = (kernel.count[position] + kSamples - 1) / kSamples;
      const size_t at = size_t{kernel.first[position]} * kChannels;
      __m512i a0[kRows], a1[kRows], a2[kRows];
      for (uint32_t r = 0; r < kRows; ++r) a0[r] = a1[r] = a2[r] = _mm512_setzero_si512();
      for (uint32_t b = 0; b < window; ++b) {
        const uint32_t* block = digits + (size_t{x} * blocks + b) * 3 * kLanes;
        const __m512i d0 = _mm512_load_si512(block), d1 = _mm512_load_si512(block + kLanes),
                      d2 = _mm512_load_si512(block + 2 * kLanes);
        for (uint32_t r = 0; r < kRows; ++r) {
          const __m512i samples =
              _mm512_permutexvar_epi8(shuffle, _mm512_loadu_si512(row[r] + at + size_t{b} * kSamples * kChannels));
          a0[r] = _mm512_dpbusd_epi32(a0[r], samples, d0);
          a1[r] = _mm512_dpbusd_epi32(a1[r], samples, d1);
          a2[r] = _mm512_dpbusd_epi32(a2[r], samples, d2);
        }
      }
      for (uint32_t r = 0; r < std::min(kRows, num_rows - y); ++r) {
        uint8_t* to = out + (y + r) * out_stride + size_t{x} * kChannels;
        const __m512i sum = Join(a0[r], a1[r], a2[r]);
        if constexpr (kChannels == 1) {
          *to = ToSample(_mm512_reduce_add_epi32(sum) + kRound);
        } else {  // groups 0 + 2 and 1 + 3, then both, then group 4
          const __m512i two = _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, sum, 6));
          const __m512i four = _mm512_add_epi32(two, _mm512_alignr_epi32(two, two, 3));
          const __m512i all = _mm512_add_epi32(_mm512_add_epi32(four, _mm512_alignr_epi32(sum, sum, 12)), _mm512_set1_epi32(kRound));
          const __m512i shifted = _mm512_max_epi32(_mm512_srai_epi32(all, kWeightBits), _mm512_setzero_si512());
          const int pixel = _mm_cvtsi128_si32(_mm512_cvtusepi32_epi8(shifted));
          std::memcpy(to, &pixel, 3);
        }
      }
    }
  }
}

// The bytes of rows a to d, column by column: 16 columns a vector, in the order that packing undoes.
inline void Interleave(__m512i a, __m512i b, __m512i c, __m512i d, __m512i out[4]) {
  const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
  const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
  out[0] = _mm512_unpacklo_epi16(ab_low, cd_low);
  out[1] = _mm512_unpackhi_epi16(ab_low, cd_low);
  out[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
  out[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
}

void FastVertical(const ResampleKernel& kernel, const uint8_t* in, size_t in_stride, size_t row_bytes, uint8_t* out,
                  PassScratch* scratch) {
  const uint32_t last = kernel.in - 1;
  uint32_t* digits = scratch->Words(3 * size_t{kernel.taps} / 4);
  for (uint32_t y = 0; y < kernel.out; ++y) {
    const uint32_t blocks = (kernel.count[y] + 3) / 4;
    for (uint32_t b = 0; b < blocks; ++b) {
      const Digits split = DigitsOf(&kernel.weights[size_t{y} * kernel.taps + 4 * b]);
      std::copy(split.word, split.word + 3, digits + 3 * b);
    }
    for (size_t x = 0; x < row_bytes; x += 64) {
      __m512i a0[4], a1[4], a2[4];
      for (int i = 0; i < 4; ++i) {
        a0[i] = _mm512_set1_epi32(kRound);
        a1[i] = a2[i] = _mm512_setzero_si512();
      }
      for (uint32_t b = 0; b < blocks; ++b) {
        __m512i row[4], columns[4];
        for (uint32_t i = 0; i < 4; ++i) {  // rows behind the window have weight 0, but must be there
          row[i] = _mm512_loadu_si512(in + std::min(kernel.first[y] + 4 * b + i, last) * in_stride + x);
        }
        Interleave(row[0], row[1], row[2], row[3], columns);
        const __m512i d0 = _mm512_set1_epi32(static_cast<int>(digits[3 * b]));
        const __m512i d1 = _mm512_set1_epi32(static_cast<int>(digits[3 * b + 1]));
        const __m512i d2 = _mm512_set1_epi32(static_cast<int>(digits[3 * b + 2]));
        for (int i = 0; i < 4; ++i) {
          a0[i] = _mm512_dpbusd_epi32(a0[i], columns[i], d0);
          a1[i] = _mm512_dpbusd_epi32(a1[i], columns[i], d1);
          a2[i] = _mm512_dpbusd_epi32(a2[i], columns[i], d2);
        }
      }
      __m512i sum[4];
      for (int i = 0; i < 4; ++i) sum[i] = _mm512_srai_epi32(Join(a0[i], a1[i], a2[i]), kWeightBits);
      const __m512i samples = _mm512_packus_epi16(_mm512_packs_epi32(sum[0], sum[1]), _mm512_packs_epi32(sum[2], sum[3]));
      const size_t left = row_bytes - x;
      _mm512_mask_storeu_epi8(out + y * row_bytes + x, left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1, samples);
    }
  }
}

bool FastHorizontal(const Lanes& lanes, const uint8_t* const* rows, uint32_t num_rows, uint8_t* out, size_t out_stride,
                    PassScratch* scratch) {
  if (!NarrowHorizontal(lanes, rows, num_rows, out, out_stride, scratch)) {
    (lanes.channels == 1 ? WideHorizontal<1> : WideHorizontal<3>)(lanes, rows, num_rows, out, out_stride, scratch);
  }
  return true;
}

HWY_POP_ATTRIBUTES

// -- AVX2 -------------------------------------------------------------------------------------

#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3

// w = 32768 high + low, low from 0 to 32767; of two weights in one word.
struct Digits {
  uint32_t low, high;
};
inline Digits DigitsOf(const int32_t* weights) {
  const auto part = [&](auto of) { return (of(weights[0]) & 0xffffu) | of(weights[1]) << 16; };
  return {part([](int32_t w) { return static_cast<uint32_t>(w & 0x7fff); }),
          part([](int32_t w) { return static_cast<uint32_t>(w >> 15); })};
}

inline __m256i Join(__m256i low, __m256i high) {
  return _mm256_srai_epi32(_mm256_add_epi32(low, _mm256_slli_epi32(high, 15)), kWeightBits);
}

// Two groups of four lanes, each with 16 bytes of its own; false where their samples do not fit.
bool NarrowHorizontal(const Lanes& lanes, const uint8_t* const* rows, uint32_t num_rows, uint8_t* out, size_t out_stride,
                    PassScratch* scratch) {
  const ResampleKernel& kernel = lanes.kernel;
  const uint32_t channels = lanes.channels;
  constexpr uint32_t kLanes = 8;
  uint32_t* bytes = scratch->Words((1 + size_t{kernel.taps}) * kLanes);
  uint32_t* digits = bytes + kLanes;
  for (uint32_t group = 0; group < lanes.count(); group += kLanes) {
    const uint32_t first[2] = {lanes.first(group, 4), lanes.first(group + 4, 4)};
    const uint32_t pairs = (std::max(lanes.samples(group, 4), lanes.samples(group + 4, 4)) + 1) / 2;
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const uint32_t position = lanes.position(group + lane);
      const uint32_t offset = (kernel.first[position] - first[lane / 4]) * channels + lanes.channel(group + lane);
      if (offset + channels >= 16) return false;
      bytes[lane] = 0x80008000u | offset | (offset + channels) << 16;
      for (uint32_t p = 0; p < pairs; ++p) {
        const Digits split = DigitsOf(&kernel.weights[size_t{position} * kernel.taps + 2 * p]);
        digits[(2 * p + 0) * kLanes + lane] = split.low;
        digits[(2 * p + 1) * kLanes + lane] = split.high;
      }
    }
    const __m256i shuffle = _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
    const auto* weights = reinterpret_cast<const __m256i*>(digits);
    for (uint32_t y = 0; y < num_rows; ++y) {
      const uint8_t* at[2] = {rows[y] + size_t{first[0]} * channels, rows[y] + size_t{first[1]} * channels};
      __m256i low = _mm256_set1_epi32(kRound), high = _mm256_setzero_si256();
      for (uint32_t p = 0; p < pairs; ++p) {
        const size_t next = size_t{p} * 2 * channels;
        const __m256i samples = _mm256_shuffle_epi8(
            _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(at[1] + next), reinterpret_cast<const __m128i*>(at[0] + next)),
            shuffle);
        low = _mm256_add_epi32(low, _mm256_madd_epi16(samples, _mm256_load_si256(weights + 2 * p)));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(samples, _mm256_load_si256(weights + 2 * p + 1)));
      }
      const __m256i sum = Join(low, high);
      const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(out + y * out_stride + group), _mm_packus_epi16(words, words));
    }
  }
  return true;
}

// Where a window is wider than that: one output position at a time, four samples of each channel a step: in
// each half lanes 0 to 2 (one channel: lane 0) two samples of a channel.
template <uint32_t kChannels>
void WideHorizontal(const Lanes& lanes, const uint8_t* const* rows, uint32_t num_rows, uint8_t* out, size_t out_stride,
                    PassScratch* scratch) {
  constexpr uint32_t kRows = 4;
  const ResampleKernel& kernel = lanes.kernel;
  const uint32_t steps = kernel.taps / 4;
  auto* digits = reinterpret_cast<Digits*>(scratch->Words(size_t{kernel.out} * steps * 4));  // (out, steps, 2)
  for (uint32_t x = 0; x < kernel.out; ++x) {
    const int32_t* weights = &kernel.weights[size_t{lanes.position(x * kChannels)} * kernel.taps];
    for (uint32_t i = 0; i < steps * 2; ++i) digits[size_t{x} * steps * 2 + i] = DigitsOf(weights + 2 * i);
  }
  const __m256i shuffle = kChannels == 3 ? _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1))
                                         : _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  for (uint32_t y = 0; y < num_rows; y += kRows) {
    const uint8_t* row[kRows];
    for (uint32_t r = 0; r < kRows; ++r) row[r] = rows[std::min(y + r, num_rows - 1)];
    for (uint32_t x = 0; x < kernel.out; ++x) {
      const uint32_t position = lanes.position(x * kChannels);
      const size_t at = size_t{kernel.first[position]} * kChannels;
      __m256i low[kRows], high[kRows];
      for (uint32_t r = 0; r < kRows; ++r) low[r] = high[r] = _mm256_setzero_si256();
      for (uint32_t i = 0; i < (kernel.count[position] + 3) / 4; ++i) {
        const Digits* d = digits + (size_t{x} * steps + i) * 2;
        const auto both = [](uint32_t front, uint32_t back) HWY_ATTR {
          return _mm256_set_m128i(_mm_set1_epi32(static_cast<int>(back)), _mm_set1_epi32(static_cast<int>(front)));
        };
        const __m256i low_digits = both(d[0].low, d[1].low), high_digits = both(d[0].high, d[1].high);
        for (uint32_t r = 0; r < kRows; ++r) {
          const uint8_t* from = row[r] + at + size_t{i} * 4 * kChannels;
          const __m256i samples = _mm256_shuffle_epi8(
              _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(from + 2 * kChannels), reinterpret_cast<const __m128i*>(from)),
              shuffle);
          low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(samples, low_digits));
          high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(samples, high_digits));
        }
      }
      for (uint32_t r = 0; r < std::min(kRows, num_rows - y); ++r) {
        const __m256i halves = _mm256_add_epi32(low[r], _mm256_slli_epi32(high[r], 15));
        const __m128i all = _mm_add_epi32(_mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)),
                                          _mm_set1_epi32(kRound));
        const __m128i words = _mm_packs_epi32(_mm_srai_epi32(all, kWeightBits), _mm_setzero_si128());
        const int pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
        std::memcpy(out + (y + r) * out_stride + size_t{x} * kChannels, &pixel, kChannels);
      }
    }
  }
}

bool FastHorizontal(const Lanes& lanes, const uint8_t* const* rows, uint32_t num_rows, uint8_t* out, size_t out_stride,
                    PassScratch* scratch) {
  if (!NarrowHorizontal(lanes, rows, num_rows, out, out_stride, scratch)) {
    (lanes.channels == 1 ? WideHorizontal<1> : WideHorizontal<3>)(lanes, rows, num_rows, out, out_stride, scratch);
  }
  return true;
}

void FastVertical(const ResampleKernel& kernel, const uint8_t* in, size_t in_stride, size_t row_bytes, uint8_t* out,
                  PassScratch*) {
  const uint32_t last = kernel.in - 1;
  const __m256i zero = _mm256_setzero_si256();
  const size_t whole = row_bytes / 32 * 32;
  for (uint32_t y = 0; y < kernel.out; ++y) {
    const int32_t* weights = &kernel.weights[size_t{y} * kernel.taps];
    const uint32_t pairs = (kernel.count[y] + 1) / 2;
    for (size_t x = 0; x < whole; x += 32) {
      __m256i low[4], high[4];
      for (int i = 0; i < 4; ++i) {
        low[i] = _mm256_set1_epi32(kRound);
        high[i] = zero;
      }
      for (uint32_t p = 0; p < pairs; ++p) {
        const Digits digits = DigitsOf(weights + 2 * p);
        const uint32_t row = kernel.first[y] + 2 * p;
        const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + row * in_stride + x));
        const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + std::min(row + 1, last) * in_stride + x));
        const __m256i front = _mm256_unpacklo_epi8(a, b), back = _mm256_unpackhi_epi8(a, b);
        const __m256i columns[4] = {_mm256_unpacklo_epi8(front, zero), _mm256_unpackhi_epi8(front, zero),
                                    _mm256_unpacklo_epi8(back, zero), _mm256_unpackhi_epi8(back, zero)};
        const __m256i low_digits = _mm256_set1_epi32(static_cast<int>(digits.low));
        const __m256i high_digits = _mm256_set1_epi32(static_cast<int>(digits.high));
        for (int i = 0; i < 4; ++i) {
          low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(columns[i], low_digits));
          high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(columns[i], high_digits));
        }
      }
      __m256i sum[4];
      for (int i = 0; i < 4; ++i) sum[i] = Join(low[i], high[i]);
      const __m256i samples = _mm256_packus_epi16(_mm256_packs_epi32(sum[0], sum[1]), _mm256_packs_epi32(sum[2], sum[3]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + y * row_bytes + x), samples);
    }
  }
  PlainVertical(kernel, in, in_stride, whole, row_bytes, row_bytes, out);
}

#else

bool FastHorizontal(const Lanes&, const uint8_t* const*, uint32_t, uint8_t*, size_t, PassScratch*) { return false; }

void FastVertical(const ResampleKernel& kernel, const uint8_t* in, size_t in_stride, size_t row_bytes, uint8_t* out,
                  PassScratch*) {
  PlainVertical(kernel, in, in_stride, 0, row_bytes, row_bytes, out);
}

#endif

void Horizontal(const ResampleKernel& kernel, uint32_t channels, bool flip, const uint8_t* const* rows,
                uint32_t num_rows, uint8_t* out, size_t out_stride, PassScratch* scratch) {
  const Lanes lanes = {kernel, channels, flip};
  if (!FastHorizontal(lanes, rows, num_rows, out, out_stride, scratch)) {
    PlainHorizontal(lanes, rows, num_rows, out, out_stride);
  }
}

void Vertical(const ResampleKernel& kernel, const uint8_t* in, size_t in_stride, size_t row_bytes, uint8_t* out,
              PassScratch* scratch) {
  FastVertical(kernel, in, in_stride, row_bytes, out, scratch);
}

}  // namespace fkdb::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fkdb {

HWY_EXPORT(Horizontal);
HWY_EXPORT(Vertical);

uint32_t* PassScratch::Words(size_t count) {
  lines_.resize(std::max(lines_.size(), (count + 15) / 16));
  return lines_[0].words;
}

void HorizontalPass(const ResampleKernel& kernel, uint32_t channels, bool flip, const uint8_t* const* rows,
                    uint32_t num_rows, uint8_t* out, size_t out_stride, PassScratch* scratch) {
  HWY_DYNAMIC_DISPATCH(Horizontal)(kernel, channels, flip, rows, num_rows, out, out_stride, scratch);
}

void VerticalPass(const ResampleKernel& kernel, const uint8_t* in, size_t in_stride, size_t row_bytes, uint8_t* out,
                  PassScratch* scratch) {
  HWY_DYNAMIC_DISPATCH(Vertical)(kernel, in, in_stride, row_bytes, out, scratch);
}

}  // namespace fkdb
#endif
