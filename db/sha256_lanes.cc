// SPDX-License-Identifier: Apache-2.0
// FIPS 180-4, section 6.2, on vectors; compiled for a processor each (FKDB_SHA256_LANES): it includes nothing whose inline
// functions other files share.
#include "db/sha256_lanes.h"

namespace fkdb {
namespace {

constexpr size_t kLanes = FKDB_SHA256_WIDTH;
using Words = uint32_t __attribute__((vector_size(4 * kLanes)));  // one of each lane

constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
constexpr uint32_t kStart[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
constexpr size_t kBlock = 64;

Words Right(Words x, int count) { return x >> count | x << (32 - count); }

// One block of each lane.
void Compress(const uint8_t* const* blocks, Words* state) {
  uint32_t loaded[16][kLanes];
  for (size_t lane = 0; lane < kLanes; ++lane) {
    for (size_t t = 0; t < 16; ++t) {
      uint32_t word;
      __builtin_memcpy(&word, blocks[lane] + 4 * t, 4);
      loaded[t][lane] = __builtin_bswap32(word);
    }
  }
  Words w[16];
  __builtin_memcpy(w, loaded, sizeof w);
  Words a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
#pragma GCC unroll 16
  for (int t = 0; t < 64; ++t) {
    Words& now = w[t & 15];
    if (t >= 16) {
      const Words far = w[(t + 1) & 15], near = w[(t + 14) & 15];
      now += (Right(far, 7) ^ Right(far, 18) ^ far >> 3) + w[(t + 9) & 15] + (Right(near, 17) ^ Right(near, 19) ^ near >> 10);
    }
    const Words t1 = h + (Right(e, 6) ^ Right(e, 11) ^ Right(e, 25)) + (g ^ (e & (f ^ g))) + kRound[t] + now;
    const Words t2 = (Right(a, 2) ^ Right(a, 13) ^ Right(a, 22)) + ((a & b) | (c & (a | b)));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const Words end[8] = {a, b, c, d, e, f, g, h};
  for (int i = 0; i < 8; ++i) state[i] += end[i];
}

}  // namespace

void FKDB_SHA256_LANES(const LaneMessage* messages, uint8_t* hashes) {
  uint8_t tails[kLanes][2 * kBlock] = {};  // the last bytes, a bit, zeros, the length
  size_t whole[kLanes], blocks[kLanes], most = 0;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    const size_t size = messages[lane].size, rest = size % kBlock;
    whole[lane] = size / kBlock;
    blocks[lane] = whole[lane] + (rest + 9 > kBlock ? 2 : 1);
    most = most < blocks[lane] ? blocks[lane] : most;
    if (rest > 0) __builtin_memcpy(tails[lane], messages[lane].bytes + whole[lane] * kBlock, rest);
    tails[lane][rest] = 0x80;
    const uint64_t bits = __builtin_bswap64(uint64_t{size} * 8);
    __builtin_memcpy(tails[lane] + (blocks[lane] - whole[lane]) * kBlock - 8, &bits, 8);
  }
  Words state[8];
  for (int i = 0; i < 8; ++i) state[i] = Words{} + kStart[i];
  for (size_t block = 0; block < most; ++block) {
    const uint8_t* from[kLanes];
    Words running = {};  // all ones in lanes that have this block
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const bool has = block < blocks[lane];
      from[lane] = !has ? tails[lane] : block < whole[lane] ? messages[lane].bytes + block * kBlock : tails[lane] + (block - whole[lane]) * kBlock;
      running[lane] = has ? ~uint32_t{0} : 0;
    }
    Words before[8];
    __builtin_memcpy(before, state, sizeof before);
    Compress(from, state);
    for (int i = 0; i < 8; ++i) state[i] = (state[i] & running) | (before[i] & ~running);
  }
  for (size_t lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const uint32_t word = __builtin_bswap32(state[i][lane]);
      __builtin_memcpy(hashes + lane * 32 + 4 * i, &word, 4);
    }
  }
}

}  // namespace fkdb
