// SPDX-License-Identifier: Apache-2.0
// A loader's batches in the GPU's memory, one ahead: while a step computes, the next batch crosses the bus on a stream of
// its own, out of the pinned memory that it was made in. If the loader left its crops to a device, they are made there, on
// that stream too. No Torch in it.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "cuda/gpu.h"
#include "cuda/gpu_crops.h"
#include "trainer/batch_loader.h"

namespace fkdb {

// One thread at a time.
class GpuFeed {
 public:
  // Memory for the loader that is fed from: pinned, for the copies of `device`.
  static BatchMemory Memory(int device);
  // How crops of such an input are made on a GPU. Errors: Unsupported (its convention of resampling).
  static Result<CropFormat> FormatOf(const InputSpec& input);

  // Borrows `loader`. Copies are the current device's. crops: of a loader that was made with crop = false. Errors: Cuda.
  static Result<GpuFeed> Make(BatchLoader* loader, std::optional<CropFormat> crops = {});

  // On the device, but for `host`, which says how many and of what kind.
  struct Batch {
    const TrainBatch* host;
    const float* inputs;       // (N, channels, height, width)
    const std::byte* indices;  // compact (format/compact.h)
    const std::byte* values;
  };
  // The next batch, or null after the last. Work that is put on `stream` from now on finds it there, and may use it if
  // it is put there before the next call. Errors: those of the loader; Cuda, ResourceExhausted.
  Result<const Batch*> Next(GpuStream stream);

  // To be called when a batch's work is on its stream, and before anything waits for that: takes the next batch from the
  // loader and sends it on its way. Next does it where this was not called. Its error is Next's.
  void Prefetch();

  GpuFeed(GpuFeed&&);
  ~GpuFeed();

 private:
  // Memory that only grows.
  struct Buffer {
    template <class Unused>
    Result<void> Fit(size_t bytes, Unused unused);

    DeviceBytes data;
    size_t size = 0;
  };
  struct Slot;
  GpuFeed();
  Result<void> Fill(Slot* slot);
  Result<void> MakeCrops(Slot* slot);
  Result<void> Send(std::span<const std::byte> bytes, std::byte* to) { return CopyToDevice(to, bytes.data(), bytes.size(), copies_.get()); }

  BatchLoader* loader_ = nullptr;
  std::optional<CropFormat> crop_format_;
  OwnedStream copies_;
  Buffer regions_, crops_, between_;  // of the batch that copies_ is at
  std::array<std::unique_ptr<Slot>, 2> slots_;
  int current_ = -1;    // the slot that Next gave last
  bool ahead_ = false;  // the other one has been filled
  Result<void> outcome_;
};

}  // namespace fkdb
