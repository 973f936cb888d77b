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
  std::vector<int64_t> classes;
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
  batch->classes.push_back(data.class_index(ordinal));
  return {};
}

}  // namespace

Result<std::optional<Accuracy>> Evaluate(Model& model, const DataSet& data, const InputSpec& input,
                                         const EvaluationView& view, c10::Device device, int workers,
                                         const std::atomic<bool>* stop, const Shard& shard) {
  FKDB_ASSIGN(const Normalizer normalizer, Normalizer::Make(input.mean, input.std));
  InputSpec seen = input;
  if (view.resize != 0) seen.height = seen.width = view.crop;
  std::vector<uint64_t> images;
  uint64_t all = 0;
  for (uint64_t i = 0; i < data.size(); ++i) {
    if (data.class_index(i) >= 0 && all++ % shard.ranks == shard.rank) images.push_back(i);
  }
  if (all == 0) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("no image of '{}' has a class", data.name()));
  }

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
  Accuracy accuracy = {.images = images.size()};
  while (!queue.finished()) {
    if (stop != nullptr && *stop) return std::optional<Accuracy>();
    auto taken = queue.Take(std::chrono::milliseconds(100));
    if (!taken) continue;
    FKDB_ASSIGN(Batch batch, std::move(*taken));
    const auto n = static_cast<int64_t>(batch.classes.size());
    const torch::Tensor x =
        torch::from_blob(batch.inputs.data(), {n, data.channels(), seen.height, seen.width}, torch::kFloat32);
    const torch::Tensor logits = model.forward(x.to(device)).to(torch::kCPU);
    const torch::Tensor target = torch::from_blob(batch.classes.data(), {n}, torch::kInt64);
    const torch::Tensor best = std::get<1>(logits.topk(std::min<int64_t>(5, logits.size(1)), 1));
    const torch::Tensor hit = best.eq(target.unsqueeze(1));
    accuracy.right1 += static_cast<uint64_t>(hit.select(1, 0).sum().item<int64_t>());
    accuracy.right5 += static_cast<uint64_t>(hit.any(1).sum().item<int64_t>());
  }
  return std::optional(accuracy);
}

}  // namespace fkdb
