// SPDX-License-Identifier: Apache-2.0
#include "trainer/checkpoint.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <cstring>
#include <map>

namespace fkdb {
namespace {

const std::map<std::string, torch::ScalarType>& Dtypes() {
  static const std::map<std::string, torch::ScalarType> kDtypes = {
      {"F32", torch::kFloat32},   {"F64", torch::kFloat64}, {"F16", torch::kFloat16},
      {"BF16", torch::kBFloat16}, {"I64", torch::kInt64},   {"I32", torch::kInt32},
      {"I16", torch::kInt16},     {"I8", torch::kInt8},     {"U8", torch::kUInt8},
      {"BOOL", torch::kBool}};
  return kDtypes;
}

StoredTensor ToStored(const torch::Tensor& tensor) {
  const torch::Tensor plain = tensor.detach().cpu().contiguous();
  StoredTensor stored;
  for (const auto& [name, type] : Dtypes()) {
    if (type == plain.scalar_type()) stored.dtype = name;
  }
  stored.shape.assign(plain.sizes().begin(), plain.sizes().end());
  stored.data.resize(plain.nbytes());
  std::memcpy(stored.data.data(), plain.data_ptr(), plain.nbytes());
  return stored;
}

}  // namespace

void StoreTensor(const torch::Tensor& tensor, const std::string& name, TensorFile* file) { file->tensors[name] = ToStored(tensor); }

Result<void> LoadTensor(const TensorFile& file, const std::string& name, torch::Tensor target) {
  const auto mismatch = [&](std::string what) {
    return Fail(ErrorCode::kMismatch, fmt::format("weights do not fit the model: tensor '{}' {}", name, what));
  };
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end()) return mismatch("is missing");
  const StoredTensor& stored = found->second;
  const auto type = Dtypes().find(stored.dtype);
  if (type == Dtypes().end() || type->second != target.scalar_type()) {
    return mismatch(fmt::format("has type {}", stored.dtype));
  }
  if (target.sizes() != torch::IntArrayRef(stored.shape)) {
    return mismatch(fmt::format("has shape [{}], expected [{}]", fmt::join(stored.shape, ", "),
                                fmt::join(target.sizes(), ", ")));
  }
  const torch::Tensor source =
      torch::from_blob(const_cast<std::byte*>(stored.data.data()), stored.shape, target.scalar_type());
  const torch::NoGradGuard no_grad;
  target.copy_(source);
  return {};
}

bool IsStorable(const torch::Tensor& tensor) {
  const auto& types = Dtypes();
  return std::any_of(types.begin(), types.end(), [&](const auto& type) { return type.second == tensor.scalar_type(); });
}

void Convert(const std::string& dtype, StoredTensor* tensor) {
  const auto from = Dtypes().find(tensor->dtype), to = Dtypes().find(dtype);
  if (from == Dtypes().end() || to == Dtypes().end() || from == to) return;
  if (c10::isFloatingType(from->second) != c10::isFloatingType(to->second)) return;
  *tensor = ToStored(torch::from_blob(tensor->data.data(), tensor->shape, from->second).to(to->second));
}

void StoreModel(const torch::nn::Module& model, const std::string& prefix, TensorFile* file) {
  for (const auto& p : model.named_parameters()) StoreTensor(p.value(), prefix + p.key(), file);
  for (const auto& b : model.named_buffers()) StoreTensor(b.value(), prefix + b.key(), file);
}

Result<void> LoadModel(const TensorFile& file, const std::string& prefix, torch::nn::Module* model) {
  const auto parameters = model->named_parameters();
  const auto buffers = model->named_buffers();
  for (const auto& p : parameters) FKDB_TRY(LoadTensor(file, prefix + p.key(), p.value()));
  for (const auto& b : buffers) {
    const std::string name = prefix + b.key();
    if (name.ends_with("num_batches_tracked") && !file.tensors.contains(name)) continue;
    FKDB_TRY(LoadTensor(file, name, b.value()));
  }
  for (const auto& [name, tensor] : file.tensors) {
    if (!name.starts_with(prefix)) continue;
    const std::string own = name.substr(prefix.size());
    if (!parameters.contains(own) && !buffers.contains(own)) {
      return Fail(ErrorCode::kMismatch, fmt::format("weights do not fit the model: it has no tensor '{}'", own));
    }
  }
  return {};
}

}  // namespace fkdb
