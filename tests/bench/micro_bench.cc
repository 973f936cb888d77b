// SPDX-License-Identifier: Apache-2.0
// What the steps of the input path and the loss cost, one thread each, in memory.
//
//   micro_bench [--benchmark_filter=REGEX] [--benchmark_format=json]
//
// The photo is FKDB_BENCH_PHOTO if that is set (a JPEG), otherwise one that is made up.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "cuda/label_ops.h"
#include "format/record.h"
#include "image/crop_sampler.h"
#include "image/decode.h"
#include "image/normalize.h"
#include "image/resample.h"
#include "tests/format/test_labels.h"

namespace fkdb {
namespace {

constexpr uint32_t kHeight = 375, kWidth = 500, kSize = 224;

std::string Photo() {
  const char* path = std::getenv("FKDB_BENCH_PHOTO");
  if (path == nullptr) return "";
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Image MadeUp() {
  Image image = {kHeight, kWidth, 3, {}};
  for (uint32_t i = 0; i < kHeight * kWidth * 3; ++i) image.pixels.push_back(static_cast<uint8_t>(i * 2654435761u >> 24));
  return image;
}

// Random boxes of ImageNet's recipe, the same in every run.
std::vector<PixelBox> Boxes() {
  std::vector<PixelBox> boxes;
  const auto sampler = CropSampler::Make({});
  for (uint32_t i = 0; i < 64; ++i) boxes.push_back(sampler->Sample(0, 1, i, kWidth, kHeight).box);
  return boxes;
}

void DecodeJpeg500x375(benchmark::State& state) {
  const std::string file = Photo();
  if (file.empty()) return state.SkipWithError("FKDB_BENCH_PHOTO names no JPEG");
  for (auto _ : state) benchmark::DoNotOptimize(DecodeImage(std::as_bytes(std::span(file))));
}
BENCHMARK(DecodeJpeg500x375)->Unit(benchmark::kMicrosecond);

void ResizeCrop(benchmark::State& state) {
  const Image image = MadeUp();
  const std::vector<PixelBox> boxes = Boxes();
  CropResizer resizer(kSize, kSize, state.range(0) == 0 ? Interpolation::kBilinear : Interpolation::kBicubic);
  std::vector<uint8_t> out(kSize * kSize * 3);
  size_t i = 0;
  for (auto _ : state) {
    resizer.Run(image, boxes[i % boxes.size()], i % 2 != 0, out.data());
    ++i;
    benchmark::ClobberMemory();
  }
}
BENCHMARK(ResizeCrop)->ArgName("bicubic")->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

void NormalizeCrop(benchmark::State& state) {
  const auto normalizer = *Normalizer::Make(DefaultNormalization(3).mean, DefaultNormalization(3).std);
  const Image image = MadeUp();
  std::vector<float> out(kSize * kSize * 3);
  for (auto _ : state) {
    normalizer.Run(image.pixels.data(), kSize * kSize, out.data());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(NormalizeCrop)->Unit(benchmark::kMicrosecond);

// range: kind, C, K.
void LossAndGradient(benchmark::State& state) {
  constexpr uint32_t kRows = 1024;
  std::mt19937_64 random(1);
  const LabelSpec spec = test::MakeSpec(static_cast<LabelKind>(state.range(0)), static_cast<uint32_t>(state.range(1)), 5);
  const Record record = test::RandomRecord(spec, kRows, random);
  const SparseLabels labels = SparseLabelsOf(spec, record.indices.data(), record.values.data());
  const std::vector<float> logits = test::RandomLogits(spec.num_classes * kRows, 2, random);
  std::vector<float> losses(kRows), gradient(logits.size());
  for (auto _ : state) {
    SoftCrossEntropy(labels, 0, kRows, {}, logits.data(), losses.data(), gradient.data());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(LossAndGradient)
    ->ArgNames({"kind", "C"})
    ->Args({static_cast<int>(LabelKind::kMarginalSmoothing), 1000})
    ->Args({static_cast<int>(LabelKind::kMarginalSmoothing), 21841})
    ->Args({static_cast<int>(LabelKind::kHard), 1000})
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace fkdb

BENCHMARK_MAIN();
