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

// A list of tensors over one storage, in protocol 4, as batches are saved.
std::string Tensors() {
  std::string out = "\x80\x04](";
  const auto text = [&](std::string_view t) {
    out += '\x8c';
    out += static_cast<char>(t.size());
    out += t;
  };
  const auto name = [&](std::string_view module, std::string_view n) {
    text(module);
    text(n);
    out += '\x93';
  };
  const auto tensor = [&](std::string_view kind, std::string_view shape, std::string_view strides) {
    name("torch._utils", "_rebuild_tensor_v2");
    out += "((";
    text("storage");
    name("torch", kind);
    text("0");
    text("cpu");
    out += "K\x10tQK";
    out += '\0';
    out += shape;
    out += strides;
    out += '\x89';
    name("collections", "OrderedDict");
    out += ")RtR";
  };
  tensor("FloatStorage", "K\x02K\x04\x86", "K\x04K\x01\x86");
  tensor("BoolStorage", "K\x02\x85", "K\x01\x85");
  tensor("ByteStorage", "K\x02\x85", "K\x01\x85");
  out += "G?\xe0";
  out.append(6, '\0');
  out += "(K\1K\2K\3K\4l";
  tensor("HalfStorage", "K\x02K\x03\x86", "K\x03K\x01\x86");
  tensor("ShortStorage", "K\x02K\x03\x86", "K\x03K\x01\x86");
  return out + "e.";
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  std::vector<std::string> seeds;
  for (const std::string& program : {Arrays({{DType::kF32, {2, 4}}, {DType::kBool, {2}}, {DType::kF32, {2, 2, 5}}}), Arrays({{DType::kF16, {2, 4}}, {DType::kBool, {2}}, {DType::kI64, {2}}}),
                                     Tensors(), std::string("\x80\x04}(\x8c\x01" "a]K\x01" "aNu."), std::string("\x80\x05\x96\x04\0\0\0\0\0\0\0abcd.", 16)}) {
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
