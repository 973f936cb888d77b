// SPDX-License-Identifier: Apache-2.0
// How far labels of the same crops are from each other and from the images' classes (paper section 3.2, Eq. 2, Fig. 3).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "format/result.h"
#include "reader/image_pairs.h"
#include "reader/reader.h"

namespace fkdb {

// Of x -> y: -sum y log x over all C classes, nats. x is the labels of A or B, y those or the one-hot label of the image's class; of
// y = x it is the entropy. No x is less than kLeastProbability (reader/diff.h).
enum class Target { kA, kB, kClass };
struct CrossEntropies {
  uint64_t crops = 0, crops_with_class = 0;
  std::array<double, 3> a{}, b{};  // [Target]: means over the crops
};

struct ComparisonOfLabels {
  PairCounts images;
  CrossEntropies all;
  struct OfClass {
    uint32_t class_index;
    CrossEntropies means;  // over the crops of its images
  };
  std::vector<OfClass> classes;  // that have images in both, ascending
};

// Of the crops that both have (as diff.h says); where one of them holds label maps, of the other's crops, and what the map says of
// each (PoolLabelMap), but for those that are mixed with another image, of which it says nothing. Labels are those that training recovers; of logits at tau 1. Errors: InvalidArgument (two sets of label maps),
// Mismatch (other classes, no crop in both), those of ForEachPair.
Result<ComparisonOfLabels> CompareLabels(const Reader& a, const Reader& b, const PairOptions& options = {});

}  // namespace fkdb
