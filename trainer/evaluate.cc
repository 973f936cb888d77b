// SPDX-License-Identifier: Apache-2.0
#include "trainer/evaluate.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "image/ordered_queue.h"

namespace fkdb {
namespace {

constexpr size_t kBatch = 256;

struct Batch {
  std::vector<float> inputs;
  int64_t images = 0;
};

Result<void> AddImage(const DataSet& data, uint64_t ordinal, const InputSpec& input, const EvaluationView& view,
                      const Normalizer& normalizer, Batch* batch) {
  FKDB_ASSIGN(const Image image, data.Load(ordinal));
  const size_t samples = size_t{input.height} * input.width * image.channels;
  std::vector<uint8_t> pixels;
  if (view.resize == 0) {
    if (image.height != input.height || image.width != input.width) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("image '{}' is {} x {}, the input {} x {}", data.keys()[ordinal], image.width,
                              image.height, input.width, input.height));
    }
    pixels = image.pixels;
  } else {
    pixels.resize(samples);
    ResizeAndCenterCrop(image, view.resize, view.crop, input.interpolation, input.pass_order, pixels.data());
  }
  const size_t at = batch->inputs.size();
  batch->inputs.resize(at + samples);
  normalizer.Run(pixels.data(), samples / image.channels, batch->inputs.data() + at);
  ++batch->images;
  return {};
}

}  // namespace

Result<std::optional<std::vector<Top5>>> Predict(Model& model, const DataSet& data, std::span<const uint64_t> images, const InputSpec& input,
                                                 const EvaluationView& view, c10::Device device, int workers, const PredictHooks& hooks) {
  FKDB_ASSIGN(const Normalizer normalizer, Normalizer::Make(input.mean, input.std));
  InputSpec seen = input;
  if (view.resize != 0) seen.height = seen.width = view.crop;

  OrderedQueue<Result<Batch>> queue(0, (images.size() + kBatch - 1) / kBatch, static_cast<uint64_t>(workers) + 2);
  const auto work = [&](uint64_t piece) -> Result<Batch> {
    Batch batch;
    const size_t end = std::min(images.size(), (piece + 1) * kBatch);
    for (size_t i = piece * kBatch; i < end; ++i) FKDB_TRY(AddImage(data, images[i], seen, view, normalizer, &batch));
    return batch;
  };
  std::vector<std::jthread> threads;
  const struct Closer {
    OrderedQueue<Result<Batch>>& queue;
    ~Closer() { queue.Close(); }  // before the threads are joined
  } closer{queue};
  FKDB_TRY(StartThreads(workers, [&] { WorkThrough(&queue, work); }, &threads));

  model.eval();
  const torch::NoGradGuard no_grad;
  std::vector<Top5> predicted;
  predicted.reserve(images.size());
  while (!queue.finished()) {
    if (hooks.stop != nullptr && *hooks.stop) return std::optional<std::vector<Top5>>();
    auto taken = queue.Take(std::chrono::milliseconds(100));
    if (!taken) continue;
    FKDB_ASSIGN(Batch batch, std::move(*taken));
    const torch::Tensor x = torch::from_blob(batch.inputs.data(), {batch.images, data.channels(), seen.height, seen.width}, torch::kFloat32);
    const torch::Tensor logits = model.forward(x.to(device)).to(torch::kCPU);
    const torch::Tensor best = std::get<1>(logits.topk(std::min<int64_t>(5, logits.size(1)), 1)).contiguous();
    const auto* classes = best.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < batch.images; ++i, classes += best.size(1)) {
      Top5& top = predicted.emplace_back();
      top.fill(-1);
      for (int64_t k = 0; k < best.size(1); ++k) top[static_cast<size_t>(k)] = static_cast<int32_t>(classes[k]);
    }
    if (hooks.progress) hooks.progress(predicted.size());
  }
  return std::optional(std::move(predicted));
}

Result<std::optional<Accuracy>> Evaluate(Model& model, const DataSet& data, const InputSpec& input,
                                         const EvaluationView& view, c10::Device device, int workers,
                                         const std::atomic<bool>* stop, const Shard& shard) {
  std::vector<uint64_t> images;
  uint64_t all = 0;
  for (uint64_t i = 0; i < data.size(); ++i) {
    if (data.class_index(i) >= 0 && all++ % shard.ranks == shard.rank) images.push_back(i);
  }
  if (all == 0) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("no image of '{}' has a class", data.name()));
  }
  FKDB_ASSIGN(const auto predicted, Predict(model, data, images, input, view, device, workers, {.stop = stop, .progress = {}}));
  if (!predicted) return std::optional<Accuracy>();
  Accuracy accuracy;
  for (size_t i = 0; i < images.size(); ++i) accuracy.Add((*predicted)[i], data.class_index(images[i]));
  return std::optional(accuracy);
}

}  // namespace fkdb
