// SPDX-License-Identifier: Apache-2.0
#include "trainer/device_batches.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>

#include "cuda/gpu_ops.h"
#include "cuda/label_ops.h"
#include "trainer/device.h"

namespace fkdb {

Result<DeviceBatches> DeviceBatches::Make(const DataSet& data, const Supervision& supervision, LoaderConfig config, c10::Device device) {
  const std::array<int64_t, 3> shape = {data.channels(), config.input.height, config.input.width};
  std::optional<CropFormat> crops;
  if (!config.crop) {
    if (!device.is_cuda()) return Fail(ErrorCode::kInvalidArgument, "crops are made on a GPU only where one trains");
    FKDB_ASSIGN(crops, GpuFeed::FormatOf(config.input));
  }
  if (device.is_cuda()) {
    config.memory = GpuFeed::Memory(device.index());
    config.expand = false;
  }
  FKDB_ASSIGN(auto loader, BatchLoader::Make(data, supervision, std::move(config)));
  DeviceBatches batches(std::move(loader), device, shape);
  if (device.is_cuda()) {
    const c10::DeviceGuard guard(device);
    FKDB_ASSIGN(GpuFeed feed, GpuFeed::Make(batches.loader_.get(), crops));
    batches.feed_.emplace(std::move(feed));
  }
  return batches;
}

Result<const DeviceBatches::Batch*> DeviceBatches::Next() {
  FKDB_TRY(feed_ ? OnGpu() : OnCpu());
  return batch_.host == nullptr ? nullptr : &batch_;
}

void DeviceBatches::Prefetch() {
  if (!feed_) return;
  const c10::DeviceGuard guard(device_);
  feed_->Prefetch();
}

Result<void> DeviceBatches::OnCpu() {
  FKDB_ASSIGN(TrainBatch* const host, loader_->Next());
  batch_.host = host;
  if (host == nullptr) return {};
  batch_.inputs = at::from_blob(host->inputs.data(), {static_cast<int64_t>(host->labels.size()), shape_[0], shape_[1], shape_[2]}, at::kFloat);
  batch_.labels = SparseLabelsOf(host->labels.spec(), host->arrays.indices.data(), host->arrays.values.data());
  return {};
}

Result<void> DeviceBatches::OnGpu() {
  const c10::DeviceGuard guard(device_);
  const GpuStream stream = CurrentStream(device_);
  FKDB_ASSIGN(const GpuFeed::Batch* const there, feed_->Next(stream));
  batch_.host = there == nullptr ? nullptr : there->host;
  if (there == nullptr) return {};
  const LabelSpec& spec = there->host->labels.spec();
  const auto rows = static_cast<int64_t>(there->host->labels.size());
  const auto options = at::TensorOptions().device(device_);
  batch_.inputs = at::from_blob(const_cast<float*>(there->inputs), {rows, shape_[0], shape_[1], shape_[2]}, options.dtype(at::kFloat));
  batch_.indices = at::empty({rows, spec.num_indices()}, options.dtype(at::kInt));
  batch_.values = at::empty({rows, spec.num_values()}, options.dtype(at::kFloat));
  auto* indices = reinterpret_cast<uint32_t*>(batch_.indices.data_ptr<int32_t>());
  auto* values = batch_.values.data_ptr<float>();
  FKDB_TRY(gpu::UnpackLabels(spec, there->indices, there->values, rows, indices, values, stream));
  batch_.labels = SparseLabelsOf(spec, indices, values);
  return {};
}

}  // namespace fkdb
