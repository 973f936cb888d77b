// SPDX-License-Identifier: Apache-2.0
// What distinguishes two label sets: which images and crops both have, and how far apart the labels of those are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "format/result.h"
#include "reader/image_pairs.h"
#include "reader/reader.h"

namespace fkdb {

// A divergence takes probabilities for no less than this: a hard label's others are 0.
constexpr double kLeastProbability = 1e-7;

// Between labels as RecoverCrop gives them to training, (C) probabilities p of A and q of B; of logits at tau 1. Means over
// the crops.
struct LabelDistances {
  double kl_ab = 0;            // nats: the sum of p log(p / q)
  double kl_ba = 0;            // nats: the sum of q log(q / p)
  double total_variation = 0;  // 0 to 1: half the sum of |p - q|
  double top1_agreement = 0;   // 0 to 1: how many have the same top-1, the class stored first (of all classes' values the largest)

  // Where KL(A || B) is largest; of several the first.
  std::string worst_key;
  uint32_t worst_crop = 0;
  double worst_kl = 0;  // nats
};

struct DiffReport {
  PairCounts images;
  uint64_t crops_a = 0, crops_b = 0;  // of the images in both
  // At the same place of an image's list, with the same box in pixels, flip and operations, and of an image of the same size.
  uint64_t same_crops = 0;
  std::optional<LabelDistances> labels;  // of the same crops
  std::string no_labels;                 // why there is none: other classes, label maps, no such crop
};

// Reads all of the images that both have. Errors: Corruption, Incomplete (stop; a `.partial`); name the file.
Result<DiffReport> DiffLabelSets(const Reader& a, const Reader& b, const PairOptions& options = {});

}  // namespace fkdb
