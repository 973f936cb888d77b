// SPDX-License-Identifier: Apache-2.0
// The input path on the GPU: what image/crop_inputs.h does on the host, so that this only decodes. Bit for bit the same, for
// label sets whose resampling is Pillow's horizontal-first.
#pragma once

#include <cstdint>
#include <span>

#include "cuda/crop_kernels.h"
#include "cuda/gpu.h"

namespace fkdb::gpu {

// What the crops of a batch need between the passes.
struct CropPlaces {
  uint64_t between_bytes;
  uint32_t tallest;  // box, in rows
};
// Sets their `between`.
CropPlaces PlaceCrops(std::span<ImageCrop> crops, const CropFormat& format);

// Number is float, Half or Bf16. crops (num_crops), between (places.between_bytes), out (num_crops, channels, height,
// width) or channels last: all on the device, as are the crops' pixels. Errors: InvalidArgument (channels, sizes), Cuda.
template <class Number>
Result<void> CropImages(const CropFormat& format, const ImageCrop* crops, uint32_t num_crops, const CropPlaces& places, uint8_t* between,
                        Number* out, GpuStream stream);

// In whoever defines the template.
#define FKDB_INSTANTIATE_GPU_CROPS(Number) \
  template Result<void> CropImages(const CropFormat&, const ImageCrop*, uint32_t, const CropPlaces&, uint8_t*, Number*, GpuStream);

}  // namespace fkdb::gpu
