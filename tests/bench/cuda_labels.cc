// SPDX-License-Identifier: Apache-2.0
// The kernels on a GPU: microseconds, and the share of the bandwidth that a plain copy reaches on this card. One JSON object a
// line; cuda_labels.py runs it beside Torch. Every launch has its own events, and all are queued behind copies that keep the
// GPU busy meanwhile, so that nothing waits for the host; inputs are rotated through more memory than the second-level
// cache holds; medians after a warm-up.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "cuda/gpu_crops.h"
#include "cuda/gpu_ops.h"
#include "cuda/label_ops.h"
#include "format/bits.h"
#include "format/compact.h"

namespace fkdb {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  int repeats = 50;
  int64_t most_elements = int64_t{1} << 26;  // of a matrix of logits
};

template <class T>
constexpr const char* kType = std::is_same_v<T, float> ? "f32" : std::is_same_v<T, Half> ? "f16" : "bf16";

template <class T>
Result<DeviceBytes> ToDevice(const std::vector<T>& host) {
  const size_t bytes = host.size() * sizeof(T);
  FKDB_ASSIGN(DeviceBytes there, AllocateDevice(bytes));
  FKDB_TRY(CopyToDevice(there.get(), reinterpret_cast<const std::byte*>(host.data()), bytes, nullptr));
  FKDB_TRY(Wait(nullptr));
  return there;
}

class Bench {
 public:
  Bench(const Flags& flags, GpuInfo gpu) : flags_(flags), gpu_(std::move(gpu)) {}

  Result<void> Run() {
    FKDB_ASSIGN(stream_, MakeStream());
    FKDB_TRY(Copy());
    for (const int64_t rows : {256, 1024, 4096, 16384, 65536}) {
      FKDB_TRY(Loss<float>("marginal-smoothing", rows, 1000));
      FKDB_TRY(Loss<Half>("marginal-smoothing", rows, 1000));
      FKDB_TRY(Loss<Bf16>("marginal-smoothing", rows, 1000));
      FKDB_TRY(Recover<float>("marginal-smoothing", rows, 1000));
      FKDB_TRY(Recover<Bf16>("marginal-smoothing", rows, 1000));
    }
    for (const auto& [rows, classes] : {std::pair<int64_t, uint32_t>{65536, 10}, {65536, 100}, {8192, 4096}, {1024, 21841}, {256, 100000}}) {
      FKDB_TRY(Loss<float>("marginal-smoothing", rows, classes));
      FKDB_TRY(Loss<Bf16>("marginal-smoothing", rows, classes));
    }
    FKDB_TRY(Loss<float>("marginal-smoothing", 16384, 1000, /*mixed=*/true));
    FKDB_TRY(Loss<float>("full", 16384, 1000));
    FKDB_TRY(Loss<float>("logits", 16384, 1000));
    FKDB_TRY(Recover<float>("logits", 16384, 1000));
    FKDB_TRY(Unpack(1000000));
    FKDB_TRY(Step(1024));
    return Crops(256, 4);
  }

 private:
  // The median time of launch(turn) in microseconds; `turn` counts up.
  template <class Launch>
  Result<double> Microseconds(Launch launch) {
    constexpr int kWarmUp = 10;
    std::vector<GpuEvent> starts, ends;
    for (int i = 0; i < flags_.repeats; ++i) {
      FKDB_ASSIGN(GpuEvent start, GpuEvent::Make(true));
      FKDB_ASSIGN(GpuEvent end, GpuEvent::Make(true));
      starts.push_back(std::move(start));
      ends.push_back(std::move(end));
    }
    for (int i = 0; busy_from_ && i < kBusyCopies; ++i) {
      FKDB_TRY(CopyOnDevice(busy_to_.get(), busy_from_.get(), busy_bytes_, stream_.get()));
    }
    for (int i = -kWarmUp; i < flags_.repeats; ++i) {
      const auto at = static_cast<size_t>(std::max(0, i));
      FKDB_TRY(starts[at].Record(stream_.get()));
      FKDB_TRY(launch(static_cast<size_t>(i + kWarmUp)));
      FKDB_TRY(ends[at].Record(stream_.get()));
    }
    FKDB_TRY(Wait(stream_.get()));
    std::vector<double> times;
    for (size_t i = 0; i < starts.size(); ++i) {
      FKDB_ASSIGN(const float milliseconds, ends[i].MillisecondsSince(starts[i]));
      times.push_back(milliseconds * 1e3);
    }
    std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 2), times.end());
    return times[times.size() / 2];
  }

  // As many copies of a thing of so many bytes as it takes to be out of the cache when it is its turn again.
  size_t Turns(size_t bytes) const { return std::clamp<size_t>(4 * gpu_.l2_bytes / std::max<size_t>(bytes, 1) + 1, 2, 256); }

  void Print(Json line, double microseconds, double bytes) {
    line["microseconds"] = std::round(microseconds * 100) / 100;
    line["gb_per_s"] = std::round(bytes / microseconds / 1e2) / 10;
    if (copy_ > 0) line["share"] = std::round(bytes / microseconds / copy_ * 1e3) / 1e3;
    fmt::print("{}\n", line.dump());
    std::fflush(stdout);
  }

  Result<void> Copy() {
    const size_t bytes = std::max<size_t>(size_t{1} << 20, static_cast<size_t>(flags_.most_elements) * 4);
    FKDB_ASSIGN(busy_from_, AllocateDevice(bytes));
    FKDB_ASSIGN(busy_to_, AllocateDevice(bytes));
    busy_bytes_ = bytes;
    FKDB_ASSIGN(const double time,
                Microseconds([&](size_t) { return CopyOnDevice(busy_to_.get(), busy_from_.get(), bytes, stream_.get()); }));
    Print({{"what", "copy"}, {"bytes", bytes}, {"gpu", gpu_.name}}, time, 2.0 * static_cast<double>(bytes));
    copy_ = 2.0 * static_cast<double>(bytes) / time;
    return {};
  }

  static LabelSpec SpecOf(const std::string& kind, uint32_t classes) {
    LabelSpec spec;
    spec.kind = *ParseLabelKind(kind);
    spec.num_classes = classes;
    spec.top_k = std::min(classes, 5u);
    if (spec.kind == LabelKind::kLogits) spec.values = ValueEncoding::kF32;
    return *CheckLabelSpec(spec);
  }

  struct Labels {
    DeviceBytes indices, values;
    SparseLabels labels;
  };
  Result<Labels> MakeLabels(const LabelSpec& spec, int64_t rows) {
    std::vector<uint32_t> indices;
    std::vector<float> values;
    for (int64_t n = 0; n < rows; ++n) {
      const auto first = static_cast<uint32_t>(random_() % spec.num_classes);
      for (uint32_t k = 0; k < spec.num_indices(); ++k) indices.push_back((first + k * 37) % spec.num_classes);
      for (uint32_t k = 0; k < spec.num_values(); ++k) {
        const float p = spec.num_indices() > 0 ? 0.5f / static_cast<float>(1u << k) : 1.0f / static_cast<float>(spec.num_classes);
        values.push_back(spec.kind == LabelKind::kLogits ? 10 * static_cast<float>(random_() % 1000) / 1000 : p);
      }
    }
    Labels made;
    FKDB_ASSIGN(made.indices, ToDevice(indices));
    FKDB_ASSIGN(made.values, ToDevice(values));
    made.labels = SparseLabelsOf(spec, reinterpret_cast<const uint32_t*>(made.indices.get()), reinterpret_cast<const float*>(made.values.get()));
    return made;
  }

  template <class Number>
  Result<std::vector<DeviceBytes>> MakeLogits(int64_t count, size_t turns) {
    std::normal_distribution<float> normal(0, 3);
    std::vector<Number> few(1 << 16), all;
    for (Number& number : few) FromFloat(normal(random_), &number);
    while (static_cast<int64_t>(all.size()) < count) {
      all.insert(all.end(), few.begin(), few.begin() + static_cast<ptrdiff_t>(std::min<int64_t>(1 << 16, count - static_cast<int64_t>(all.size()))));
    }
    std::vector<DeviceBytes> made;
    for (size_t i = 0; i < turns; ++i) {
      FKDB_ASSIGN(DeviceBytes bytes, ToDevice(all));
      made.push_back(std::move(bytes));
    }
    return made;
  }

  // Bytes: logits read, gradient written, and of dense labels their values.
  template <class Number>
  Result<void> Loss(const std::string& kind, int64_t rows, uint32_t classes, bool mixed = false) {
    const int64_t count = rows * classes;
    if (count > flags_.most_elements) return {};
    const LabelSpec spec = SpecOf(kind, classes);
    const size_t bytes = static_cast<size_t>(count) * sizeof(Number), turns = Turns(2 * bytes);
    FKDB_ASSIGN(const Labels labels, MakeLabels(spec, rows));
    FKDB_ASSIGN(const std::vector<DeviceBytes> logits, MakeLogits<Number>(count, turns));
    FKDB_ASSIGN(const std::vector<DeviceBytes> gradients, MakeLogits<Number>(count, turns));
    FKDB_ASSIGN(const DeviceBytes losses, AllocateDevice(static_cast<size_t>(rows) * 4));
    LossArguments arguments;
    std::vector<uint32_t> partners;
    for (int64_t n = 0; n < rows; ++n) partners.push_back(static_cast<uint32_t>(rows - 1 - n));
    FKDB_ASSIGN(const DeviceBytes partners_there, ToDevice(partners));
    FKDB_ASSIGN(const DeviceBytes lambdas_there, ToDevice(std::vector<float>(static_cast<size_t>(rows), 0.7f)));
    if (mixed) {
      arguments.partners = reinterpret_cast<const uint32_t*>(partners_there.get());
      arguments.lambdas = reinterpret_cast<const float*>(lambdas_there.get());
    }
    FKDB_ASSIGN(const double time, Microseconds([&](size_t turn) {
      return gpu::SoftCrossEntropy(labels.labels, rows, arguments, reinterpret_cast<const Number*>(logits[turn % turns].get()),
                                   reinterpret_cast<float*>(losses.get()), reinterpret_cast<Number*>(gradients[turn % turns].get()), stream_.get());
    }));
    const double values = spec.num_indices() == 0 ? 4.0 * static_cast<double>(count) : 0;
    Print({{"what", "loss"}, {"kind", kind}, {"mixed", mixed}, {"type", kType<Number>}, {"rows", rows}, {"classes", classes}}, time,
          2.0 * static_cast<double>(bytes) + values);
    return {};
  }

  template <class Number>
  Result<void> Recover(const std::string& kind, int64_t rows, uint32_t classes) {
    const int64_t count = rows * classes;
    if (count > flags_.most_elements) return {};
    const LabelSpec spec = SpecOf(kind, classes);
    const size_t bytes = static_cast<size_t>(count) * sizeof(Number), turns = Turns(bytes);
    FKDB_ASSIGN(const Labels labels, MakeLabels(spec, rows));
    FKDB_ASSIGN(const std::vector<DeviceBytes> dense, MakeLogits<Number>(count, turns));
    FKDB_ASSIGN(const double time, Microseconds([&](size_t turn) {
      return gpu::RecoverDense(labels.labels, rows, 1, reinterpret_cast<Number*>(dense[turn % turns].get()), stream_.get());
    }));
    const double values = spec.num_indices() == 0 ? 4.0 * static_cast<double>(count) : 0;
    Print({{"what", "recover"}, {"kind", kind}, {"type", kType<Number>}, {"rows", rows}, {"classes", classes}}, time,
          static_cast<double>(bytes) + values);
    return {};
  }

  // Compact labels of K = 5, packed: any bits are codes.
  std::vector<std::byte> RandomCompact(const LabelSpec& spec, int64_t rows, size_t* values_at) {
    *values_at = (static_cast<size_t>(rows) * CompactIndexBytes(spec) + 63) / 64 * 64;
    std::vector<std::byte> compact(*values_at + static_cast<size_t>(rows) * CompactValueBytes(spec) + kBitPadding);
    for (std::byte& byte : compact) byte = static_cast<std::byte>(random_());
    for (size_t i = 0; i < static_cast<size_t>(rows) * spec.num_indices(); ++i) {
      PutCompactIndex(spec, compact.data(), i, static_cast<uint32_t>(random_() % spec.num_classes));
    }
    return compact;
  }

  Result<void> Unpack(int64_t rows) {
    rows = std::min(rows, flags_.most_elements);
    const LabelSpec spec = SpecOf("marginal-smoothing", 1000);
    size_t values_at = 0;
    const std::vector<std::byte> batch = RandomCompact(spec, rows, &values_at);
    const size_t count = static_cast<size_t>(rows) * 5, turns = Turns(static_cast<size_t>(rows) * 54);
    std::vector<DeviceBytes> compact, indices, values;
    for (size_t i = 0; i < turns; ++i) {
      FKDB_ASSIGN(DeviceBytes in, ToDevice(batch));
      FKDB_ASSIGN(DeviceBytes out_indices, AllocateDevice(count * 4));
      FKDB_ASSIGN(DeviceBytes out_values, AllocateDevice(count * 4));
      compact.push_back(std::move(in));
      indices.push_back(std::move(out_indices));
      values.push_back(std::move(out_values));
    }
    FKDB_ASSIGN(const double time, Microseconds([&](size_t turn) {
      const size_t i = turn % turns;
      return gpu::UnpackLabels(spec, compact[i].get(), compact[i].get() + values_at, rows, reinterpret_cast<uint32_t*>(indices[i].get()),
                               reinterpret_cast<float*>(values[i].get()), stream_.get());
    }));
    Print({{"what", "unpack"}, {"rows", rows}, {"bytes_a_crop", CompactIndexBytes(spec) + CompactValueBytes(spec)}}, time,
          static_cast<double>(rows) * 54);
    return {};
  }

  // All label work of a training step: over the bus, unpacked, loss and gradient.
  Result<void> Step(int64_t rows) {
    const LabelSpec spec = SpecOf("marginal-smoothing", 1000);
    if (rows * 1000 > flags_.most_elements) return {};
    size_t values_at = 0;
    const std::vector<std::byte> compact = RandomCompact(spec, rows, &values_at);
    FKDB_ASSIGN(const PinnedBytes pinned, AllocatePinned(compact.size()));
    std::copy(compact.begin(), compact.end(), pinned.get());
    FKDB_ASSIGN(const DeviceBytes there, AllocateDevice(compact.size()));
    const size_t count = static_cast<size_t>(rows) * 5;
    FKDB_ASSIGN(const DeviceBytes indices, AllocateDevice(count * 4));
    FKDB_ASSIGN(const DeviceBytes values, AllocateDevice(count * 4));
    FKDB_ASSIGN(const DeviceBytes losses, AllocateDevice(static_cast<size_t>(rows) * 4));
    const size_t turns = Turns(static_cast<size_t>(rows) * 2000 * 4);
    FKDB_ASSIGN(const std::vector<DeviceBytes> logits, MakeLogits<float>(rows * 1000, turns));
    FKDB_ASSIGN(const std::vector<DeviceBytes> gradients, MakeLogits<float>(rows * 1000, turns));
    const SparseLabels labels =
        SparseLabelsOf(spec, reinterpret_cast<const uint32_t*>(indices.get()), reinterpret_cast<const float*>(values.get()));
    FKDB_ASSIGN(const double time, Microseconds([&](size_t turn) -> Result<void> {
      FKDB_TRY(CopyToDevice(there.get(), pinned.get(), compact.size(), stream_.get()));
      FKDB_TRY(gpu::UnpackLabels(spec, there.get(), there.get() + values_at, rows, reinterpret_cast<uint32_t*>(indices.get()),
                                 reinterpret_cast<float*>(values.get()), stream_.get()));
      return gpu::SoftCrossEntropy(labels, rows, LossArguments{}, reinterpret_cast<const float*>(logits[turn % turns].get()),
                                   reinterpret_cast<float*>(losses.get()), reinterpret_cast<float*>(gradients[turn % turns].get()), stream_.get());
    }));
    const double bus = static_cast<double>(compact.size()) / static_cast<double>(rows);
    Print({{"what", "step"}, {"rows", rows}, {"bus_bytes_a_crop", std::round(bus * 100) / 100}}, time, static_cast<double>(rows) * 8000);
    return {};
  }

  // A batch's crops of 500 x 375 images, decoded and on the device, to 224 x 224. Bytes: the boxes' pixels read, inputs written.
  Result<void> Crops(uint32_t images, uint32_t crops_of_each) {
    const CropFormat format = {3, 224, 224, false, false, {0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};
    constexpr uint32_t kHeight = 375, kWidth = 500;
    const uint32_t num_crops = images * crops_of_each;
    if (static_cast<int64_t>(num_crops * format.samples()) > 8 * flags_.most_elements) return {};
    std::vector<uint8_t> pixels(size_t{images} * kHeight * kWidth * 3);
    for (uint8_t& sample : pixels) sample = static_cast<uint8_t>(random_());
    FKDB_ASSIGN(const DeviceBytes pixels_there, ToDevice(pixels));
    std::vector<ImageCrop> crops;
    double bytes = static_cast<double>(num_crops * format.samples()) * sizeof(float);
    for (uint32_t i = 0; i < num_crops; ++i) {
      const auto height = static_cast<uint32_t>(100 + random_() % (kHeight - 100)), width = static_cast<uint32_t>(100 + random_() % (kWidth - 100));
      const PixelBox box = {static_cast<uint32_t>(random_() % (kHeight - height)), static_cast<uint32_t>(random_() % (kWidth - width)), height, width};
      const auto* image = reinterpret_cast<const uint8_t*>(pixels_there.get()) + size_t{i / crops_of_each} * kHeight * kWidth * 3;
      crops.push_back({image, kWidth * 3, box, i % 2, 0});
      bytes += 3.0 * height * width;
    }
    const std::vector<gpu::CropGroup> groups = gpu::PlaceCrops(crops, format, uint64_t{16} << 20);
    FKDB_ASSIGN(const DeviceBytes crops_there, ToDevice(crops));
    uint64_t between_bytes = 0;
    for (const auto& group : groups) between_bytes = std::max(between_bytes, group.between_bytes);
    FKDB_ASSIGN(const DeviceBytes between, AllocateDevice(between_bytes));
    FKDB_ASSIGN(const DeviceBytes out, AllocateDevice(num_crops * format.samples() * sizeof(float)));
    FKDB_ASSIGN(const double time, Microseconds([&](size_t) -> Result<void> {
      for (const auto& group : groups) {
        FKDB_TRY(gpu::CropImages(format, reinterpret_cast<const ImageCrop*>(crops_there.get()), group, reinterpret_cast<uint8_t*>(between.get()),
                                 reinterpret_cast<float*>(out.get()), stream_.get()));
      }
      return {};
    }));
    Print({{"what", "crops"}, {"crops", num_crops}, {"images", images}, {"crops_per_second", std::round(num_crops / time * 1e6)}}, time, bytes);
    return {};
  }

  const Flags& flags_;
  const GpuInfo gpu_;
  OwnedStream stream_;
  std::mt19937_64 random_{1};
  double copy_ = 0;  // bytes a microsecond
  static constexpr int kBusyCopies = 16;  // some milliseconds of the GPU's time
  DeviceBytes busy_from_, busy_to_;
  size_t busy_bytes_ = 0;
};

Result<void> Main(const Flags& flags) {
  FKDB_TRY(HaveGpu());
  FKDB_ASSIGN(GpuInfo gpu, CurrentGpu());
  return Bench(flags, std::move(gpu)).Run();
}

}  // namespace
}  // namespace fkdb

int main(int argc, char** argv) {
  fkdb::Flags flags;
  CLI::App app("fkdb's kernels on this machine's GPU, as JSON lines");
  app.add_option("--repeats", flags.repeats, "Timed launches of each")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--most-elements", flags.most_elements, "Leave out larger matrices of logits")->check(CLI::PositiveNumber)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (const auto done = fkdb::Main(flags); !done) {
    fmt::print(stderr, "cuda_labels: {}\n", done.error().message);
    return 5;
  }
  return 0;
}
