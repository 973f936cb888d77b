// SPDX-License-Identifier: Apache-2.0
// Internal to Sha256Many: SHA-256 of several messages at a time, one in each lane of a vector. For processors without
// instructions for SHA, on which libcrypto's takes 8 to 11 cycles a byte. sha256_lanes.cc is compiled once each for newer ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fkdb {

struct LaneMessage {
  const uint8_t* bytes;
  size_t size;
};

// hashes: 32 bytes each. As many messages as the vector has lanes.
using Sha256LaneFunction = void(const LaneMessage* messages, uint8_t* hashes);
Sha256LaneFunction Sha256LanesAvx2;    // 8
Sha256LaneFunction Sha256LanesAvx512;  // 16

}  // namespace fkdb
