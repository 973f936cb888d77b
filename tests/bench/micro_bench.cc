// SPDX-License-Identifier: Apache-2.0
// What the steps of the input path and the loss cost, one thread each, in memory.
//
//   micro_bench [--benchmark_filter=REGEX] [--benchmark_format=json]
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "cuda/label_ops.h"
#include "cuda/unpack.h"
#include "format/bits.h"
#include "format/compact.h"
#include "format/label_map.h"
#include "format/record.h"
#include "format/crop_sampler.h"
#include "image/decode.h"
#include "image/normalize.h"
#include "image/resample.h"
#include "tests/format/test_labels.h"

namespace fkdb {
namespace {

constexpr uint32_t kHeight = 375, kWidth = 500, kSize = 224;

std::string ReadFile(const std::string& path) {
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

// JPEG bytes in memory to m normalized crops of 224 x 224: one image of FKDB_BENCH_PHOTOS (a folder)
// after the other, random boxes.
void ImageToCrops(benchmark::State& state) {
  const char* folder = std::getenv("FKDB_BENCH_PHOTOS");
  if (folder == nullptr) return state.SkipWithError("FKDB_BENCH_PHOTOS names no folder");
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(ReadFile(entry.path().string()));
  }
  if (files.empty()) return state.SkipWithError("no photo in FKDB_BENCH_PHOTOS");
  const auto m = static_cast<uint32_t>(state.range(0));
  const auto sampler = CropSampler::Make({});
  const auto normalizer = *Normalizer::Make(DefaultNormalization(3).mean, DefaultNormalization(3).std);
  CropResizer resizer(kSize, kSize, Interpolation::kBilinear);
  std::vector<uint8_t> pixels(kSize * kSize * 3);
  std::vector<float> out(m * pixels.size());
  std::vector<PixelBox> boxes(m);
  Image image;
  uint32_t n = 0;
  for (auto _ : state) {
    const std::string& file = files[n++ % files.size()];
    const auto region = [&](uint32_t width, uint32_t height) -> Result<PixelBox> {
      for (uint32_t i = 0; i < m; ++i) boxes[i] = sampler->Sample(0, n, i, width, height).box;
      return Around(boxes);
    };
    if (!DecodeRegion(std::as_bytes(std::span(file)), region, &image)) return state.SkipWithError("a broken photo");
    for (uint32_t i = 0; i < m; ++i) {
      resizer.Run(image, boxes[i], i % 2 != 0, pixels.data());
      normalizer.Run(pixels.data(), kSize * kSize, out.data() + i * pixels.size());
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(ImageToCrops)->ArgName("m")->Arg(1)->Arg(4)->Arg(8)->Unit(benchmark::kMicrosecond);

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
// A whole photo of a camera, shrunk to less than a third.
void ShrinkPhoto(benchmark::State& state) {
  Image image = {1500, 2000, 3, {}};
  for (uint32_t i = 0; i < 1500 * 2000 * 3; ++i) image.pixels.push_back(static_cast<uint8_t>(i * 2654435761u >> 24));
  CropResizer resizer(kSize, kSize, state.range(0) == 0 ? Interpolation::kBilinear : Interpolation::kBicubic);
  std::vector<uint8_t> out(kSize * kSize * 3);
  for (auto _ : state) {
    resizer.Run(image, {0, 0, 1500, 2000}, false, out.data());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(ShrinkPhoto)->ArgName("bicubic")->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

BENCHMARK(ResizeCrop)->ArgName("bicubic")->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

void NormalizeCrop(benchmark::State& state) {
  const auto normalizer = *Normalizer::Make(DefaultNormalization(3).mean, DefaultNormalization(3).std);
  const Image image = MadeUp();
  const TensorFormat format = {static_cast<SampleType>(state.range(0)), state.range(1) != 0};
  std::vector<float> out(kSize * kSize * 3);
  for (auto _ : state) {
    normalizer.Run(image.pixels.data(), kSize * kSize, format, out.data());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(NormalizeCrop)->ArgNames({"type", "last"})->ArgsProduct({{0, 1, 2}, {0, 1}})->Unit(benchmark::kMicrosecond);

// Compact labels, as batches hold them, to arrays: the crops of a batch of 1024.
void Unpack(benchmark::State& state) {
  constexpr uint32_t kCrops = 1024;
  std::mt19937_64 random(1);
  const LabelSpec spec = test::MakeSpec(LabelKind::kMarginalSmoothing, 1000, 5, ValueEncoding::kPacked);
  const Record record = test::RandomRecord(spec, kCrops, random);
  const auto bytes = EncodeRecord(spec, record);
  const auto view = RecordView::Open(*bytes, spec);
  std::vector<std::byte> indices(kCrops * CompactIndexBytes(spec)), values(kCrops * CompactValueBytes(spec) + kBitPadding);
  PixelBox box;
  for (uint32_t i = 0; i < kCrops; ++i) {
    if (!view->ReadCompactCrop(i, &box, indices.data() + i * CompactIndexBytes(spec), values.data() + i * CompactValueBytes(spec))) {
      return state.SkipWithError("a broken crop");
    }
  }
  std::vector<uint32_t> all_indices(kCrops * 5);
  std::vector<float> all_values(kCrops * 5);
  for (auto _ : state) {
    UnpackLabels(spec, indices.data(), values.data(), kCrops, all_indices.data(), all_values.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kCrops);
}
BENCHMARK(Unpack)->Unit(benchmark::kMicrosecond);

// ReLabel's maps of ImageNet, and random crops.
void PoolMap(benchmark::State& state) {
  std::mt19937_64 random(1);
  const auto side = static_cast<uint32_t>(state.range(0));
  const LabelSpec spec = test::MakeMapSpec(1000, 5, side, side, ValueEncoding::kF16);
  std::vector<std::vector<std::byte>> records(64);
  std::vector<RecordView> maps;
  for (auto& bytes : records) {
    Record record = test::RandomRecord(spec, spec.num_cells(), random, kWidth, kHeight);
    // Cells of one image name some 40 classes, not any of 1000.
    for (uint32_t i = 0; i < spec.num_cells(); ++i) {
      const uint32_t first = static_cast<uint32_t>(random() % 36);
      for (uint32_t k = 0; k < 5; ++k) record.indices[i * 5 + k] = (first + k) * 25;
    }
    bytes = *EncodeRecord(spec, record);
    maps.push_back(*RecordView::Open(bytes, spec));
  }
  const std::vector<PixelBox> boxes = Boxes();
  std::vector<float> label(1000);
  size_t i = 0;
  for (auto _ : state) {
    if (!PoolLabelMap(maps[i % maps.size()], boxes[i % boxes.size()], label)) return state.SkipWithError("a broken cell");
    ++i;
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(PoolMap)->ArgName("side")->Arg(7)->Arg(15)->Unit(benchmark::kMicrosecond);

// range: kind, C, rows. 64 rows of 1000 stay in the second-level cache, 1024 do not.
void LossAndGradient(benchmark::State& state) {
  const auto rows = static_cast<uint32_t>(state.range(2));
  std::mt19937_64 random(1);
  const LabelSpec spec = test::MakeSpec(static_cast<LabelKind>(state.range(0)), static_cast<uint32_t>(state.range(1)), 5);
  const Record record = test::RandomRecord(spec, rows, random);
  const SparseLabels labels = SparseLabelsOf(spec, record.indices.data(), record.values.data());
  const std::vector<float> logits = test::RandomLogits(spec.num_classes * rows, 2, random);
  std::vector<float> losses(rows), gradient(logits.size());
  for (auto _ : state) {
    SoftCrossEntropy(labels, 0, rows, {}, logits.data(), losses.data(), gradient.data());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(LossAndGradient)
    ->ArgNames({"kind", "C", "rows"})
    ->Args({static_cast<int>(LabelKind::kMarginalSmoothing), 1000, 1024})
    ->Args({static_cast<int>(LabelKind::kMarginalSmoothing), 1000, 64})
    ->Args({static_cast<int>(LabelKind::kMarginalSmoothing), 21841, 1024})
    ->Args({static_cast<int>(LabelKind::kHard), 1000, 1024})
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace fkdb

BENCHMARK_MAIN();
