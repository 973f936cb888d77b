// SPDX-License-Identifier: Apache-2.0
// What CUDA answers, as a Result.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "format/result.h"

namespace fkdb {

inline Result<void> CheckCuda(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return {};
  (void)cudaGetLastError();  // it is reported here, and not again by the next launch
  const auto kind = code == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kCuda;
  return Fail(kind, std::string(what) + ": " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ")");
}

// After a launch. What went wrong on the device since is reported by a later call.
inline Result<void> CheckLaunch(const char* kernel) { return CheckCuda(cudaGetLastError(), kernel); }

}  // namespace fkdb
