// SPDX-License-Identifier: Apache-2.0
// Pickles, bare and in the zip archives of torch.save, and what label formats make of them.
#include <string_view>

#include "format/record.h"
#include "tests/fuzz/fuzz.h"
#include "writer/convert/fkd.h"
#include "writer/convert/label_batch_value.h"
#include "writer/convert/pickle_writer.h"
#include "writer/convert/torch_file.h"

namespace fkdb {
namespace {

// The first byte says how the rest is read.
enum Mode : char { kBare = 0, kZip = 1, kWhole = 2 };

std::string Seed(Mode mode, std::string_view rest) {
  std::string seed(1, mode);
  seed += rest;
  return seed;
}

std::string Arrays(const std::vector<std::pair<DType, std::vector<uint64_t>>>& arrays) {
  PickleWriter writer;
  writer.BeginList();
  for (const auto& [dtype, shape] : arrays) {
    uint64_t size = 1;
    for (const uint64_t n : shape) size *= n;
    writer.Add(dtype, shape, std::vector<float>(size, 0.25f));
  }
  writer.EndList();
  return std::move(writer).Finish();
}

// Instructions of protocol 4.
class Program {
 public:
  Program& Add(std::string_view code) {
    out_ += code;
    return *this;
  }
  Program& Text(std::string_view t) {
    out_ += '\x8c';
    out_ += static_cast<char>(t.size());
    return Add(t);
  }
  Program& Name(std::string_view module, std::string_view n) { return Text(module).Text(n).Add("\x93"); }
  Program& Tensor(std::string_view kind, std::string_view shape, std::string_view strides) {
    Name("torch._utils", "_rebuild_tensor_v2").Add("((").Text("storage").Name("torch", kind).Text("0").Text("cpu").Add("K\x10tQK");
    return Add({"\0", 1}).Add(shape).Add(strides).Add("\x89").Name("collections", "OrderedDict").Add(")RtR");
  }
  std::string Finish() { return "\x80\x04" + out_ + "."; }

 private:
  std::string out_;
};

// A list of tensors over one storage, as batches are saved.
std::string Tensors() {
  Program out;
  out.Add("](");
  out.Tensor("FloatStorage", "K\x02K\x04\x86", "K\x04K\x01\x86").Tensor("BoolStorage", "K\x02\x85", "K\x01\x85").Tensor("ByteStorage", "K\x02\x85", "K\x01\x85");
  out.Add("G?\xe0").Add({"\0\0\0\0\0\0", 6}).Add("(K\1K\2K\3K\4l");
  out.Tensor("HalfStorage", "K\x02K\x03\x86", "K\x03K\x01\x86").Tensor("ShortStorage", "K\x02K\x03\x86", "K\x03K\x01\x86");
  return out.Add("e").Finish();
}

// A model's, with the attribute it has beside its tensors.
std::string StateDict() {
  Program out;
  out.Name("collections", "OrderedDict").Add(")R(").Text("w").Tensor("FloatStorage", "K\x02K\x04\x86", "K\x01K\x02\x86").Text("n");
  out.Tensor("LongStorage", ")", ")").Text("p").Name("torch._utils", "_rebuild_parameter").Add("(").Tensor("FloatStorage", "K\x02\x85", "K\x01\x85");
  return out.Add("\x88").Name("collections", "OrderedDict").Add(")RtRu}").Text("_metadata").Add("}sb").Finish();
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  std::vector<std::string> seeds;
  for (const std::string& program : {Arrays({{DType::kF32, {2, 4}}, {DType::kBool, {2}}, {DType::kF32, {2, 2, 5}}}), Arrays({{DType::kF16, {2, 4}}, {DType::kBool, {2}}, {DType::kI64, {2}}}),
                                     Tensors(), StateDict(), std::string("\x80\x04}(\x8c\x01" "a]K\x01" "aNu."), std::string("\x80\x05\x96\x04\0\0\0\0\0\0\0abcd.", 16)}) {
    seeds.push_back(Seed(kBare, program));
    seeds.push_back(Seed(kZip, program));
  }
  LabelSpec spec;
  spec.num_classes = 10;
  spec.kind = LabelKind::kHard;
  spec.top_k = 1;
  spec.values = ValueEncoding::kF32;
  Record record;
  record.width = record.height = 9;
  record.pixel_boxes = {{1, 2, 3, 4}};
  record.flips = {1};
  record.indices = {3};
  const auto file = MakeFkdFile(spec, record, "x").value();
  seeds.push_back(Seed(kWhole, {reinterpret_cast<const char*>(file.data()), file.size()}));
  return seeds;
}

namespace {

void Use(const PickleValue& root) {
  static_cast<void>(ParseFkd(root, 10));
  static_cast<void>(ParseFkd(root, 2));
  static_cast<void>(ParseBatch(root));
  static_cast<void>(root.What());
  if (root.type() != PickleValue::Type::kDict) return;
  for (const PickleValue* const value : root.items()) {  // as weights are read
    if (value->type() != PickleValue::Type::kArray) continue;
    IsFloat(value->array().dtype()) ? static_cast<void>(value->array().Floats()) : static_cast<void>(value->array().Integers());
  }
}

}  // namespace
}  // namespace fkdb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const auto bytes = std::as_bytes(std::span(data + 1, size - 1));
  const std::vector<std::byte> storage(64, std::byte{1});
  if (data[0] == fkdb::kZip || data[0] == fkdb::kWhole) {
    std::vector<std::byte> zip(bytes.begin(), bytes.end());
    if (data[0] == fkdb::kZip) {
      const fkdb::ZipMember members[] = {{"x/data.pkl", bytes}, {"x/data/0", storage}, {"x/data/1", bytes}};
      zip = fkdb::MakeZip(members).value();
    }
    if (const auto file = fkdb::TorchFile::Parse(zip)) fkdb::Use(file->root());
    return 0;
  }
  const fkdb::StorageOf storage_of = [&](std::string_view) -> fkdb::Result<std::span<const std::byte>> { return std::span<const std::byte>(storage); };
  if (const auto pickle = fkdb::Pickle::Read(bytes, storage_of)) fkdb::Use(pickle->root());
  return 0;
}
