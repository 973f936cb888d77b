// SPDX-License-Identifier: Apache-2.0
#include "tests/cuda/lazy_gpu.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <utility>

#include "cuda/gpu_ops.h"
#include "cuda/label_ops.h"
#include "cuda/unpack.h"
#include "tests/cuda/crop_bodies.h"

struct CUstream_st {
  std::deque<std::function<void()>> work;  // not yet done
  size_t put = 0, done = 0;
  bool early = false;

  void RunTo(size_t end) {
    while (done < end) {
      const auto next = std::move(work.front());
      work.pop_front();
      ++done;
      next();
    }
  }
};

struct CUevent_st {
  fkdb::GpuStream stream = nullptr;  // null: never recorded
  size_t after = 0;
};

namespace fkdb {
namespace {

bool make_early = false;
size_t bytes_to_device = 0;

CUstream_st* Of(GpuStream stream) {
  static CUstream_st default_stream;
  return stream == nullptr ? &default_stream : stream;
}

Result<void> Put(GpuStream stream, std::function<void()> work) {
  CUstream_st* on = Of(stream);
  on->work.push_back(std::move(work));
  ++on->put;
  if (on->early) on->RunTo(on->put);
  return {};
}

// Freed memory is kept for a while: work that comes too late is found out.
std::map<std::byte*, size_t> device_sizes;
std::deque<std::pair<std::unique_ptr<std::byte[]>, size_t>> freed;
size_t freed_bytes = 0;
constexpr size_t kMostFreedBytes = size_t{128} << 20;
size_t late_uses = 0;

Result<void> PutCopy(std::byte* to, const std::byte* from, size_t bytes, GpuStream stream) {
  return Put(stream, [=] {
    test::LazyGpu::Use(to);
    test::LazyGpu::Use(from);
    std::memcpy(to, from, bytes);
  });
}

}  // namespace

void test::LazyGpu::MakeStreamsEarly(bool early) { make_early = early; }
void test::LazyGpu::Enqueue(GpuStream stream, std::function<void()> work) { (void)Put(stream, std::move(work)); }
size_t test::LazyGpu::BytesToDevice() { return bytes_to_device; }
void test::LazyGpu::Use(const void* memory) {
  const auto* bytes = static_cast<const std::byte*>(memory);
  late_uses += std::any_of(freed.begin(), freed.end(), [&](const auto& f) { return f.first.get() <= bytes && bytes < f.first.get() + f.second; });
}
size_t test::LazyGpu::LateUses() { return late_uses; }

bool HasGpuKernels() { return true; }
Result<void> HaveGpu() { return {}; }
Result<void> UseGpu(int) { return {}; }
Result<GpuInfo> CurrentGpu() { return GpuInfo{"none, lazily", 1 << 20}; }
void DeviceFree::operator()(std::byte* bytes) const {
  const size_t size = device_sizes.extract(bytes).mapped();
  freed.emplace_back(bytes, size);
  freed_bytes += size;
  for (; freed_bytes > kMostFreedBytes; freed.pop_front()) freed_bytes -= freed.front().second;
}
void PinnedFree::operator()(std::byte* bytes) const { delete[] bytes; }
Result<DeviceBytes> AllocateDevice(size_t bytes) {
  auto* memory = new std::byte[bytes];
  device_sizes[memory] = bytes;
  return DeviceBytes(memory);
}
Result<PinnedBytes> AllocatePinned(size_t bytes) { return PinnedBytes(new std::byte[bytes]); }

void StreamDestroy::operator()(GpuStream stream) const {
  stream->RunTo(stream->put);
  delete stream;
}
Result<OwnedStream> MakeStream() {
  OwnedStream stream(new CUstream_st);
  stream->early = make_early;
  return stream;
}

void GpuEvent::Destroy::operator()(CUevent_st* event) const { delete event; }
Result<GpuEvent> GpuEvent::Make(bool) {
  GpuEvent event;
  event.event_.reset(new CUevent_st);
  return event;
}
Result<void> GpuEvent::Record(GpuStream stream) {
  *event_ = {Of(stream), Of(stream)->put};
  return {};
}
Result<void> GpuEvent::MakeWait(GpuStream stream) const {
  return Put(stream, [moment = *event_] {
    if (moment.stream != nullptr) moment.stream->RunTo(moment.after);
  });
}
Result<void> GpuEvent::Wait() const {
  if (event_->stream != nullptr) event_->stream->RunTo(event_->after);
  return {};
}
Result<float> GpuEvent::MillisecondsSince(const GpuEvent&) const { return 1.0f; }

Result<void> CopyToDevice(std::byte* device, const std::byte* host, size_t bytes, GpuStream stream) {
  bytes_to_device += bytes;
  return PutCopy(device, host, bytes, stream);
}
Result<void> CopyToHost(std::byte* host, const std::byte* device, size_t bytes, GpuStream stream) {
  return PutCopy(host, device, bytes, stream);
}
Result<void> CopyOnDevice(std::byte* to, const std::byte* from, size_t bytes, GpuStream stream) {
  return PutCopy(to, from, bytes, stream);
}
Result<void> Wait(GpuStream stream) {
  Of(stream)->RunTo(Of(stream)->put);
  return {};
}

namespace gpu {

template <class Number>
Result<void> RecoverDense(const SparseLabels& labels, int64_t rows, float tau, Number* dense, GpuStream stream) {
  return Put(stream, [=] { fkdb::RecoverDense(labels, rows, tau, dense); });
}
template <class Number>
Result<void> SoftCrossEntropy(const SparseLabels& labels, int64_t rows, const LossArguments& arguments, const Number* logits, float* losses,
                              Number* gradient, GpuStream stream) {
  return Put(stream, [=] { fkdb::SoftCrossEntropy(labels, 0, rows, arguments, logits, losses, gradient); });
}
template <class Number>
Result<void> CropImages(const CropFormat& format, const ImageCrop* crops, const CropGroup& group, uint8_t* between, Number* out,
                        GpuStream stream) {
  return Put(stream, [=] {
    for (const void* used : {static_cast<const void*>(crops), static_cast<const void*>(crops[group.first].pixels), static_cast<const void*>(between),
                             static_cast<const void*>(out)}) {
      test::LazyGpu::Use(used);
    }
    test::RunCropBodies(format, crops, group, between, out);
  });
}
Result<void> UnpackLabels(const LabelSpec& spec, const std::byte* indices, const std::byte* values, int64_t rows, uint32_t* out_indices,
                          float* out_values, GpuStream stream) {
  return Put(stream, [=] { fkdb::UnpackLabels(spec, indices, values, static_cast<size_t>(rows), out_indices, out_values); });
}

FKDB_FOR_EACH_NUMBER(FKDB_INSTANTIATE_GPU_OPS)
FKDB_FOR_EACH_NUMBER(FKDB_INSTANTIATE_GPU_CROPS)

}  // namespace gpu
}  // namespace fkdb
