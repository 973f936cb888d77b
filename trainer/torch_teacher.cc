// SPDX-License-Identifier: Apache-2.0
#include "trainer/torch_teacher.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/cuda.h>
#include <torch/script.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>

#include "trainer/aoti_network.h"
#include "trainer/autocast.h"
#include "trainer/checkpoint.h"
#include "trainer/device.h"
#include "trainer/models.h"
#include "trainer/safetensors.h"
#include "trainer/teacher_card.h"

namespace fkdb {
namespace {

int64_t Padded(int64_t batch) { return (batch + kBatchMultiple - 1) / kBatchMultiple * kBatchMultiple; }

// Of a teacher that must take batches of any size: tried with one that is surely not the warm-up's.
int64_t LargeBatch(int64_t batch) { return std::max(Padded(batch), 2 * kBatchMultiple); }

constexpr float kRowTolerance = 0.03f;  // of the largest output: models of bfloat16 round otherwise in another batch

// Torch puts a backtrace behind its messages: the first line says it, unless that is about TorchScript's interpreter, whose
// error is the last.
std::string FirstLine(const char* message) {
  std::string_view text(message);
  constexpr std::string_view kSays = "RuntimeError: ";
  if (const size_t at = text.rfind(kSays); text.starts_with("The following operation failed") && at != text.npos) text.remove_prefix(at + kSays.size());
  return std::string(text.substr(0, text.find('\n')));
}

// Copies and kernels of several calls at once, each thread's on a stream of its own; on a CPU nothing.
class OwnStream {
 public:
  explicit OwnStream(c10::Device device) {
    if (!device.is_cuda()) return;
    const c10::impl::VirtualGuardImpl guard(device.type());
    thread_local const c10::Stream own = guard.getStreamFromGlobalPool(device);
    if (own.device() == device) stream_.emplace(own);
  }

 private:
  std::optional<c10::StreamGuard> stream_;
};

Result<void> CheckAutocast(const TeacherOptions& options, const std::string& spec) {
  if (options.autocast.empty()) return {};
  const auto bad = [](const std::string& what) { return Fail(ErrorCode::kInvalidArgument, what); };
  if (!IsAutocastType(options.autocast)) return bad(fmt::format("--autocast {}: expected bf16 or fp16", options.autocast));
  if (IsCompiledPackage(spec)) return bad(fmt::format("--autocast: the number type of '{}' was compiled into it; leave --autocast out", spec));
  // On a CPU the bits would be those of whichever of its units multiplies bfloat16.
  if (options.device == "cpu") return bad("--autocast: for teachers on a GPU; say --device cuda, or leave it out");
  return {};
}

class TorchTeacher : public Teacher {
 public:
  TorchTeacher(std::string name, std::filesystem::path file, Network network, torch::Device device, TeacherCard card, std::string autocast)
      : name_(std::move(name)),
        file_(std::move(file)),
        network_(std::move(network)),
        device_(device),
        card_(std::move(card)),
        autocast_(std::move(autocast)),
        shape_{static_cast<int64_t>(card_.input.mean.size()), card_.input.height, card_.input.width} {}

  const std::string& name() const override { return name_; }
  const std::filesystem::path& file() const override { return file_; }
  const InputSpec& input() const override { return card_.input; }
  uint32_t num_outputs() const override { return num_outputs_; }
  OutputKind output_kind() const override { return card_.output; }
  std::optional<Grid> grid() const override { return grid_; }
  std::string autocast() const override { return autocast_; }

  Result<void> Forward(const float* input, int64_t n, float* output) const override {
    try {
      FKDB_ASSIGN(const torch::Tensor y, Run(input, n));
      std::memcpy(output, y.const_data_ptr<float>(), y.nbytes());
      return {};
    } catch (const std::exception& e) {
      return Broken(FirstLine(e.what()));
    }
  }

  // The first runs of a TorchScript module compile it, and may compute otherwise than later ones.
  Result<void> WarmUp(int64_t batch) {
    batch = Padded(batch);
    const std::vector<float> zeros(static_cast<size_t>(batch * shape_[0] * shape_[1] * shape_[2]));
    try {
      for (int run = 0; run < 3; ++run) {
        FKDB_ASSIGN(const torch::Tensor y, Run(zeros.data(), batch));
        num_outputs_ = static_cast<uint32_t>(y.size(-1));
        if (y.dim() == 4) grid_ = {static_cast<uint32_t>(y.size(1)), static_cast<uint32_t>(y.size(2))};
      }
      return {};
    } catch (const std::exception& e) {
      return Broken(FirstLine(e.what()));
    }
  }

  // Compiled code whose batch is fixed computes something of any other, without a word.
  Result<void> CheckRows(int64_t batch) const {
    const int64_t few = kBatchMultiple, many = LargeBatch(batch), size = shape_[0] * shape_[1] * shape_[2];
    std::vector<float> inputs(static_cast<size_t>(many * size));
    for (size_t i = 0; i < static_cast<size_t>(few * size); ++i) inputs[i] = static_cast<float>(static_cast<uint32_t>(i) * 2654435761u >> 20) / 1024 - 2;
    try {
      FKDB_ASSIGN(const torch::Tensor small, Run(inputs.data(), few));
      // The same images backwards, behind others of one colour.
      std::vector<float> moved(inputs.size(), 1);
      for (int64_t r = 0; r < few; ++r) std::copy_n(inputs.begin() + r * size, size, moved.end() - (r + 1) * size);
      FKDB_ASSIGN(const torch::Tensor large, Run(moved.data(), many));
      const float worst = (large.slice(0, many - few).flip(0) - small).abs().max().item<float>();
      if (worst <= kRowTolerance * small.abs().max().item<float>()) return {};
      return Broken(fmt::format("gives other outputs, by up to {:.2g}, for images in a batch of {} than for the same in one of {}: export the model in "
                                "eval mode, with a batch of any size", worst, many, few));
    } catch (const std::exception& e) {
      return Broken(FirstLine(e.what()));
    }
  }

 private:
  tl::unexpected<Error> Broken(const std::string& what) const {
    return Fail(ErrorCode::kModel, fmt::format("teacher '{}': {}", name_, what));
  }

  // (n, C), or (n, H, W, C).
  Result<torch::Tensor> Run(const float* input, int64_t n) const {
    // One thread a call: see Teacher::Forward. The setting is the calling thread's own.
    thread_local const bool single = (at::set_num_threads(1), true);
    static_cast<void>(single);
    const c10::InferenceMode inference;
    const Autocast autocast(at::kCUDA, autocast_);
    const torch::Tensor x =
        torch::from_blob(const_cast<float*>(input), {n, shape_[0], shape_[1], shape_[2]}, torch::kFloat32);
    const OwnStream stream(device_);
    // Through pinned memory: from the caller's, a copy would hold up the other threads'.
    const torch::Tensor there = device_.is_cuda() ? x.pin_memory().to(device_, /*non_blocking=*/true) : x.to(device_);
    const torch::Tensor y = network_(there).to(torch::kCPU, torch::kFloat32);
    const bool map = y.dim() == 4;
    const bool is_output = map || y.dim() == 2;
    const bool as_before = num_outputs_ == 0 || !is_output || (y.size(1) == num_outputs_ && map == grid_.has_value() &&
                                                 (!map || (y.size(2) == grid_->height && y.size(3) == grid_->width)));
    if (!is_output || y.numel() == 0 || y.size(0) != n || !as_before) {
      return Broken(fmt::format("gives an output of shape [{}] for an input of [{}, {}, {}, {}], expected [{}, C], or of label maps [{}, C, H, W]",
                                fmt::join(y.sizes(), ", "), n, shape_[0], shape_[1], shape_[2], n, n));
    }
    return (map ? y.permute({0, 2, 3, 1}) : y).contiguous();
  }

  std::string name_;
  std::filesystem::path file_;
  Network network_;
  torch::Device device_;
  TeacherCard card_;
  std::string autocast_;
  int64_t shape_[3];  // of an input
  uint32_t num_outputs_ = 0;
  std::optional<Grid> grid_;
};

Result<Network> LoadScript(const std::string& path, torch::Device device, bool mixed) {
  try {
    torch::jit::Module module = torch::jit::load(path, device);
    module.eval();
    module = torch::jit::freeze(module);
    // What it fuses for a GPU takes one type alone, which autocast does not know.
    if (!mixed) module = torch::jit::optimize_for_inference(module);
    return [module](torch::Tensor x) mutable {
      const torch::IValue out = module.forward({std::move(x)});
      TORCH_CHECK(out.isTensor(), "gives ", out.tagKind(), ", expected one tensor");
      return out.toTensor();
    };
  } catch (const std::exception& e) {
    return Fail(ErrorCode::kModel,
                fmt::format("{}: not a TorchScript file this fkdb can load: {}", path, FirstLine(e.what())));
  }
}

Result<Network> LoadCompiled(const std::string& path, torch::Device device, const TeacherCard& card, const TeacherOptions& options) {
  if (!card.says_size) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("teacher '{}': compiled code takes inputs of a wrong size without a word: say in '{}.json' what it was "
                                                         "exported for, e.g. {{\"input_size\": [3, 224, 224]}}",
                                                         std::filesystem::path(path).filename().string(), path));
  }
  return LoadCompiledPackage(path, {card.input, kBatchMultiple, LargeBatch(options.batch_size), device, static_cast<size_t>(options.threads)});
}

Result<Network> LoadBuiltIn(const std::string& model_name, const std::string& path, torch::Device device,
                            uint32_t channels) {
  FKDB_ASSIGN(const TensorFile weights, ReadTensorFile(path));
  const std::string last = std::string(ClassifierOf(model_name)) + ".weight";
  const auto classifier = weights.tensors.find(last);
  if (classifier == weights.tensors.end() || classifier->second.shape.size() != 2) {
    return Fail(ErrorCode::kMismatch, fmt::format("{}: not weights of {}: tensor '{}' is missing", path, model_name, last));
  }
  FKDB_ASSIGN(const std::shared_ptr<Model> model, MakeModel(model_name, channels, classifier->second.shape[0]));
  if (auto loaded = LoadModel(weights, "", model.get()); !loaded) {
    return Fail(loaded.error().code, fmt::format("{}: {}", path, loaded.error().message));
  }
  model->eval();
  model->to(device);
  return [model](torch::Tensor x) { return model->forward(std::move(x)); };
}

}  // namespace

Result<std::unique_ptr<Teacher>> LoadTeacher(const std::string& spec, const TeacherOptions& options) {
  const size_t colon = spec.find(':');
  const std::string model_name = colon == std::string::npos ? "" : spec.substr(0, colon);
  const bool built_in = IsModelName(model_name);
  const std::string path = built_in ? spec.substr(colon + 1) : spec;
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec)) {
    if (IsModelName(path)) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("teacher '{}' has no weights: expected {}:WEIGHTS.safetensors", spec, spec));
    }
    return Fail(ErrorCode::kNotFound, fmt::format("teacher '{}': no such file (expected a TorchScript file, a .pt2 package, or "
                                                  "MODEL:WEIGHTS.safetensors with one of {})",
                                                  path, ModelNames()));
  }
  FKDB_TRY(CheckAutocast(options, spec));
  FKDB_ASSIGN(const torch::Device device, ParseDevice(options.device));
  // Labels are of float32: convolutions of 10-bit mantissas, Torch's default on GPUs, are for students.
  at::globalContext().setAllowTF32CuDNN(false);
  FKDB_ASSIGN(TeacherCard card, ReadTeacherCard(path, options.input));
  const bool compiled = !built_in && IsCompiledPackage(path);
  FKDB_ASSIGN(Network network, built_in   ? LoadBuiltIn(model_name, path, device, static_cast<uint32_t>(card.input.mean.size()))
                               : compiled ? LoadCompiled(path, device, card, options)
                                          : LoadScript(path, device, !options.autocast.empty()));
  // Named without its folder: where a teacher lay says nothing about the labels.
  const std::string file_name = std::filesystem::path(path).filename().string();
  auto teacher = std::make_unique<TorchTeacher>(built_in ? model_name + ":" + file_name : file_name, path,
                                                std::move(network), device, std::move(card), options.autocast);
  FKDB_TRY(teacher->WarmUp(options.batch_size));
  if (compiled) FKDB_TRY(teacher->CheckRows(options.batch_size));
  return teacher;
}

}  // namespace fkdb
