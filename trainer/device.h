// SPDX-License-Identifier: Apache-2.0
// Includes Torch.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "cuda/gpu.h"
#include "format/result.h"

namespace fkdb {

// "cpu", "cuda" or "cuda:N". Errors: InvalidArgument, Cuda (no such device on this machine).
Result<c10::Device> ParseDevice(const std::string& name);

// Torch's, of the calling thread.
GpuStream CurrentStream(c10::Device device);

}  // namespace fkdb
