// SPDX-License-Identifier: Apache-2.0
// What CUDA answers, as a Result.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "format/result.h"

namespace fkdb {

inline Result<void> CheckCuda(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return {};
  const auto kind = code == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kCuda;
  return Fail(kind, std::string(what) + ": " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ")");
}

// After a launch. An error of an earlier one that nobody asked for is reported here, too.
inline Result<void> CheckLaunch(const char* kernel) { return CheckCuda(cudaGetLastError(), kernel); }

}  // namespace fkdb
