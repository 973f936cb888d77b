// SPDX-License-Identifier: Apache-2.0
// gpu.h and gpu_ops.h in a build without FKDB_CUDA.
#include "cuda/gpu.h"
#include "cuda/gpu_crops.h"
#include "cuda/gpu_ops.h"

namespace fkdb {
namespace {

tl::unexpected<Error> NoGpu() { return Fail(ErrorCode::kCuda, "this build of fkdb has no CUDA: configure with -DFKDB_CUDA=ON"); }

}  // namespace

bool HasGpuKernels() { return false; }
Result<void> HaveGpu() { return NoGpu(); }
Result<void> UseGpu(int) { return NoGpu(); }
Result<GpuInfo> CurrentGpu() { return NoGpu(); }
void DeviceFree::operator()(std::byte*) const {}
void PinnedFree::operator()(std::byte*) const {}
Result<DeviceBytes> AllocateDevice(size_t) { return NoGpu(); }
Result<PinnedBytes> AllocatePinned(size_t) { return NoGpu(); }
void StreamDestroy::operator()(GpuStream) const {}
Result<OwnedStream> MakeStream() { return NoGpu(); }
void GpuEvent::Destroy::operator()(CUevent_st*) const {}
Result<GpuEvent> GpuEvent::Make(bool) { return NoGpu(); }
Result<void> GpuEvent::Record(GpuStream) { return NoGpu(); }
Result<void> GpuEvent::MakeWait(GpuStream) const { return NoGpu(); }
Result<void> GpuEvent::Wait() const { return NoGpu(); }
Result<float> GpuEvent::MillisecondsSince(const GpuEvent&) const { return NoGpu(); }
Result<void> CopyToDevice(std::byte*, const std::byte*, size_t, GpuStream) { return NoGpu(); }
Result<void> CopyToHost(std::byte*, const std::byte*, size_t, GpuStream) { return NoGpu(); }
Result<void> CopyOnDevice(std::byte*, const std::byte*, size_t, GpuStream) { return NoGpu(); }
Result<void> Wait(GpuStream) { return NoGpu(); }

namespace gpu {

template <class Number>
Result<void> RecoverDense(const SparseLabels&, int64_t, float, Number*, GpuStream) {
  return NoGpu();
}
template <class Number>
Result<void> SoftCrossEntropy(const SparseLabels&, int64_t, const LossArguments&, const Number*, float*, Number*, GpuStream) {
  return NoGpu();
}
template <class Number>
Result<void> CropImages(const CropFormat&, const ImageCrop*, const CropGroup&, uint8_t*, Number*, GpuStream) {
  return NoGpu();
}
Result<void> UnpackLabels(const LabelSpec&, const std::byte*, const std::byte*, int64_t, uint32_t*, float*, GpuStream) {
  return NoGpu();
}

FKDB_FOR_EACH_NUMBER(FKDB_INSTANTIATE_GPU_OPS)
FKDB_FOR_EACH_NUMBER(FKDB_INSTANTIATE_GPU_CROPS)

}  // namespace gpu
}  // namespace fkdb
