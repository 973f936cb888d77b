// SPDX-License-Identifier: Apache-2.0
#include "trainer/resnet.h"

#include <torch/nn/functional/pooling.h>
#include <torch/nn/init.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

namespace fkdb {
namespace {

namespace nn = torch::nn;

nn::Conv2d Conv(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  return nn::Conv2d(nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).bias(false));
}

// The gradient of a strided 1x1 convolution's weights is where oneDNN (issue 6035) writes behind its workspace, if images are channels-last
// and fewer than 16 channels come in, an AVX-512 register of them: there the pixels are picked first.
class ShortcutConvImpl : public nn::Conv2dImpl {
 public:
  using nn::Conv2dImpl::Conv2dImpl;

  torch::Tensor forward(const torch::Tensor& x) {
    const bool affected = x.is_cpu() && x.size(1) < 16 && x.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
    if (!affected) return nn::Conv2dImpl::forward(x);
    const int64_t stride = (*options.stride())[0];
    return torch::conv2d(x.slice(2, 0, x.size(2), stride).slice(3, 0, x.size(3), stride), weight);
  }
};
TORCH_MODULE(ShortcutConv);

// Of the shortcut, where input and output differ in shape; none where they don't.
nn::Sequential Downsample(int64_t in, int64_t out, int64_t stride) {
  if (stride == 1 && in == out) return nullptr;
  return nn::Sequential(ShortcutConv(nn::Conv2dOptions(in, out, 1).stride(stride).bias(false)), nn::BatchNorm2d(out));
}

class BasicBlock : public nn::Module {
 public:
  static constexpr int64_t kExpansion = 1;

  BasicBlock(int64_t in, int64_t width, int64_t stride)
      : conv1_(register_module("conv1", Conv(in, width, 3, stride))),
        bn1_(register_module("bn1", nn::BatchNorm2d(width))),
        conv2_(register_module("conv2", Conv(width, width, 3, 1))),
        bn2_(register_module("bn2", nn::BatchNorm2d(width))),
        downsample_(Downsample(in, width, stride)) {
    if (!downsample_.is_empty()) register_module("downsample", downsample_);
  }

  torch::Tensor forward(const torch::Tensor& x) {
    torch::Tensor y = bn1_(conv1_(x)).relu_();
    y = bn2_(conv2_(y));
    y += downsample_.is_empty() ? x : downsample_->forward(x);
    return y.relu_();
  }

 private:
  nn::Conv2d conv1_;
  nn::BatchNorm2d bn1_;
  nn::Conv2d conv2_;
  nn::BatchNorm2d bn2_;
  nn::Sequential downsample_;
};

// The stride is the 3x3 convolution's, as in torchvision; the paper's is the first one's.
class Bottleneck : public nn::Module {
 public:
  static constexpr int64_t kExpansion = 4;

  Bottleneck(int64_t in, int64_t width, int64_t stride)
      : conv1_(register_module("conv1", Conv(in, width, 1, 1))),
        bn1_(register_module("bn1", nn::BatchNorm2d(width))),
        conv2_(register_module("conv2", Conv(width, width, 3, stride))),
        bn2_(register_module("bn2", nn::BatchNorm2d(width))),
        conv3_(register_module("conv3", Conv(width, kExpansion * width, 1, 1))),
        bn3_(register_module("bn3", nn::BatchNorm2d(kExpansion * width))),
        downsample_(Downsample(in, kExpansion * width, stride)) {
    if (!downsample_.is_empty()) register_module("downsample", downsample_);
  }

  torch::Tensor forward(const torch::Tensor& x) {
    torch::Tensor y = bn1_(conv1_(x)).relu_();
    y = bn2_(conv2_(y)).relu_();
    y = bn3_(conv3_(y));
    y += downsample_.is_empty() ? x : downsample_->forward(x);
    return y.relu_();
  }

 private:
  nn::Conv2d conv1_;
  nn::BatchNorm2d bn1_;
  nn::Conv2d conv2_;
  nn::BatchNorm2d bn2_;
  nn::Conv2d conv3_;
  nn::BatchNorm2d bn3_;
  nn::Sequential downsample_;
};

// Appends a stage's blocks; returns their width, after a stage of width `in`.
template <class Block>
int64_t AddBlocks(int64_t in, const ResNetShape::Stage& stage, nn::Sequential* blocks) {
  for (int64_t b = 0; b < stage.blocks; ++b) {
    (*blocks)->push_back(Block(in, stage.width, b == 0 ? stage.stride : 1));
    in = Block::kExpansion * stage.width;
  }
  return in;
}

class ResNet : public Model {
 public:
  ResNet(const ResNetShape& shape, int64_t channels, int64_t classes)
      : large_stem_(shape.large_stem),
        conv1_(register_module("conv1", Conv(channels, shape.stem_width, large_stem_ ? 7 : 3, large_stem_ ? 2 : 1))),
        bn1_(register_module("bn1", nn::BatchNorm2d(shape.stem_width))) {
    int64_t width = shape.stem_width;
    for (const ResNetShape::Stage& stage : shape.stages) {
      nn::Sequential blocks;
      width = shape.bottleneck ? AddBlocks<Bottleneck>(width, stage, &blocks) : AddBlocks<BasicBlock>(width, stage, &blocks);
      layers_.push_back(register_module("layer" + std::to_string(layers_.size() + 1), blocks));
    }
    fc_ = register_module("fc", nn::Linear(width, classes));
    for (const auto& module : modules(/*include_self=*/false)) {
      if (const auto* conv = module->as<nn::Conv2d>()) {
        nn::init::kaiming_normal_(conv->weight, 0, torch::kFanOut, torch::kReLU);
      }
    }
  }

  torch::Tensor forward(torch::Tensor x) override {
    x = bn1_(conv1_(x)).relu_();
    if (large_stem_) x = nn::functional::max_pool2d(x, nn::functional::MaxPool2dFuncOptions(3).stride(2).padding(1));
    for (nn::Sequential& layer : layers_) x = layer->forward(x);
    return fc_(x.mean({2, 3}));
  }

 private:
  bool large_stem_;
  nn::Conv2d conv1_;
  nn::BatchNorm2d bn1_;
  std::vector<nn::Sequential> layers_;
  nn::Linear fc_{nullptr};
};

}  // namespace

std::shared_ptr<Model> MakeResNet(const ResNetShape& shape, int64_t channels, int64_t classes) {
  return std::make_shared<ResNet>(shape, channels, classes);
}

}  // namespace fkdb
