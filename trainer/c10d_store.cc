// SPDX-License-Identifier: Apache-2.0
#include "trainer/c10d_store.h"

#include <fmt/format.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/cuda.h>

#include <chrono>
#include <utility>

namespace fkdb {
namespace {

constexpr std::chrono::minutes kPatience{5};

class C10dStore : public SharedStore {
 public:
  C10dStore(const Launch& launch, c10::intrusive_ptr<c10d::Store> store) : launch_(launch), store_(std::move(store)) {}
  int rank() const override { return launch_.rank; }
  int ranks() const override { return launch_.ranks; }
  bool is_ours() const override { return launch_.rank == 0 && !launch_.has_store; }
  Result<void> Set(const std::string& name, const std::string& text) override {
    return Ask([&]() -> Result<void> {
      store_->set(name, std::vector<uint8_t>(text.begin(), text.end()));
      return {};
    });
  }
  Result<std::optional<std::string>> Find(const std::string& name) override {
    return Ask([&]() -> Result<std::optional<std::string>> {
      if (!store_->check({name})) return std::optional<std::string>();
      const std::vector<uint8_t> bytes = store_->get(name);
      return std::string(bytes.begin(), bytes.end());
    });
  }
  Result<int64_t> Add(const std::string& name, int64_t n) override {
    return Ask([&]() -> Result<int64_t> { return store_->add(name, n); });
  }

 private:
  template <class Body>
  auto Ask(const Body& body) -> decltype(body()) {
    try {
      return body();
    } catch (const std::exception&) {
      return Fail(ErrorCode::kIoError, fmt::format("rank {} has lost the store at {}:{}: rank 0 or the launcher ended", launch_.rank, launch_.address, launch_.port));
    }
  }

  Launch launch_;
  c10::intrusive_ptr<c10d::Store> store_;
};

}  // namespace

std::string DeviceOf(const Launch& launch, const std::string& device) {
  const int count = device == "cuda" ? static_cast<int>(torch::cuda::device_count()) : 0;
  return count == 0 ? device : fmt::format("cuda:{}", launch.local_rank % count);
}

namespace {

// With names of its own, for `job`; `start`: which of the launcher's starts.
Result<c10::intrusive_ptr<c10d::Store>> Join(const Launch& launch, const std::string& job, const std::string& start) {
  c10d::TCPStoreOptions options;
  options.port = launch.port;
  options.isServer = launch.rank == 0 && !launch.has_store;
  options.waitWorkers = false;
  options.timeout = kPatience;
  try {
    auto tcp = c10::make_intrusive<c10d::TCPStore>(launch.address, options);
    // Each start of the processes finds an empty store: the launcher's own lives on.
    return c10::intrusive_ptr<c10d::Store>(c10::make_intrusive<c10d::PrefixStore>(fmt::format("{}/{}{}", job, launch.job, start), std::move(tcp)));
  } catch (const std::exception& e) {
    const std::string_view what = e.what();
    return Fail(ErrorCode::kIoError, fmt::format("rank {} cannot reach the store at {}:{}: {}", launch.rank, launch.address, launch.port, what.substr(0, what.find('\n'))));
  }
}

constexpr const char* kBegun = "begun";

}  // namespace

Result<c10::intrusive_ptr<c10d::Store>> JoinC10dStore(const Launch& launch, const std::string& job) {
  return Join(launch, job, fmt::format("{}", launch.restarts));
}

Result<bool> WasBegun(const Launch& launch, const std::string& job) {
  if (!launch.has_store || launch.restarts == 0) return false;
  FKDB_ASSIGN(const auto store, Join(launch, job, "all"));
  return store->check({kBegun});
}

Result<void> MarkBegun(const Launch& launch, const std::string& job) {
  if (!launch.has_store) return {};
  FKDB_ASSIGN(const auto store, Join(launch, job, "all"));
  store->set(kBegun, std::vector<uint8_t>{1});
  return {};
}

Result<std::unique_ptr<SharedStore>> JoinStore(const Launch& launch, const std::string& job) {
  FKDB_ASSIGN(auto store, JoinC10dStore(launch, job));
  return std::make_unique<C10dStore>(launch, std::move(store));
}

}  // namespace fkdb
