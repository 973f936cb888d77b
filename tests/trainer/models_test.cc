// SPDX-License-Identifier: Apache-2.0
// The networks by name, and scripted modules in their place. Their outputs: tests/cli/test_models.py.
#include "trainer/models.h"

#include <gtest/gtest.h>
#include <torch/script.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "tests/db/test_files.h"
#include "trainer/script_model.h"

namespace fkdb {
namespace {

TEST(Models, TakeAnyChannelsAndClasses) {
  for (const std::string name : {"resnet18", "resnet34", "resnet50", "tf_mobilenetv3_small_075", "tf_mobilenetv3_small_100", "resnet6-w4"}) {
    EXPECT_TRUE(IsModelName(name));
    for (const auto& [channels, classes] : {std::pair<int64_t, int64_t>{1, 7}, {4, 1}}) {
      const auto model = MakeModel(name, channels, classes);
      ASSERT_TRUE(model) << model.error().message;
      (*model)->eval();
      EXPECT_EQ((*model)->forward(torch::zeros({2, channels, 33, 47})).sizes(), torch::IntArrayRef({2, classes})) << name;
      const auto parameters = (*model)->named_parameters();
      EXPECT_EQ(parameters[std::string(ClassifierOf(name)) + ".weight"].size(0), classes);
      EXPECT_EQ(DistinctParameters(**model).size(), parameters.size());
    }
  }
  for (const char* const name : {"", "resnet", "resnet180", "resnet6-w", "resnet6-w0", "resnet6-w1025", "resnet6-w8x", "resnet18.pt"}) {
    EXPECT_FALSE(IsModelName(name)) << name;
    EXPECT_EQ(ClassifierOf(name), "");
  }
}

// As --channels-last trains them, on the CPU: oneDNN's way breaks the heap of networks this narrow within a few steps.
TEST(Models, NarrowOnesHaveTheSameGradientsChannelsLast) {
  for (const int width : {2, 4, 8}) {
    torch::manual_seed(width);
    const auto model = *MakeModel("resnet6-w" + std::to_string(width), 3, 10);
    for (int step = 0; step < 20; ++step) {
      const torch::Tensor x = torch::randn({step % 2 == 0 ? 4 : 2, 3, 64, 64});
      std::vector<std::vector<torch::Tensor>> gradients;
      for (const auto layout : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
        model->zero_grad();
        model->forward(x.contiguous(layout)).square().mean().backward();
        gradients.emplace_back();
        for (const torch::Tensor& p : model->parameters()) gradients.back().push_back(p.grad().clone());
      }
      for (size_t i = 0; i < gradients[0].size(); ++i) {  // by norm: a ReLU that rounds to another side moves single elements more
        const double norm = gradients[0][i].norm().item<double>();
        EXPECT_LT((gradients[0][i] - gradients[1][i]).norm().item<double>(), 2e-2 * norm + 1e-6) << width << " " << i;
      }
    }
  }
}

TEST(Models, GradientsReachEveryParameter) {
  for (const char* const name : {"resnet50", "tf_mobilenetv3_small_075"}) {
    const auto model = MakeModel(name, 3, 5);
    (*model)->forward(torch::randn({4, 3, 64, 64})).pow(2).sum().backward();
    for (const auto& p : (*model)->named_parameters()) EXPECT_TRUE(p.value().grad().defined() && p.value().grad().isfinite().all().item<bool>()) << p.key();
  }
}

class ScriptModelTest : public test::TempFolder {
 protected:
  // A linear layer that counts its calls, and draws.
  std::string Save(const char* forward, bool trainable = true) {
    torch::jit::Module module("net");
    module.register_parameter("weight", torch::ones({2, 3}, torch::requires_grad(trainable)), false);
    module.register_buffer("calls", torch::zeros({}, torch::kInt64));
    module.register_attribute("training", c10::BoolType::get(), true);
    module.define(forward);
    const std::string path = Path("net.pt").string();
    module.save(path);
    return path;
  }
};

TEST_F(ScriptModelTest, TryingItLeavesNoTrace) {
  const std::string path = Save(R"(
def forward(self, x):
    self.calls.add_(1)
    y = torch.matmul(x.mean([2, 3]), self.weight.t())
    return y + torch.rand_like(y) if self.training else y
)");
  torch::manual_seed(7);
  const torch::Tensor expected = torch::rand({4});
  torch::manual_seed(7);
  const auto model = LoadScriptModel(path, {3, 8, 8, 2});
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_TRUE(torch::equal(torch::rand({4}), expected));
  EXPECT_EQ((*model)->named_buffers()["calls"].item<int64_t>(), 0);
  EXPECT_TRUE((*model)->named_parameters()["weight"].requires_grad());

  const torch::Tensor x = torch::ones({1, 3, 8, 8});
  (*model)->eval();
  EXPECT_TRUE(torch::equal((*model)->forward(x), torch::full({1, 2}, 3.f)));
  (*model)->train();
  EXPECT_FALSE(torch::equal((*model)->forward(x), torch::full({1, 2}, 3.f)));
  EXPECT_EQ((*model)->named_buffers()["calls"].item<int64_t>(), 2);
}

TEST_F(ScriptModelTest, OutputsOfAnotherKindAreNamed) {
  const auto message = [&](const char* forward) { return LoadScriptModel(Save(forward), {3, 8, 8, 2}).error().message; };
  const std::string path = Path("net.pt").string();
  EXPECT_EQ(message("def forward(self, x):\n    return x, self.weight\n"),
            path + ": does not take inputs of [2, 3, 8, 8]: gives a Tuple, expected one tensor");
  EXPECT_EQ(message("def forward(self, x):\n    return x\n"),
            path + ": gives outputs of [2, 3, 8, 8] for inputs of [2, 3, 8, 8], expected [2, 2]: one for each class");
  EXPECT_EQ(LoadScriptModel(Save("def forward(self, x):\n    return x\n", false), {3, 8, 8, 2}).error().message,
            path + ": has no parameters to train: script the model as it is, without torch.jit.freeze, optimize_for_inference or requires_grad = False");
  EXPECT_EQ(message("def forward(self, x):\n    return x.mean([2, 3]).double()\n"), path + ": gives outputs of type Double, expected float32");
}

}  // namespace
}  // namespace fkdb
