// SPDX-License-Identifier: Apache-2.0
#include "trainer/initial_weights.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "trainer/checkpoint.h"
#include "writer/convert/torch_file.h"

namespace fkdb {
namespace {

constexpr std::string_view kParallelPrefix = "module.";  // DataParallel's

template <class Number>
StoredTensor Stored(std::string dtype, const std::vector<uint64_t>& shape, const std::vector<Number>& numbers) {
  StoredTensor tensor = {std::move(dtype), {shape.begin(), shape.end()}, {}};
  const auto bytes = std::as_bytes(std::span(numbers));
  tensor.data.assign(bytes.begin(), bytes.end());
  return tensor;
}

// A zip archive or a gzipped file: torch.save's. Its format before 1.6 is a bare pickle.
bool IsTorchFile(const std::filesystem::path& path) {
  char start[2] = {};
  std::ifstream(path, std::ios::binary).read(start, sizeof start);
  const std::string_view magic(start, sizeof start);
  return magic == "PK" || magic == "\x1f\x8b" || magic == "\x80\x02";
}

Result<TensorFile> FromTorchFile(const std::filesystem::path& path) {
  auto read = TorchFile::Read(path);
  if (!read && read.error().code == ErrorCode::kUnsupported) {
    return Fail(ErrorCode::kUnsupported, read.error().message + "; of a file you trust, torch.save(model.state_dict(), FILE) makes one that is read");
  }
  FKDB_ASSIGN(const TorchFile file, std::move(read));
  const auto bad = [&](std::string_view what) {
    return Fail(ErrorCode::kCorruption,
                fmt::format("{}: {}, expected tensors by name: torch.save(model.state_dict(), FILE) writes such a file", path.string(), what));
  };
  const PickleValue* dict = &file.root();
  for (const char* const key : {"state_dict", "model"}) {
    const PickleValue* const inner = dict->Find(key);
    if (inner == nullptr || inner->type() != PickleValue::Type::kDict) continue;
    dict = inner;
    break;
  }
  if (dict->type() != PickleValue::Type::kDict) return bad(dict->What());
  TensorFile weights;
  const auto items = dict->items();
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (items[i]->type() != PickleValue::Type::kText) return bad(fmt::format("{} as a name", items[i]->What()));
    const std::string name(items[i]->text());
    if (items[i + 1]->type() != PickleValue::Type::kArray) return bad(fmt::format("'{}' is {}", name, items[i + 1]->What()));
    const Array& array = items[i + 1]->array();
    if (IsFloat(array.dtype())) {
      weights.tensors[name] = Stored("F32", array.shape(), array.Floats());
    } else {
      FKDB_ASSIGN(const std::vector<int64_t> numbers, array.Integers());
      weights.tensors[name] = Stored("I64", array.shape(), numbers);
    }
  }
  return weights;
}

void LeaveOutPrefix(TensorFile* file) {
  const auto& tensors = file->tensors;
  const bool all = !tensors.empty() && std::all_of(tensors.begin(), tensors.end(), [](const auto& t) { return t.first.starts_with(kParallelPrefix); });
  if (!all) return;
  std::map<std::string, StoredTensor> shorter;
  for (auto& [name, tensor] : file->tensors) shorter[name.substr(kParallelPrefix.size())] = std::move(tensor);
  file->tensors = std::move(shorter);
}

}  // namespace

Result<TensorFile> ReadWeights(const std::filesystem::path& path) {
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec)) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no such file (expected weights: .safetensors, or what torch.save wrote)", path.string()));
  }
  FKDB_ASSIGN(TensorFile file, IsTorchFile(path) ? FromTorchFile(path) : ReadTensorFile(path));
  LeaveOutPrefix(&file);
  return file;
}

Result<void> LoadInitialWeights(const std::filesystem::path& path, std::string_view classifier, bool fresh_classifier, Model* model) {
  FKDB_ASSIGN(TensorFile file, ReadWeights(path));
  TensorFile own;
  StoreModel(*model, "", &own);
  const std::string last = std::string(classifier) + ".weight";
  if (fresh_classifier) {
    std::erase_if(file.tensors, [&](const auto& t) { return t.first.starts_with(std::string(classifier) + "."); });
    for (const auto& [name, tensor] : own.tensors) {
      if (name.starts_with(std::string(classifier) + ".")) file.tensors[name] = tensor;
    }
  } else if (const auto there = file.tensors.find(last), here = own.tensors.find(last); there != file.tensors.end() && here != own.tensors.end()) {
    const auto &before = there->second.shape, &now = here->second.shape;
    if (before.size() == 2 && before[1] == now[1] && before[0] != now[0]) {
      return Fail(ErrorCode::kMismatch, fmt::format("{}: its classifier '{}' is of {} classes, the training of {}: --new-head draws a fresh one and "
                                                    "loads the rest", path.string(), classifier, before[0], now[0]));
    }
  }
  for (auto& [name, tensor] : file.tensors) {
    if (const auto wanted = own.tensors.find(name); wanted != own.tensors.end()) Convert(wanted->second.dtype, &tensor);
  }
  if (auto loaded = LoadModel(file, "", model); !loaded) {
    return Fail(loaded.error().code, fmt::format("{}: {}", path.string(), loaded.error().message));
  }
  return {};
}

}  // namespace fkdb
