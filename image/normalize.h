// SPDX-License-Identifier: Apache-2.0
// 8-bit samples to a network's input: (x / 255 - mean) / std as float32 or bfloat16, or the samples
// themselves; channels first or last.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/result.h"

namespace fkdb {

struct Normalization {
  std::vector<double> mean;  // (channels), of values in 0 to 1
  std::vector<double> std;   // (channels)
};

// ImageNet's for 3 channels; for 1 the averages of its three.
Normalization DefaultNormalization(uint32_t channels);

enum class SampleType {
  kFloat32,
  kBf16,   // the float32 rounded to nearest even
  kUint8,  // not normalized: for those who do that on their device
};

struct TensorFormat {
  SampleType type = SampleType::kFloat32;
  bool channels_last = false;  // (height, width, channels) instead of (channels, height, width)

  size_t sample_bytes() const { return type == SampleType::kFloat32 ? 4 : type == SampleType::kBf16 ? 2 : 1; }
};

class Normalizer {
 public:
  // mean, std: (channels), 1 or 3, of values in 0 to 1; std positive. Errors: InvalidArgument.
  static Result<Normalizer> Make(std::span<const double> mean, std::span<const double> std);

  uint32_t channels() const { return static_cast<uint32_t>(channels_.size()); }
  // pixels (count, channels) interleaved -> out (channels, count). The float32 operations of
  // torchvision's to_tensor and normalize, in their order: the same bits.
  void Run(const uint8_t* pixels, size_t count, float* out) const { Run(pixels, count, {}, out); }
  // The same in any format: out has count * channels samples, aligned as they need.
  void Run(const uint8_t* pixels, size_t count, TensorFormat format, void* out) const;

  struct Channel {
    float mean, std;
    std::array<float, 256> table;  // of each sample
  };
  // Whether vector arithmetic gives the tables' bits, which is then faster than looking them up.
  bool vectorized() const { return vectorized_; }

 private:
  bool ComputesTheTables() const;

  std::vector<Channel> channels_;
  bool vectorized_ = false;
};

}  // namespace fkdb
