// SPDX-License-Identifier: Apache-2.0
// Where the kernels can run, each a type for the typed tests: the CPU's code; the GPU's bodies by threads of this process,
// one a lane, that meet at barriers (under TSan also a check for races between lanes); the GPU.
#pragma once

#include <barrier>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "cuda/gpu_ops.h"
#include "cuda/label_ops.h"
#include "cuda/tile_row.h"
#include "tests/simd_targets.h"

namespace fkdb::test {

// A group of the kernels (lane_group.h), of threads.
template <int kLanes>
class ThreadLanes {
 public:
  using Accumulator = float;

  static int lane() { return lane_; }
  static constexpr int size() { return kLanes; }
  static void Meet() { meeting_.arrive_and_wait(); }
  static float Max(float value) {
    return Combine(value, [](float a, float b) { return fmaxf(a, b); });
  }
  template <class... Values>
  static void Sum(Values&... values) {
    ((values = Combine(values, [](float a, float b) { return a + b; })), ...);
  }

  // body, by all lanes.
  static void Run(const std::function<void()>& body) {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kLanes; ++i) {
      threads.emplace_back([&body, i] {
        lane_ = i;
        body();
      });
    }
  }

 private:
  template <class Operation>
  static float Combine(float value, Operation operation) {
    values_[lane_] = value;
    meeting_.arrive_and_wait();
    float all = values_[0];
    for (int i = 1; i < kLanes; ++i) all = operation(all, values_[i]);
    meeting_.arrive_and_wait();
    return all;
  }

  static inline thread_local int lane_ = 0;
  static inline float values_[kLanes];
  static inline std::barrier<> meeting_{kLanes};
};

template <class T>
struct Cpu {
  using Number = T;
  static constexpr uint32_t kMostIndicesInPlace = UINT32_MAX;  // of labels whose gradient may take the logits' place
  static bool Takes(const SparseLabels&) { return true; }
  template <class Body>
  static void ForEachWay(Body body) {
    ForEachSimdTarget(body);
  }
  static void Recover(const SparseLabels& labels, int64_t rows, float tau, Number* dense) { RecoverDense(labels, rows, tau, dense); }
  static void Loss(const SparseLabels& labels, int64_t rows, const LossArguments& arguments, const Number* logits, float* losses,
                   Number* gradient) {
    SoftCrossEntropy(labels, 0, rows, arguments, logits, losses, gradient);
  }
};

// The GPU's bodies by kLanes threads, each with kNumbers registers of a tile.
template <class T, int kLanes, int kNumbers, bool kOneTile>
struct Lanes {
  using Number = T;
  using Group = ThreadLanes<kLanes>;
  static constexpr uint32_t kMostIndicesInPlace = kLanes;
  template <bool kDense>
  using Row = TileRow<Number, Group, kNumbers, kOneTile, kDense>;
  static bool Takes(const SparseLabels& labels) {
    // Threads take a thousand times a lane's time: many of them only rows that few cannot hold, and tiles no longer ones
    // than it takes.
    const auto most = static_cast<uint32_t>(Row<false>::kCapacity);
    if (!kOneTile) return labels.num_classes <= 1200;
    return labels.num_classes <= most && labels.num_classes * 20 > most;
  }
  template <class Body>
  static void ForEachWay(Body body) {
    body();
  }
  static void Recover(const SparseLabels& labels, int64_t rows, float tau, Number* dense) {
    const auto with = [&]<bool kDense>(std::bool_constant<kDense>) {
      Group::Run([&] {
        for (int64_t n = 0; n < rows; ++n) {
          Row<kDense> row(nullptr, dense + n * labels.num_classes, labels.num_classes, 1);
          RecoverRow<Group>(labels, n, tau, &row);
        }
      });
    };
    labels.num_indices == 0 ? with(std::true_type{}) : with(std::false_type{});
  }
  static void Loss(const SparseLabels& labels, int64_t rows, const LossArguments& arguments, const Number* logits, float* losses,
                   Number* gradient) {
    const auto with = [&]<bool kDense, bool kVectorsAlone>(std::bool_constant<kDense>, std::bool_constant<kVectorsAlone>) {
      Group::Run([&] {
        for (int64_t n = 0; n < rows; ++n) {
          const int64_t at = n * labels.num_classes;
          TileRow<Number, Group, kNumbers, kOneTile, kDense, kVectorsAlone> row(logits + at, gradient == nullptr ? nullptr : gradient + at, labels.num_classes, arguments.temperature);
          const float loss = LossRow<Group>(labels, n, arguments, &row);
          if (Group::lane() == 0) losses[n] = loss;
        }
      });
    };
    if (labels.num_indices == 0) return with(std::true_type{}, std::false_type{});
    if (Row<false>::AreVectorsAlone(logits, gradient, labels.num_classes)) return with(std::false_type{}, std::true_type{});
    with(std::false_type{}, std::false_type{});
  }
};

// Ends a test, or its SetUp, where there is no GPU: skipped, with FKDB_NEED_GPU failed.
#define FKDB_END_WITHOUT_GPU(instead)                                           \
  if (const auto gpu = HaveGpu(); !gpu) {                                       \
    if (std::getenv("FKDB_NEED_GPU") != nullptr) FAIL() << gpu.error().message; \
    GTEST_SKIP() << instead << ": " << gpu.error().message;                     \
  }

// Memory of the GPU with a copy of `host`, that begins as far from a 16-byte boundary as it does.
template <class T>
class OnGpu {
 public:
  explicit OnGpu(std::span<T> host) : host_(host), skip_(reinterpret_cast<uintptr_t>(host.data()) % 16) {
    auto bytes = AllocateDevice(skip_ + host.size_bytes());
    EXPECT_TRUE(bytes) << bytes.error().message;
    bytes_ = *std::move(bytes);
    const auto copied = CopyToDevice(bytes_.get() + skip_, reinterpret_cast<const std::byte*>(host.data()), host.size_bytes(), nullptr);
    EXPECT_TRUE(copied) << copied.error().message;
  }
  T* get() const { return host_.data() == nullptr ? nullptr : reinterpret_cast<T*>(bytes_.get() + skip_); }
  void Back() const {
    const auto copied = CopyToHost(reinterpret_cast<std::byte*>(const_cast<std::remove_const_t<T>*>(host_.data())), bytes_.get() + skip_,
                                   host_.size_bytes(), nullptr);
    EXPECT_TRUE(copied) << copied.error().message;
  }

 private:
  std::span<T> host_;
  size_t skip_;
  DeviceBytes bytes_;
};

template <class T>
struct Gpu {
  using Number = T;
  static constexpr uint32_t kMostIndicesInPlace = 768;
  static bool Takes(const SparseLabels&) { return true; }
  template <class Body>
  static void ForEachWay(Body body) {
    body();
  }
  static void Recover(const SparseLabels& labels, int64_t rows, float tau, Number* dense) {
    const auto n = static_cast<size_t>(rows);
    const Labels there(labels, n);
    const OnGpu<Number> out(std::span(dense, n * labels.num_classes));
    Check(gpu::RecoverDense(there.labels, rows, tau, out.get(), nullptr));
    out.Back();
  }
  static void Loss(const SparseLabels& labels, int64_t rows, const LossArguments& arguments, const Number* logits, float* losses,
                   Number* gradient) {
    const auto n = static_cast<size_t>(rows), all = n * labels.num_classes;
    const Labels there(labels, n);
    const OnGpu<const Number> in(std::span(logits, all));
    const OnGpu<Number> out(std::span(gradient, gradient == nullptr ? 0 : all));
    const OnGpu<float> of_rows(std::span(losses, n));
    const auto rows_of = [&]<class A>(const A* of) { return OnGpu<const A>(std::span(of, of == nullptr ? 0 : n)); };
    const auto partners = rows_of(arguments.partners);
    const auto lambdas = rows_of(arguments.lambdas);
    const auto scales = rows_of(arguments.row_scales);
    LossArguments on_gpu = arguments;
    on_gpu.partners = partners.get();
    on_gpu.lambdas = lambdas.get();
    on_gpu.row_scales = scales.get();
    const bool in_place = gradient == logits;
    Number* to = gradient == nullptr ? nullptr : in_place ? const_cast<Number*>(in.get()) : out.get();
    Check(gpu::SoftCrossEntropy(there.labels, rows, on_gpu, in.get(), of_rows.get(), to, nullptr));
    of_rows.Back();
    if (in_place) in.Back();
    else if (gradient != nullptr) out.Back();
  }

 private:
  struct Labels {
    OnGpu<const uint32_t> indices;
    OnGpu<const float> values;
    SparseLabels labels;
    Labels(const SparseLabels& host, size_t n)
        : indices(std::span(host.indices, n * host.num_indices)), values(std::span(host.values, n * host.num_values)), labels(host) {
      labels.indices = indices.get();
      labels.values = values.get();
    }
  };
  static void Check(const Result<void>& done) {
    EXPECT_TRUE(done) << done.error().message;
    const auto waited = Wait(nullptr);
    EXPECT_TRUE(waited) << waited.error().message;
  }
};

template <class Place>
constexpr bool kIsGpu = std::is_same_v<Place, Gpu<typename Place::Number>>;

}  // namespace fkdb::test
