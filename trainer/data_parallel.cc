// SPDX-License-Identifier: Apache-2.0
#include "trainer/data_parallel.h"

#include <fmt/format.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <torch/types.h>

#include <cstring>
#include <string_view>
#include <utility>

#include "trainer/c10d_store.h"
#include "trainer/models.h"

namespace fkdb {
namespace {

using c10d::ProcessGroup;

constexpr std::chrono::minutes kPatience{10};  // with one that still reads its first images, or writes a checkpoint

c10::intrusive_ptr<ProcessGroup> GroupOf(const c10::intrusive_ptr<c10d::Store>& store, const Launch& launch, c10::DeviceType type,
                                         ProcessGroup::BackendType kind, const c10::intrusive_ptr<c10d::Backend>& backend) {
  auto group = c10::make_intrusive<ProcessGroup>(store, launch.rank, launch.ranks);
  group->setBackend(type, kind, backend);
  group->setDefaultBackend(kind);
  return group;
}

class C10d : public DataParallel {
 public:
  C10d(const Launch& launch, c10::intrusive_ptr<ProcessGroup> cpu, c10::intrusive_ptr<ProcessGroup> gradients)
      : launch_(launch), cpu_(std::move(cpu)), gradients_(std::move(gradients)) {}

  int rank() const override { return launch_.rank; }
  int ranks() const override { return launch_.ranks; }

  Result<void> Begin(const torch::nn::Module& model, bool some_unused) override {
    parameters_ = DistinctParameters(model);
    std::erase_if(parameters_, [](const at::Tensor& p) { return !p.requires_grad(); });
    std::vector<at::Tensor> all = DistinctParameters(model);
    for (const at::Tensor& buffer : model.buffers()) all.push_back(buffer);
    FKDB_TRY(Share(all));
    return Together([&] {
      const std::vector<size_t> limits = {c10d::kDefaultFirstBucketBytes, c10d::kDefaultBucketBytesCap};
      auto [buckets, bytes] = c10d::compute_bucket_assignment_by_size(parameters_, limits);
      std::reverse(buckets.begin(), buckets.end());  // as the backward pass goes
      reducer_ = std::make_unique<c10d::Reducer>(parameters_, std::move(buckets), gradients_, std::vector<bool>(parameters_.size(), false),
                                                 c10d::kDefaultBucketBytesCap, /*find_unused_parameters=*/some_unused,
                                                 /*gradient_as_bucket_view=*/false, std::unordered_map<size_t, std::string>(),
                                                 c10d::kDefaultFirstBucketBytes, /*skip_all_reduce_unused_params=*/false,
                                                 /*use_python_reducer=*/false, std::vector<int64_t>());
    });
  }

  Result<void> Backward(const at::Tensor& output, const at::Tensor& gradient) override {
    return Together([&] {
      reducer_->prepare_for_backward({output});
      output.backward(gradient);
    });
  }

  Result<void> Share(const std::vector<at::Tensor>& tensors) override {
    return Together([&] {
      const torch::NoGradGuard no_grad;
      for (const at::Tensor& tensor : tensors) {
        at::Tensor plain = tensor.detach().contiguous();
        std::vector<at::Tensor> one = {plain};
        (tensor.is_cuda() ? gradients_ : cpu_)->broadcast(one)->wait();
        if (!plain.is_same(tensor)) tensor.copy_(plain);
      }
    });
  }

  Result<void> Share(std::vector<std::byte>* bytes) override {
    at::Tensor size = torch::tensor(static_cast<int64_t>(bytes->size()));
    FKDB_TRY(Share({size}));
    bytes->resize(static_cast<size_t>(size.item<int64_t>()));
    if (bytes->empty()) return {};
    return Share({torch::from_blob(bytes->data(), {size.item<int64_t>()}, torch::kUInt8)});
  }

  Result<void> StartSum(const std::vector<double>& numbers) override {
    return Together([&] {
      sum_ = {torch::tensor(numbers, torch::kFloat64)};
      summing_ = cpu_->allreduce(sum_);
    });
  }

  Result<std::vector<double>> FinishSum() override {
    FKDB_TRY(Together([&] { summing_->wait(); }));
    const auto* numbers = sum_[0].const_data_ptr<double>();
    return std::vector<double>(numbers, numbers + sum_[0].numel());
  }

 private:
  template <class Body>
  Result<void> Together(const Body& body) const {
    try {
      body();
      return {};
    } catch (const c10::OutOfMemoryError&) {
      throw;
    } catch (const std::exception& e) {
      const std::string_view what = e.what();
      return Fail(ErrorCode::kIoError, fmt::format("rank {} of {} has lost the others: one of them ended, and has said why ({})", launch_.rank, launch_.ranks,
                                                   what.substr(0, what.find('\n'))));
    }
  }

  const Launch launch_;
  const c10::intrusive_ptr<ProcessGroup> cpu_, gradients_;
  std::vector<at::Tensor> parameters_;
  std::unique_ptr<c10d::Reducer> reducer_;
  std::vector<at::Tensor> sum_;
  c10::intrusive_ptr<c10d::Work> summing_;
};

}  // namespace

Result<std::unique_ptr<DataParallel>> DataParallel::Join(const Launch& launch, const std::string& job, c10::Device device) {
  FKDB_ASSIGN(const auto store, JoinC10dStore(launch, job));
  try {
    auto options = c10d::ProcessGroupGloo::Options::create_default(kPatience);
    auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>("gloo", store), launch.rank, launch.ranks, options);
    auto cpu = GroupOf(store, launch, at::kCPU, ProcessGroup::BackendType::GLOO, gloo);
    auto gradients = cpu;
    if (device.is_cuda()) {
#ifdef USE_C10D_NCCL
      auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::PrefixStore>("nccl", store), launch.rank, launch.ranks);
      nccl->setBoundDeviceId(device);
      gradients = GroupOf(store, launch, at::kCUDA, ProcessGroup::BackendType::NCCL, nccl);
#else
      return Fail(ErrorCode::kUnsupported, "this fkdb was built without NCCL: several processes train on CPUs alone");
#endif
    }
    return std::make_unique<C10d>(launch, std::move(cpu), std::move(gradients));
  } catch (const std::exception& e) {
    const std::string_view what = e.what();
    return Fail(ErrorCode::kIoError, fmt::format("rank {} of {} cannot reach the others: {}", launch.rank, launch.ranks, what.substr(0, what.find('\n'))));
  }
}

}  // namespace fkdb
