// SPDX-License-Identifier: Apache-2.0
// How well a model does on a validation set, and how it is shown the images.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace fkdb {

struct EvaluationView {
  // The shorter side is resized to `resize`, then the centre `crop` x `crop` is taken. 0: images
  // as they are, which must all have the input's size.
  uint32_t resize = 256;
  uint32_t crop = 224;
};

// The classes a model finds likeliest for one image, best first. -1: it has fewer classes.
using Top5 = std::array<int32_t, 5>;

struct Accuracy {
  uint64_t images = 0, right1 = 0, right5 = 0;

  void Add(const Top5& predicted, int32_t class_index) {
    ++images;
    right1 += predicted[0] == class_index ? 1 : 0;
    right5 += std::ranges::find(predicted, class_index) != predicted.end() ? 1 : 0;
  }
  double top1() const { return static_cast<double>(right1) / static_cast<double>(images); }  // share of images, 0 to 1
  double top5() const { return static_cast<double>(right5) / static_cast<double>(images); }
};

}  // namespace fkdb
