// SPDX-License-Identifier: Apache-2.0
#include "trainer/gpu_feed.h"

#include <utility>

namespace fkdb {

struct GpuFeed::Slot {
  BatchLoader* loader;
  std::unique_ptr<TrainBatch> host;  // null: none, or the last one is over
  DeviceBytes inputs, labels;
  size_t inputs_size = 0, labels_size = 0;
  GpuEvent copied;  // to the device
  GpuEvent used;    // by the work on the caller's stream
  Batch batch;

  // What is still being copied from must stay.
  ~Slot() {
    if (host) (void)copied.Wait();
  }
};

BatchMemory GpuFeed::Memory(int device) {
  return {[device](size_t bytes) -> void* {
            if (!UseGpu(device)) return nullptr;
            auto pinned = AllocatePinned(bytes);
            return pinned ? pinned->release() : nullptr;
          },
          [](void* bytes) { PinnedFree()(static_cast<std::byte*>(bytes)); }};
}

GpuFeed::GpuFeed() = default;
GpuFeed::GpuFeed(GpuFeed&&) = default;
GpuFeed& GpuFeed::operator=(GpuFeed&&) = default;
GpuFeed::~GpuFeed() = default;

Result<GpuFeed> GpuFeed::Make(BatchLoader* loader) {
  GpuFeed feed;
  feed.loader_ = loader;
  FKDB_ASSIGN(feed.copies_, MakeStream());
  for (auto& slot : feed.slots_) {
    slot = std::make_unique<Slot>();
    slot->loader = loader;
    FKDB_ASSIGN(slot->copied, GpuEvent::Make());
    FKDB_ASSIGN(slot->used, GpuEvent::Make());
  }
  return feed;
}

Result<void> GpuFeed::Fill(Slot* slot) {
  if (slot->host) {
    FKDB_TRY(slot->copied.Wait());  // long since
    loader_->Recycle(std::move(slot->host));
  }
  FKDB_ASSIGN(const TrainBatch* const next, loader_->Next());
  if (next == nullptr) return {};
  slot->host = loader_->Release();
  const auto inputs = std::as_bytes(std::span<const float>(slot->host->inputs));
  const auto labels = std::as_const(slot->host->labels).label_bytes();
  const auto copy = [&](std::span<const std::byte> bytes, DeviceBytes* to, size_t* size) -> Result<void> {
    if (bytes.size() > *size) {
      FKDB_TRY(slot->used.Wait());  // the memory that is given back
      FKDB_ASSIGN(*to, AllocateDevice(bytes.size()));
      *size = bytes.size();
    }
    return CopyToDevice(to->get(), bytes.data(), bytes.size(), copies_.get());
  };
  FKDB_TRY(slot->used.MakeWait(copies_.get()));
  FKDB_TRY(copy(inputs, &slot->inputs, &slot->inputs_size));
  FKDB_TRY(copy(labels, &slot->labels, &slot->labels_size));
  FKDB_TRY(slot->copied.Record(copies_.get()));
  const LabelBatch& there = slot->host->labels;
  slot->batch = {slot->host.get(), reinterpret_cast<const float*>(slot->inputs.get()), slot->labels.get(),
                 slot->labels.get() + (there.values() - there.indices())};
  return {};
}

void GpuFeed::Prefetch() {
  if (ahead_) return;
  outcome_ = Fill(slots_[current_ == 0 ? 1 : 0].get());
  ahead_ = true;
}

Result<const GpuFeed::Batch*> GpuFeed::Next(GpuStream stream) {
  if (current_ >= 0 && slots_[static_cast<size_t>(current_)]->host) {
    FKDB_TRY(slots_[static_cast<size_t>(current_)]->used.Record(stream));
  }
  Prefetch();
  FKDB_TRY(std::exchange(outcome_, {}));
  current_ = current_ == 0 ? 1 : 0;
  ahead_ = false;
  Slot& slot = *slots_[static_cast<size_t>(current_)];
  if (!slot.host) return nullptr;
  FKDB_TRY(slot.copied.MakeWait(stream));
  return &slot.batch;
}

}  // namespace fkdb
