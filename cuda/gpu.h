// SPDX-License-Identifier: Apache-2.0
// The GPU's memory, streams and errors, owned; no header of CUDA is needed to use them. In a build without FKDB_CUDA
// all of it is there and says, as an error, that it has no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "format/result.h"

struct CUstream_st;
struct CUevent_st;

namespace fkdb {

// A cudaStream_t. Null is the default stream.
using GpuStream = CUstream_st*;

// Whether this build has FKDB_CUDA.
bool HasGpuKernels();
// Why there is no GPU to be used: the build, the driver, or the machine has none. Errors: Cuda.
Result<void> HaveGpu();
// Makes a device the calling thread's current one: what follows on that thread is of it.
Result<void> UseGpu(int device);
// Of the calling thread's current device.
struct GpuInfo {
  std::string name;  // "NVIDIA H100 80GB HBM3, sm_90"
  size_t l2_bytes;
};
Result<GpuInfo> CurrentGpu();

// Bytes of device memory, or of page-locked host memory; freed when they go. Move-only.
// Errors: ResourceExhausted (with how much was asked), Cuda.
struct DeviceFree {
  void operator()(std::byte* bytes) const;
};
struct PinnedFree {
  void operator()(std::byte* bytes) const;
};
using DeviceBytes = std::unique_ptr<std::byte[], DeviceFree>;
using PinnedBytes = std::unique_ptr<std::byte[], PinnedFree>;
Result<DeviceBytes> AllocateDevice(size_t bytes);
Result<PinnedBytes> AllocatePinned(size_t bytes);

// A stream of its own, which waits for no other.
struct StreamDestroy {
  void operator()(GpuStream stream) const;
};
using OwnedStream = std::unique_ptr<CUstream_st, StreamDestroy>;
Result<OwnedStream> MakeStream();

// A moment in a stream: others wait for it on the device, the host on the host.
class GpuEvent {
 public:
  static Result<GpuEvent> Make(bool timed = false);
  Result<void> Record(GpuStream stream);
  // What is put on `stream` from now on starts after the last Record.
  Result<void> MakeWait(GpuStream stream) const;
  Result<void> Wait() const;
  // Between two timed events that have happened.
  Result<float> MillisecondsSince(const GpuEvent& start) const;

 private:
  struct Destroy {
    void operator()(CUevent_st* event) const;
  };
  std::unique_ptr<CUevent_st, Destroy> event_;
};

// Of `bytes` bytes, in the order of the stream; host memory should be pinned, and must not change before the copy was made.
Result<void> CopyToDevice(std::byte* device, const std::byte* host, size_t bytes, GpuStream stream);
Result<void> CopyToHost(std::byte* host, const std::byte* device, size_t bytes, GpuStream stream);
Result<void> CopyOnDevice(std::byte* to, const std::byte* from, size_t bytes, GpuStream stream);
// Until all that was put on it is done.
Result<void> Wait(GpuStream stream);

}  // namespace fkdb
