// SPDX-License-Identifier: Apache-2.0
// Which images and which of their stored crops a pass over the data set uses, as a pure function of
// (seed, pass): independent of threads and ranks, and continued at any step without replaying.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "format/random.h"
#include "format/result.h"

namespace fkdb {

enum class CropOrder {
  kCycle,  // every stored crop of an image once before any comes twice
  kVisit,  // m of M drawn afresh at each visit, without repetition (as the original does)
};

Result<CropOrder> ParseCropOrder(std::string_view name);  // "cycle", "visit"

// The image order of one pass: a permutation of [0, num_images), O(1) memory.
Permutation ImageOrder(uint64_t num_images, uint64_t seed, uint64_t pass);

// The m = crops.size() crops that image `image` (any number that names it for the whole training:
// its ordinal) gives at its visit in pass `pass`; each is below num_crops >= 1.
//
// kCycle needs to know how many crops of the image earlier passes have used: `used_before`.
// Where m does not divide num_crops, a visit ends one round and begins the next, and may show a crop
// of both; so does every visit with m > num_crops.
void SelectCrops(CropOrder order, uint64_t seed, uint64_t pass, uint64_t image, uint32_t num_crops,
                 uint64_t used_before, std::span<uint32_t> crops);

}  // namespace fkdb
