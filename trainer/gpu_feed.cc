// SPDX-License-Identifier: Apache-2.0
#include "trainer/gpu_feed.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

namespace fkdb {
namespace {

// Crops are made so many at a time that what lies between their passes stays in the GPU's cache.
constexpr uint64_t kBetweenBytes = uint64_t{16} << 20;

}  // namespace

// Room for that many bytes; what was there is lost if it has to grow, and before that `unused` waits until nobody reads it.
template <class Unused>
Result<void> GpuFeed::Buffer::Fit(size_t bytes, Unused unused) {
  if (bytes <= size) return {};
  FKDB_TRY(unused());
  data.reset();
  size = 0;
  FKDB_ASSIGN(data, AllocateDevice(bytes));
  size = bytes;
  return {};
}

struct GpuFeed::Slot {
  GpuStream copies;
  std::unique_ptr<TrainBatch> host;  // null: none, or the last one is over
  PinnedBytes crops;                 // of it: ImageCrop, in the device's memory
  size_t max_crops = 0;
  Buffer inputs, labels;
  GpuEvent copied;  // to the device
  GpuEvent used;    // by the work on the caller's stream
  Batch batch;

  // What is still being copied from must stay.
  ~Slot() {
    if (host) (void)Wait(copies);
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

Result<CropFormat> GpuFeed::FormatOf(const InputSpec& input) {
  if (input.pass_order != PassOrder::kHorizontalFirst) {
    return Fail(ErrorCode::kUnsupported, fmt::format("crops resampled as '{}' are not made on a GPU, only '{}' ones: leave them to the CPU",
                                                     Name(input.pass_order), Name(PassOrder::kHorizontalFirst)));
  }
  CropFormat format = {static_cast<uint32_t>(input.mean.size()), input.height, input.width, input.interpolation == Interpolation::kBicubic,
                       false, {}, {}};
  std::copy_n(input.mean.begin(), std::min(input.mean.size(), std::size(format.mean)), format.mean);
  std::copy_n(input.std.begin(), std::min(input.std.size(), std::size(format.std)), format.std);
  return format;
}

GpuFeed::GpuFeed() = default;
GpuFeed::GpuFeed(GpuFeed&&) = default;
GpuFeed::~GpuFeed() = default;

Result<GpuFeed> GpuFeed::Make(BatchLoader* loader, std::optional<CropFormat> crops) {
  GpuFeed feed;
  feed.loader_ = loader;
  feed.crop_format_ = crops;
  FKDB_ASSIGN(feed.copies_, MakeStream());
  for (auto& slot : feed.slots_) {
    slot = std::make_unique<Slot>();
    slot->copies = feed.copies_.get();
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
  const auto used = [&] { return slot->used.Wait(); };
  const auto labels = std::as_const(slot->host->labels).label_bytes();
  FKDB_TRY(slot->labels.Fit(labels.size(), used));
  if (crop_format_) {
    FKDB_TRY(slot->inputs.Fit(slot->host->labels.size() * crop_format_->samples() * sizeof(float), used));
    FKDB_TRY(MakeCrops(slot));
  } else {
    const auto inputs = std::as_bytes(std::span<const float>(slot->host->inputs));
    FKDB_TRY(slot->inputs.Fit(inputs.size(), used));
    FKDB_TRY(slot->used.MakeWait(copies_.get()));
    FKDB_TRY(Send(inputs, slot->inputs.data.get()));
  }
  FKDB_TRY(Send(labels, slot->labels.data.get()));
  FKDB_TRY(slot->copied.Record(copies_.get()));
  const LabelBatch& there = slot->host->labels;
  slot->batch = {slot->host.get(), reinterpret_cast<const float*>(slot->inputs.data.get()), slot->labels.data.get(),
                 slot->labels.data.get() + (there.values() - there.indices())};
  return {};
}

// The slot's inputs, from the regions of its batch.
Result<void> GpuFeed::MakeCrops(Slot* slot) {
  const TrainBatch& batch = *slot->host;
  const auto idle = [&] { return Wait(copies_.get()); };
  FKDB_TRY(regions_.Fit(batch.regions.bytes(), idle));
  std::byte* to = regions_.data.get();
  for (const auto chunk : batch.regions.chunks()) {
    FKDB_TRY(Send(chunk, to));
    to += chunk.size();
  }

  const size_t num_crops = batch.labels.size();
  if (num_crops > slot->max_crops) {
    FKDB_ASSIGN(slot->crops, AllocatePinned(num_crops * sizeof(ImageCrop)));
    slot->max_crops = num_crops;
  }
  const std::span crops(reinterpret_cast<ImageCrop*>(slot->crops.get()), num_crops);
  for (size_t i = 0; i < batch.labels.images().size(); ++i) {
    const BatchImage& image = batch.labels.images()[i];
    const DecodedRegions::Region& region = batch.regions.regions()[i];
    const auto* pixels = reinterpret_cast<const uint8_t*>(regions_.data.get()) + region.at;
    for (uint32_t n = image.first_crop; n < image.first_crop + image.num_crops; ++n) {
      const PixelBox& box = batch.labels.boxes()[n];
      crops[n] = {pixels, region.box.width * crop_format_->channels, {box.top - region.box.top, box.left - region.box.left, box.height, box.width},
                  batch.labels.flips()[n], 0};
    }
  }
  const std::vector<gpu::CropGroup> groups = gpu::PlaceCrops(crops, *crop_format_, kBetweenBytes);
  FKDB_TRY(crops_.Fit(crops.size_bytes(), idle));
  FKDB_TRY(Send(std::as_bytes(crops), crops_.data.get()));
  uint64_t between_bytes = 0;
  for (const auto& group : groups) between_bytes = std::max(between_bytes, group.between_bytes);
  FKDB_TRY(between_.Fit(between_bytes, idle));

  FKDB_TRY(slot->used.MakeWait(copies_.get()));
  for (const auto& group : groups) {
    FKDB_TRY(gpu::CropImages(*crop_format_, reinterpret_cast<const ImageCrop*>(crops_.data.get()), group,
                             reinterpret_cast<uint8_t*>(between_.data.get()), reinterpret_cast<float*>(slot->inputs.data.get()),
                             copies_.get()));
  }
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
