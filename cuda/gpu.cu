// SPDX-License-Identifier: Apache-2.0
#include "cuda/gpu.h"

#include "cuda/gpu_check.cuh"

namespace fkdb {
namespace {

template <class Owner, class Allocate>
Result<Owner> AllocateBytes(size_t bytes, const char* of, Allocate allocate) {
  void* memory = nullptr;
  const std::string what = std::to_string(bytes) + " bytes of " + of;
  FKDB_TRY(CheckCuda(allocate(&memory, bytes > 0 ? bytes : 1), what.c_str()));
  return Owner(static_cast<std::byte*>(memory));
}

Result<void> Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, GpuStream stream) {
  return CheckCuda(cudaMemcpyAsync(to, from, bytes, kind, stream), "copying memory");
}

}  // namespace

bool HasGpuKernels() { return true; }

Result<void> HaveGpu() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaSuccess && count > 0) return {};
  (void)cudaGetLastError();  // it was asked for: no later launch shall report it
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) return Fail(ErrorCode::kCuda, "this machine has no CUDA driver");
  if (code == cudaSuccess || code == cudaErrorNoDevice) return Fail(ErrorCode::kCuda, "this machine has no CUDA device");
  return CheckCuda(code, "looking for CUDA devices");
}

Result<void> UseGpu(int device) { return CheckCuda(cudaSetDevice(device), ("device " + std::to_string(device)).c_str()); }

Result<GpuInfo> CurrentGpu() {
  int device = 0;
  cudaDeviceProp properties;
  FKDB_TRY(CheckCuda(cudaGetDevice(&device), "the current device"));
  FKDB_TRY(CheckCuda(cudaGetDeviceProperties(&properties, device), "the current device's properties"));
  return GpuInfo{std::string(properties.name) + ", sm_" + std::to_string(properties.major) + std::to_string(properties.minor),
                 static_cast<size_t>(properties.l2CacheSize)};
}

void DeviceFree::operator()(std::byte* bytes) const { (void)cudaFree(bytes); }
void PinnedFree::operator()(std::byte* bytes) const { (void)cudaFreeHost(bytes); }

Result<DeviceBytes> AllocateDevice(size_t bytes) {
  return AllocateBytes<DeviceBytes>(bytes, "device memory", [](void** memory, size_t size) { return cudaMalloc(memory, size); });
}
Result<PinnedBytes> AllocatePinned(size_t bytes) {
  return AllocateBytes<PinnedBytes>(bytes, "page-locked memory",
                                    [](void** memory, size_t size) { return cudaMallocHost(memory, size); });
}

void StreamDestroy::operator()(GpuStream stream) const { (void)cudaStreamDestroy(stream); }

Result<OwnedStream> MakeStream() {
  cudaStream_t stream = nullptr;
  FKDB_TRY(CheckCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream"));
  return OwnedStream(stream);
}

void GpuEvent::Destroy::operator()(CUevent_st* event) const { (void)cudaEventDestroy(event); }

Result<GpuEvent> GpuEvent::Make(bool timed) {
  cudaEvent_t event = nullptr;
  const unsigned flags = timed ? cudaEventDefault : cudaEventDisableTiming;
  FKDB_TRY(CheckCuda(cudaEventCreateWithFlags(&event, flags), "making an event"));
  GpuEvent made;
  made.event_.reset(event);
  return made;
}

Result<void> GpuEvent::Record(GpuStream stream) { return CheckCuda(cudaEventRecord(event_.get(), stream), "recording an event"); }

Result<void> GpuEvent::MakeWait(GpuStream stream) const {
  return CheckCuda(cudaStreamWaitEvent(stream, event_.get()), "waiting for an event");
}

Result<void> GpuEvent::Wait() const { return CheckCuda(cudaEventSynchronize(event_.get()), "waiting for an event"); }

Result<float> GpuEvent::MillisecondsSince(const GpuEvent& start) const {
  float milliseconds = 0;
  FKDB_TRY(CheckCuda(cudaEventElapsedTime(&milliseconds, start.event_.get(), event_.get()), "the time between events"));
  return milliseconds;
}

Result<void> CopyToDevice(std::byte* device, const std::byte* host, size_t bytes, GpuStream stream) {
  return Copy(device, host, bytes, cudaMemcpyHostToDevice, stream);
}
Result<void> CopyToHost(std::byte* host, const std::byte* device, size_t bytes, GpuStream stream) {
  return Copy(host, device, bytes, cudaMemcpyDeviceToHost, stream);
}
Result<void> CopyOnDevice(std::byte* to, const std::byte* from, size_t bytes, GpuStream stream) {
  return Copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}
Result<void> Wait(GpuStream stream) { return CheckCuda(cudaStreamSynchronize(stream), "waiting for a stream"); }

}  // namespace fkdb
