// SPDX-License-Identifier: Apache-2.0
// The input path on the GPU: what image/crop_inputs.h does on the host, so that this only decodes. Bit for bit the same, for
// label sets whose resampling is Pillow's horizontal-first.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cuda/crop_kernels.h"
#include "cuda/gpu.h"

namespace fkdb::gpu {

// Crops of a batch that are made at a time.
struct CropGroup {
  uint32_t first, num_crops;
  uint64_t between_bytes;  // what they need between the passes
  uint32_t tallest;        // box, in rows
};
// Groups that need no more than `most_bytes` each, or are of one crop; in order. Sets the crops' `between`.
std::vector<CropGroup> PlaceCrops(std::span<ImageCrop> crops, const CropFormat& format, uint64_t most_bytes);

// Number is float, Half or Bf16. crops (N): of the batch, as they were placed; between (group.between_bytes); out (N,
// channels, height, width) or channels last, of which the group's are made: all on the device, as are the crops' pixels.
// Errors: InvalidArgument (channels, sizes), Cuda.
template <class Number>
Result<void> CropImages(const CropFormat& format, const ImageCrop* crops, const CropGroup& group, uint8_t* between, Number* out,
                        GpuStream stream);

// In whoever defines the template.
#define FKDB_INSTANTIATE_GPU_CROPS(Number) \
  template Result<void> CropImages(const CropFormat&, const ImageCrop*, const CropGroup&, uint8_t*, Number*, GpuStream);

}  // namespace fkdb::gpu
