// SPDX-License-Identifier: Apache-2.0
// writer/label_writer.h for Python: label sets from any labelling loop.
#include <fmt/format.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <mutex>

#include "python/bind.h"
#include "writer/label_writer.h"

namespace fkdb::python {
namespace {

namespace fs = std::filesystem;
using Outputs = ArrayIn<float, 2>;

// One caller at a time: without the GIL nothing else says so.
struct Writer {
  InItsProcess<LabelWriter> labels;
  std::mutex mutex;

  explicit Writer(LabelWriter opened) : labels(std::make_unique<LabelWriter>(std::move(opened))) {}
  template <class Work>
  auto Locked(const Work& work) {
    if (!labels.here()) Raise({ErrorCode::kInvalidArgument, "a writer works in the process that opened it, not in a forked one"});
    return WithoutGil([&] {
      const std::lock_guard lock(mutex);
      return work();
    });
  }
};

// The recipe, one argument a field of the manifest.
std::unique_ptr<Writer> OpenWriter(const fs::path& path, const LabelSpec& spec, const nb::iterable& keys, nb::handle data_set, nb::handle layout,
                       uint32_t channels, const nb::iterable& class_names, nb::handle teacher, const std::string& teacher_sha256,
                       uint32_t teacher_batch_size, uint32_t crops, uint64_t seed, std::array<double, 2> scale, std::array<double, 2> ratio,
                       double flip_probability, uint32_t input_height, uint32_t input_width, const std::string& interpolation,
                       const std::string& resampling, std::vector<double> mean, std::vector<double> std, const std::string& created,
                       nb::handle licence, nb::handle notes, bool resume, bool overwrite) {
  Manifest recipe;
  recipe.spec = spec;
  recipe.data_set = {FromPython(data_set), FromPython(layout), 0, channels, "", FromPython(class_names)};
  recipe.teachers = {{FromPython(teacher), teacher_sha256}};
  recipe.teacher_batch_size = teacher_batch_size;
  recipe.augmentation = {crops,       seed,          scale,      ratio,    flip_probability, input_height, input_width, interpolation,
                         resampling, AugmentationInfo().exif, kHighByte, std::move(mean), std::move(std)};
  recipe.provenance = {"fkdb (Python) " FKDB_VERSION, created, FromPython(licence), FromPython(notes)};
  LabelFileWriterOptions options;
  options.resume = resume;
  options.overwrite = overwrite;
  std::vector<std::string> names = FromPython(keys);
  return std::make_unique<Writer>(WithoutGil([&] { return LabelWriter::Open(path, std::move(recipe), std::move(names), options); }));
}

// (M, 4) and (M)
nb::typed<nb::tuple, AnyArray, AnyArray> Sample(const Writer& writer, nb::handle key, uint32_t width, uint32_t height) {
  const std::vector<SampledCrop> crops = Unwrap(writer.labels->Sample(FromPython(key), width, height));
  std::vector<int64_t> boxes;
  std::vector<uint8_t> flips;
  for (const SampledCrop& crop : crops) {
    for (const uint32_t side : {crop.box.top, crop.box.left, crop.box.height, crop.box.width}) boxes.push_back(side);
    flips.push_back(crop.flip);
  }
  const size_t m = crops.size();
  return nb::make_tuple(Owned(std::move(boxes), {m, 4}), AsBool(Owned(std::move(flips), {m})));
}

void Append(Writer& writer, nb::handle key, uint32_t width, uint32_t height, const ArrayIn<int64_t, 2>& boxes,
            const ArrayIn<bool, 1>& flips, std::optional<int32_t> class_index, std::optional<nb::bytes> content_hash,
            std::optional<Outputs> logits, std::optional<Outputs> probabilities) {
  Record record;
  record.width = width;
  record.height = height;
  record.class_index = class_index.value_or(kNoClass);
  if (content_hash) {
    if (content_hash->size() != record.content_hash.size()) {
      Raise({ErrorCode::kInvalidArgument, fmt::format("a content hash of {} bytes: expected {}", content_hash->size(), record.content_hash.size())});
    }
    std::memcpy(record.content_hash.data(), content_hash->c_str(), record.content_hash.size());
  }
  record.pixel_boxes = Unwrap(BoxesFrom(boxes));
  record.flips.assign(flips.data(), flips.data() + flips.size());
  const std::string name = FromPython(key);
  const Outputs& outputs = logits ? *logits : *probabilities;
  writer.Locked([&] {
    return writer.labels->Append(name, std::move(record), {outputs.data(), outputs.size()}, outputs.shape(1),
                         logits ? OutputKind::kLogits : OutputKind::kProbabilities);
  });
}

}  // namespace

void BindWriter(nb::module_& module) {
  nb::class_<Writer>(module, "Writer")
      .def_prop_ro("num_images", [](Writer& writer) { return writer.Locked([&] { return Result<uint64_t>(writer.labels->num_images()); }); })
      .def("keys", [](const Writer& writer) { return ToPython(writer.labels->keys()); })
      .def("sample", &Sample, nb::arg("key"), nb::arg("width"), nb::arg("height"))
      .def("append", &Append, nb::arg("key"), nb::arg("width"), nb::arg("height"), nb::arg("boxes"), nb::arg("flips"),
           nb::arg("class_index").none(), nb::arg("content_hash").none(), nb::arg("logits").none(), nb::arg("probabilities").none())
      .def("skip", [](Writer& writer, nb::handle key, nb::handle reason) {
             const std::string name = FromPython(key), why = FromPython(reason);
             writer.Locked([&] { return writer.labels->Skip(name, why); });
           }, nb::arg("key"), nb::arg("reason"))
      .def("flush", [](Writer& writer) { writer.Locked([&] { return writer.labels->Flush(); }); })
      .def("finish", [](Writer& writer) {
        return ToPython(std::string_view(ToJson(writer.Locked([&] { return writer.labels->Finish(); }))));
      });
  module.def("open_writer", &OpenWriter, nb::arg("path"), nb::arg("spec"), nb::arg("keys"), nb::kw_only(), nb::arg("data_set"),
             nb::arg("layout"), nb::arg("channels"), nb::arg("class_names"), nb::arg("teacher"), nb::arg("teacher_sha256"),
             nb::arg("teacher_batch_size"), nb::arg("crops"), nb::arg("seed"), nb::arg("scale"), nb::arg("ratio"),
             nb::arg("flip_probability"), nb::arg("input_height"), nb::arg("input_width"), nb::arg("interpolation"), nb::arg("resampling"),
             nb::arg("mean"), nb::arg("std"), nb::arg("created"), nb::arg("licence"), nb::arg("notes"), nb::arg("resume"),
             nb::arg("overwrite"));
}

}  // namespace fkdb::python
