// SPDX-License-Identifier: Apache-2.0
#include "trainer/script_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <stdexcept>
#include <string>

#include "trainer/checkpoint.h"

namespace fkdb {
namespace {

namespace jit = torch::jit;

// TorchScript's messages begin with where it happened and end with what.
std::string LastLine(std::string_view message) {
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.remove_suffix(1);
  const size_t newline = message.rfind('\n');
  return std::string(newline == std::string_view::npos ? message : message.substr(newline + 1));
}

// Loading's, with a backtrace behind them.
std::string FirstSentence(std::string_view message) {
  message = message.substr(0, message.find('\n'));
  return std::string(message.substr(0, message.find(". ")));
}

// The module's names, where a Module looks for them.
void Mirror(const jit::Module& from, torch::nn::Module* to) {
  for (const auto& p : from.named_parameters(/*recurse=*/false)) to->register_parameter(p.name, p.value, p.value.requires_grad());
  for (const auto& b : from.named_buffers(/*recurse=*/false)) to->register_buffer(b.name, b.value);
  for (const auto& child : from.named_children()) {
    Mirror(child.value, to->register_module(child.name, std::make_shared<torch::nn::Module>()).get());
  }
}

class ScriptModel : public Model {
 public:
  ScriptModel(std::string name, jit::Module module) : name_(std::move(name)), module_(std::move(module)) { Mirror(module_, this); }

  torch::Tensor forward(torch::Tensor x) override {
    // Optimized code depends, in its last bits, on what ran before: a resumed training would be another.
    const jit::GraphOptimizerEnabledGuard plain(false);
    try {
      const c10::IValue out = module_.forward({std::move(x)});
      if (!out.isTensor()) throw std::runtime_error(fmt::format("gives a {}, expected one tensor", out.tagKind()));
      return out.toTensor();
    } catch (const std::exception& e) {
      throw std::runtime_error(fmt::format("{}: {}", name_, LastLine(e.what())));
    }
  }

  void train(bool on) override {
    module_.train(on);
    Model::train(on);
  }

 private:
  const std::string name_;
  jit::Module module_;
};

// What tracing leaves: a batch norm or dropout in the mode it had then, and convolutions as Python never writes them.
bool IsTraced(const jit::Block& block) {
  const auto fixed = [](const jit::Node& node, size_t input) {
    return node.inputs().size() > input && node.input(input)->node()->kind() == c10::prim::Constant;
  };
  for (const jit::Node* const node : block.nodes()) {
    const std::string_view kind = node->kind().toQualString();
    if (kind == "aten::_convolution") return true;
    if (kind == "aten::batch_norm" && !node->input(3)->mustBeNone() && fixed(*node, 5)) return true;
    if ((kind == "aten::dropout" || kind == "aten::dropout_" || kind == "aten::feature_dropout") && fixed(*node, 2)) return true;
    for (const jit::Block* const inner : node->blocks()) {
      if (IsTraced(*inner)) return true;
    }
  }
  return false;
}

bool IsTraced(const jit::Module& module) {
  for (const jit::Module& inner : module.modules()) {
    // Scripting keeps a linear layer's sizes as constants.
    const auto name = inner.type()->name();
    if (name && name->name() == "Linear" && name->prefix().starts_with("__torch__.torch.nn.modules.linear") && inner.type()->numConstants() == 0) return true;
  }
  const auto method = module.find_method("forward");
  if (!method) return false;
  const std::shared_ptr<jit::Graph> graph = method->graph()->copy();
  jit::Inline(*graph);
  return IsTraced(*graph->block());
}

// Nothing that it draws or changes is seen afterwards.
Result<void> Probe(const std::string& name, const jit::Module& module, const ModelShape& shape) {
  const std::string input = fmt::format("[2, {}, {}, {}]", shape.channels, shape.height, shape.width);
  const at::Generator generator = at::detail::getDefaultCPUGenerator();
  const torch::Tensor state = generator.get_state();
  std::vector<int64_t> sizes;
  std::string what;
  try {
    ScriptModel copy(name, module.deepcopy());
    copy.eval();
    const torch::NoGradGuard no_grad;
    const torch::Tensor out = copy.forward(torch::zeros({2, shape.channels, shape.height, shape.width}));
    sizes = out.sizes().vec();
    if (out.scalar_type() != torch::kFloat32) what = fmt::format("gives outputs of type {}, expected float32", toString(out.scalar_type()));
  } catch (const std::exception& e) {
    const std::string message = LastLine(e.what());  // which begins with the name
    what = fmt::format("does not take inputs of {}: {}", input, message.starts_with(name + ": ") ? message.substr(name.size() + 2) : message);
  }
  at::Generator(generator).set_state(state);
  if (what.empty() && (sizes.size() != 2 || sizes[0] != 2 || sizes[1] < 1 || (shape.classes != 0 && sizes[1] != shape.classes))) {
    const std::string classes = shape.classes != 0 ? fmt::format("{}", shape.classes) : "C";
    what = fmt::format("gives outputs of [{}] for inputs of {}, expected [2, {}]: one for each class", fmt::join(sizes, ", "), input, classes);
  }
  if (what.empty()) return {};
  return Fail(ErrorCode::kMismatch, fmt::format("{}: {}", name, what));
}

}  // namespace

bool IsScriptFile(std::string_view model) { return model.ends_with(".pt") || model.ends_with(".pth") || model.ends_with(".ts"); }

Result<std::shared_ptr<Model>> LoadScriptModel(const std::filesystem::path& file, const ModelShape& shape) {
  const std::string path = file.string();
  const auto bad = [&](std::string_view what) { return Fail(ErrorCode::kModel, fmt::format("{}: {}", path, what)); };
  std::error_code ec;
  if (!std::filesystem::is_regular_file(file, ec)) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no such file (expected a scripted TorchScript module)", path));
  }
  try {
    jit::Module module = jit::load(path, torch::kCPU);
    bool trains = false;
    for (const torch::Tensor& parameter : module.parameters()) trains = trains || parameter.requires_grad();
    if (!trains) {
      return bad("has no parameters to train: script the model as it is, without torch.jit.freeze, optimize_for_inference or requires_grad = False");
    }
    if (IsTraced(module)) {
      return bad("is a traced module, whose batch norms and dropouts stay in the mode they were traced in, training or "
                 "evaluation: script it, torch.jit.script(model).save(FILE)");
    }
    auto model = std::make_shared<ScriptModel>(path, module);
    for (const auto& tensors : {model->named_parameters(), model->named_buffers()}) {
      for (const auto& tensor : tensors) {
        if (!IsStorable(tensor.value())) {
          return bad(fmt::format("its '{}' is of type {}, which checkpoints have no name for", tensor.key(), toString(tensor.value().scalar_type())));
        }
      }
    }
    FKDB_TRY(Probe(path, module, shape));
    return model;
  } catch (const std::exception& e) {
    return bad(fmt::format("not a TorchScript module that this fkdb can load; torch.jit.script(model).save(FILE) writes one: {}", FirstSentence(e.what())));
  }
}

}  // namespace fkdb
