// SPDX-License-Identifier: Apache-2.0
#include "trainer/mobilenet.h"

#include <torch/nn/init.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

namespace fkdb {
namespace {

namespace nn = torch::nn;

constexpr int64_t kStemWidth = 16, kHeadWidth = 1024;

enum class Activation { kNone, kRelu, kHardSwish };

struct BlockShape {
  int64_t kernel;
  int64_t stride;
  double expansion;  // of the depthwise convolution; 1: there is no convolution before it
  int64_t width;     // of the output, at width 1
  bool squeeze;
  Activation activation;
};

const std::vector<std::vector<BlockShape>>& Stages() {
  constexpr auto kRelu = Activation::kRelu, kSwish = Activation::kHardSwish;
  static const std::vector<std::vector<BlockShape>> kStages = {
      {{3, 2, 1, 16, true, kRelu}},
      {{3, 2, 4.5, 24, false, kRelu}, {3, 1, 3.67, 24, false, kRelu}},
      {{5, 2, 4, 40, true, kSwish}, {5, 1, 6, 40, true, kSwish}, {5, 1, 6, 40, true, kSwish}},
      {{5, 1, 3, 48, true, kSwish}, {5, 1, 3, 48, true, kSwish}},
      {{5, 2, 6, 96, true, kSwish}, {5, 1, 6, 96, true, kSwish}, {5, 1, 6, 96, true, kSwish}}};
  return kStages;
}
constexpr int64_t kLastWidth = 576;  // of the 1x1 convolution behind them, at width 1

// The nearest multiple of 8 that is not more than a tenth smaller.
int64_t RoundChannels(double channels) {
  const int64_t rounded = std::max<int64_t>(8, static_cast<int64_t>(channels + 4) / 8 * 8);
  return static_cast<double>(rounded) < 0.9 * channels ? rounded + 8 : rounded;
}

// TensorFlow's SAME: ceil(size / stride) outputs, and where the padding is odd its larger half behind.
class SameConvImpl : public nn::Conv2dImpl {
 public:
  using nn::Conv2dImpl::Conv2dImpl;

  torch::Tensor forward(torch::Tensor x) {
    const int64_t stride = options.stride()->at(0), kernel = options.kernel_size()->at(0);
    const auto missing = [&](int64_t size) { return std::max<int64_t>(((size + stride - 1) / stride - 1) * stride + kernel - size, 0); };
    const int64_t down = missing(x.size(2)), right = missing(x.size(3));
    const bool even = down % 2 == 0 && right % 2 == 0;
    if (!even) x = torch::constant_pad_nd(x, {right / 2, right - right / 2, down / 2, down - down / 2});
    const std::vector<int64_t> padding = even ? std::vector<int64_t>{down / 2, right / 2} : std::vector<int64_t>{0, 0};
    return torch::conv2d(x, weight, bias, {stride, stride}, padding, {1, 1}, options.groups());
  }
};
TORCH_MODULE(SameConv);

SameConv Conv(int64_t in, int64_t out, int64_t kernel = 1, int64_t stride = 1, int64_t groups = 1, bool bias = false) {
  return SameConv(nn::Conv2dOptions(in, out, kernel).stride(stride).groups(groups).bias(bias));
}

nn::BatchNorm2d Norm(int64_t width) { return nn::BatchNorm2d(nn::BatchNorm2dOptions(width).eps(1e-3)); }

torch::Tensor Activate(torch::Tensor x, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return x.relu_();
    case Activation::kHardSwish:
      return torch::hardswish(x);
    case Activation::kNone:
      break;
  }
  return x;
}

class SqueezeExcite : public nn::Module {
 public:
  explicit SqueezeExcite(int64_t width)
      : reduce_(register_module("conv_reduce", Conv(width, RoundChannels(0.25 * static_cast<double>(width)), 1, 1, 1, true))),
        expand_(register_module("conv_expand", Conv(RoundChannels(0.25 * static_cast<double>(width)), width, 1, 1, 1, true))) {}

  torch::Tensor forward(const torch::Tensor& x) {
    return x * torch::hardsigmoid(expand_(reduce_(x.mean({2, 3}, /*keepdim=*/true)).relu_()));
  }

 private:
  SameConv reduce_, expand_;
};

// 1x1 expansion, depthwise convolution, squeeze-and-excite, 1x1 projection; timm numbers the batch
// norms by their place, and calls the projection otherwise where nothing is expanded.
class Block : public nn::Module {
 public:
  Block(int64_t in, int64_t out, const BlockShape& shape) : shortcut_(shape.stride == 1 && in == out), activation_(shape.activation) {
    const bool expands = shape.expansion != 1;
    const int64_t width = expands ? RoundChannels(shape.expansion * static_cast<double>(in)) : in;
    if (expands) {
      expand_ = register_module("conv_pw", Conv(in, width));
      expand_norm_ = register_module("bn1", Norm(width));
    }
    depthwise_ = register_module("conv_dw", Conv(width, width, shape.kernel, shape.stride, width));
    depthwise_norm_ = register_module(expands ? "bn2" : "bn1", Norm(width));
    if (shape.squeeze) squeeze_ = register_module("se", std::make_shared<SqueezeExcite>(width));
    project_ = register_module(expands ? "conv_pwl" : "conv_pw", Conv(width, out));
    project_norm_ = register_module(expands ? "bn3" : "bn2", Norm(out));
  }

  torch::Tensor forward(const torch::Tensor& x) {
    torch::Tensor y = x;
    if (!expand_.is_empty()) y = Activate(expand_norm_(expand_(y)), activation_);
    y = Activate(depthwise_norm_(depthwise_(y)), activation_);
    if (squeeze_) y = squeeze_->forward(y);
    y = project_norm_(project_(y));
    return shortcut_ ? y + x : y;
  }

 private:
  bool shortcut_;
  Activation activation_;
  SameConv expand_{nullptr}, depthwise_{nullptr}, project_{nullptr};
  nn::BatchNorm2d expand_norm_{nullptr}, depthwise_norm_{nullptr}, project_norm_{nullptr};
  std::shared_ptr<SqueezeExcite> squeeze_;
};

class ConvNorm : public nn::Module {
 public:
  ConvNorm(int64_t in, int64_t out) : conv_(register_module("conv", Conv(in, out))), norm_(register_module("bn1", Norm(out))) {}
  torch::Tensor forward(const torch::Tensor& x) { return Activate(norm_(conv_(x)), Activation::kHardSwish); }

 private:
  SameConv conv_;
  nn::BatchNorm2d norm_;
};

class MobileNetV3Small : public Model {
 public:
  MobileNetV3Small(double width, int64_t channels, int64_t classes)
      : stem_(register_module("conv_stem", Conv(channels, kStemWidth, 3, 2))),
        stem_norm_(register_module("bn1", Norm(kStemWidth))) {
    const auto blocks = register_module("blocks", std::make_shared<nn::Module>());
    const auto add = [&](nn::Sequential stage) {
      stages_.push_back(blocks->register_module(std::to_string(stages_.size()), std::move(stage)));
    };
    const auto scaled = [width](int64_t n) { return RoundChannels(width * static_cast<double>(n)); };
    int64_t in = kStemWidth;
    for (const auto& shapes : Stages()) {
      nn::Sequential stage;
      for (const BlockShape& shape : shapes) {
        stage->push_back(Block(in, scaled(shape.width), shape));
        in = scaled(shape.width);
      }
      add(stage);
    }
    add(nn::Sequential(ConvNorm(in, scaled(kLastWidth))));
    head_ = register_module("conv_head", Conv(scaled(kLastWidth), kHeadWidth, 1, 1, 1, true));
    classifier_ = register_module("classifier", nn::Linear(kHeadWidth, classes));
    DrawWeights(classes);
  }

  torch::Tensor forward(torch::Tensor x) override {
    x = Activate(stem_norm_(stem_(x)), Activation::kHardSwish);
    for (nn::Sequential& stage : stages_) x = stage->forward(x);
    x = torch::hardswish(head_(x.mean({2, 3}, /*keepdim=*/true)));
    return classifier_(x.flatten(1));
  }

 private:
  // As TensorFlow does: by the outputs of a group.
  void DrawWeights(int64_t classes) {
    for (const auto& module : modules(/*include_self=*/false)) {
      const auto* const conv = module->as<SameConv>();
      if (conv == nullptr) continue;
      const torch::Tensor& weight = conv->weight;
      const int64_t fan_out = weight.size(0) * weight.size(2) * weight.size(3) / conv->options.groups();
      nn::init::normal_(weight, 0, std::sqrt(2. / static_cast<double>(fan_out)));
      if (conv->bias.defined()) nn::init::zeros_(conv->bias);
    }
    const double range = 1 / std::sqrt(static_cast<double>(classes));
    nn::init::uniform_(classifier_->weight, -range, range);
    nn::init::zeros_(classifier_->bias);
  }

  SameConv stem_;
  nn::BatchNorm2d stem_norm_;
  std::vector<nn::Sequential> stages_;
  SameConv head_{nullptr};
  nn::Linear classifier_{nullptr};
};

}  // namespace

std::shared_ptr<Model> MakeMobileNetV3Small(double width, int64_t channels, int64_t classes) {
  return std::make_shared<MobileNetV3Small>(width, channels, classes);
}

}  // namespace fkdb
