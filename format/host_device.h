// SPDX-License-Identifier: Apache-2.0
// For functions that the CPU and the GPU have in common.
#pragma once

#ifdef __CUDACC__
#define FKDB_HOST_DEVICE __host__ __device__
#else
#define FKDB_HOST_DEVICE
#endif
// The loop that follows is unrolled in the GPU's code, where an array whose every index is known lies in registers.
#ifdef __CUDA_ARCH__
#define FKDB_UNROLL _Pragma("unroll")
#else
#define FKDB_UNROLL
#endif
