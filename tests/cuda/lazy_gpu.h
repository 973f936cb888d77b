// SPDX-License-Identifier: Apache-2.0
// A GPU that is none: gpu.h and gpu_ops.h on the CPU, in the order that is worst for who forgot to wait. Work on a stream
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
};

}  // namespace fkdb::test
