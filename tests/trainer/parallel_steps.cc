// SPDX-License-Identifier: Apache-2.0
// parallel_steps OUT: 100 steps of a float64 net without batch statistics, by the processes of a launch or by one; rank 0 writes the
// weights. Run by tests/cli/test_parallel.py.
#include <fmt/format.h>
#include <torch/nn/functional/activation.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cstdlib>

#include "trainer/checkpoint.h"
#include "trainer/data_parallel.h"

namespace fkdb {
namespace {

constexpr int64_t kRows = 48, kSteps = 100;

struct Net : torch::nn::Module {
  Net() : a(register_module("a", torch::nn::Linear(20, 64))), b(register_module("b", torch::nn::Linear(64, 7))) { to(torch::kFloat64); }
  torch::Tensor forward(const torch::Tensor& x) { return b(torch::tanh(a(x))); }
  torch::nn::Linear a, b;
};

Result<void> Run(const char* out) {
  FKDB_ASSIGN(const auto found, FindLaunch([](const char* name) { return std::getenv(name); }));
  const Launch launch = found.value_or(Launch());
  torch::manual_seed(launch.rank + 1);  // rank 0's weights count
  Net net;
  std::unique_ptr<DataParallel> parallel;
  if (launch.ranks > 1) {
    FKDB_ASSIGN(parallel, DataParallel::Join(launch, "steps", torch::kCPU));
    FKDB_TRY(parallel->Begin(net, /*some_unused=*/false));
  }
  torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  torch::manual_seed(5);
  for (int64_t step = 0; step < kSteps; ++step) {
    // The same rows everywhere, dealt in turn.
    const torch::Tensor x = torch::randn({kRows, 20}, torch::kFloat64), y = torch::randint(7, {kRows});
    const torch::Tensor mine = torch::arange(launch.rank, kRows, launch.ranks);
    optimizer.zero_grad();
    const torch::Tensor logits = net.forward(x.index_select(0, mine));
    const torch::Tensor loss = torch::nn::functional::cross_entropy(logits, y.index_select(0, mine));
    if (parallel) FKDB_TRY(parallel->Backward(loss, {}));
    else loss.backward();
    optimizer.step();
  }
  if (launch.rank > 0) return {};
  TensorFile file;
  StoreModel(net, "", &file);
  return WriteTensorFile(out, file);
}

}  // namespace
}  // namespace fkdb

int main(int, char** argv) {
  const auto done = fkdb::Run(argv[1]);
  if (!done) fmt::print(stderr, "{}\n", done.error().message);
  return done ? 0 : 1;
}
