// SPDX-License-Identifier: Apache-2.0
// A GPU that is none: gpu.h, gpu_ops.h and gpu_crops.h on the CPU, in the order that is worst for who forgot to wait. Work on a stream
// is done when somebody waits for it, and not before; or, on streams of MakeStream if they are early, at once.
#pragma once

#include <functional>

#include "cuda/gpu.h"

namespace fkdb::test {

struct LazyGpu {
  // Of the streams that are made from now on.
  static void MakeStreamsEarly(bool early);
  static void Enqueue(GpuStream stream, std::function<void()> work);
  // Bytes that were copied to the device so far.
  static size_t BytesToDevice();
  // For work to say what device memory it uses; copies and crops do. LateUses: how often that had been freed.
  static void Use(const void* memory);
  static size_t LateUses();
};

}  // namespace fkdb::test
