// SPDX-License-Identifier: Apache-2.0
// image/ for Python: data sets, decoding, and crops as a network's input.
#include <fmt/format.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <mutex>

#include "db/sha256.h"
#include "format/crop_op.h"
#include "format/hash.h"
#include "format/text.h"
#include "image/crop_inputs.h"
#include "image/data_set.h"
#include "image/partner_images.h"
#include "python/bind.h"

namespace fkdb::python {
namespace {

using DataSetPtr = std::shared_ptr<DataSet>;
using Bytes = std::span<const std::byte>;

Bytes Of(const nb::bytes& file) { return {reinterpret_cast<const std::byte*>(file.c_str()), file.size()}; }

// (height, width, channels)
AnyArray PixelsOf(Image image) {
  return Owned(std::move(image.pixels), {image.height, image.width, image.channels});
}

AnyArray Decode(const nb::bytes& file) {
  return PixelsOf(WithoutGil([&] { return DecodeImage(Of(file)); }));
}

// A copy of the caller's image, or the whole of what `decode` gives.
Image ImageFrom(const ArrayIn<uint8_t, 3>& pixels) {
  const size_t channels = pixels.shape(2);
  if (channels != 1 && channels != 3) {
    Raise({ErrorCode::kInvalidArgument, fmt::format("an image of {} channels: expected (height, width, 3) or (height, width, 1)", channels)});
  }
  return {static_cast<uint32_t>(pixels.shape(0)), static_cast<uint32_t>(pixels.shape(1)), static_cast<uint32_t>(channels),
          std::vector<uint8_t>(pixels.data(), pixels.data() + pixels.size())};
}

// Large buffers of batches that are gone, for the next: the system would clear new pages for each.
class Reused {
 public:
  static std::vector<float> Take(size_t size) {
    std::vector<float> buffer;
    {
      const std::lock_guard lock(mutex_);
      if (!spare_.empty()) {
        buffer = std::move(spare_.back());
        spare_.pop_back();
      }
    }
    buffer.resize(size);
    return buffer;
  }
  static void Give(std::vector<float> buffer) {
    const std::lock_guard lock(mutex_);
    if (spare_.size() < kMost) spare_.push_back(std::move(buffer));
  }

 private:
  static constexpr size_t kMost = 2;
  inline static std::mutex mutex_;
  inline static std::vector<std::vector<float>> spare_;
};

// One thread's crops to inputs.
class CropMaker {
 public:
  explicit CropMaker(InputSpec spec) : inputs_(Unwrap(CropInputs::Make(spec))) {}

  // Samples (N, height, width, channels) of the batch's crops from the images of `data`, each decoded once.
  void SamplesFromDataSet(const DataSetPtr& data, const ExpandedBatch& batch,
                          const nb::ndarray<uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>& out) {
    CheckSamples(batch.labels.size(), out);
    if (data->channels() != inputs_.channels()) {
      Raise({ErrorCode::kInvalidArgument, fmt::format("images of {} channels for means of {}", data->channels(), inputs_.channels())});
    }
    if (data != partners_of_) {
      partners_of_ = data;
      partners_ = std::make_unique<PartnerImages>(*data);
    }
    WithoutGil([&]() -> Result<void> {
      for (const BatchImage& image : batch.labels.images()) FKDB_TRY(OneImage(*data, batch, image, out.data()));
      return {};
    });
  }

  // samples (N, height, width, channels) normalized: (N, channels, height, width) in memory that is used again.
  ArrayOut<float> Normalize(const nb::ndarray<const uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>& samples) {
    CheckSamples(samples.shape(0), samples);
    const size_t count = samples.shape(0);
    auto* kept = new std::vector<float>(Reused::Take(count * inputs_.samples()));
    const nb::capsule owner(kept, [](void* p) noexcept {
      const std::unique_ptr<std::vector<float>> buffer(static_cast<std::vector<float>*>(p));
      Reused::Give(std::move(*buffer));
    });
    Released([&] { inputs_.Normalize(samples.data(), count, kept->data()); });
    return ArrayOut<float>(kept->data(), {count, inputs_.channels(), inputs_.height(), inputs_.width()}, owner);
  }

  void FromImage(const ArrayIn<uint8_t, 3>& pixels, const ArrayIn<int64_t, 2>& boxes, const ArrayIn<bool, 1>& flips,
                 const nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>& out) {
    const auto [image, regions] = Check(pixels, boxes, flips);
    CheckOut(regions.size(), out);
    Released([&, &image = image, &regions = regions] {
      inputs_.Run(image, regions, {reinterpret_cast<const uint8_t*>(flips.data()), flips.size()}, out.data());
    });
  }

  // The same as samples (M, height, width, channels), not normalized.
  AnyArray Samples(const ArrayIn<uint8_t, 3>& pixels, const ArrayIn<int64_t, 2>& boxes, const ArrayIn<bool, 1>& flips) {
    const auto [image, regions] = Check(pixels, boxes, flips);
    std::vector<uint8_t> out(regions.size() * inputs_.samples());
    Released([&, &image = image, &regions = regions] {
      for (size_t i = 0; i < regions.size(); ++i) {
        inputs_.Samples(image, regions[i], flips.data()[i], out.data() + i * inputs_.samples());
      }
    });
    return Owned(std::move(out), {regions.size(), inputs_.height(), inputs_.width(), inputs_.channels()});
  }

 private:
  std::pair<Image, std::vector<PixelBox>> Check(const ArrayIn<uint8_t, 3>& pixels, const ArrayIn<int64_t, 2>& boxes,
                                                const ArrayIn<bool, 1>& flips) const {
    Image image = ImageFrom(pixels);
    std::vector<PixelBox> regions = Unwrap(BoxesFrom(boxes));
    const auto bad = [](std::string message) { Raise({ErrorCode::kInvalidArgument, std::move(message)}); };
    if (flips.size() != regions.size()) bad(fmt::format("{} boxes and {} flips", regions.size(), flips.size()));
    if (image.channels != inputs_.channels()) bad(fmt::format("an image of {} channels for means of {}", image.channels, inputs_.channels()));
    for (const PixelBox& box : regions) {
      if (box.height == 0 || box.width == 0 || uint64_t{box.top} + box.height > image.height ||
          uint64_t{box.left} + box.width > image.width) {
        bad(fmt::format("box [{}, {}, {}, {}] is not inside an image of {} x {} pixels", box.top, box.left, box.height, box.width,
                        image.width, image.height));
      }
    }
    return {std::move(image), std::move(regions)};
  }

  void CheckOut(size_t crops, const nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>& out) const {
    if (out.shape(0) != crops || out.shape(1) != inputs_.channels() || out.shape(2) != inputs_.height() || out.shape(3) != inputs_.width()) {
      Raise({ErrorCode::kInvalidArgument, fmt::format("inputs of {} x {} x {} x {}: expected {} x {} x {} x {}", out.shape(0), out.shape(1),
                                                      out.shape(2), out.shape(3), crops, inputs_.channels(), inputs_.height(), inputs_.width())});
    }
  }

  template <class Array>
  void CheckSamples(size_t crops, const Array& samples) const {
    if (samples.shape(0) != crops || samples.shape(1) != inputs_.height() || samples.shape(2) != inputs_.width() || samples.shape(3) != inputs_.channels()) {
      Raise({ErrorCode::kInvalidArgument, fmt::format("samples of {} x {} x {} x {}: expected {} x {} x {} x {}", samples.shape(0), samples.shape(1),
                                                      samples.shape(2), samples.shape(3), crops, inputs_.height(), inputs_.width(), inputs_.channels())});
    }
  }

  Result<void> OneImage(const DataSet& data, const ExpandedBatch& batch, const BatchImage& labelled, uint8_t* out) {
    const auto boxes = batch.labels.boxes().subspan(labelled.first_crop, labelled.num_crops);
    const auto flips = batch.labels.flips().subspan(labelled.first_crop, labelled.num_crops);
    const auto region = [&](uint32_t width, uint32_t height) -> Result<PixelBox> {
      if (width == labelled.width && height == labelled.height) return Around(boxes);
      return Fail(ErrorCode::kMismatch, fmt::format("image '{}': it was {} x {} pixels when labelled and is {} x {} now",
                                                    Printable(data.keys()[labelled.ordinal]), labelled.width, labelled.height, width, height));
    };
    FKDB_TRY(data.LoadRegion(labelled.ordinal, region, &image_));
    for (size_t i = 0; i < boxes.size(); ++i) {
      const size_t n = labelled.first_crop + i;
      std::vector<CropOp> ops;
      if (batch.labels.has_ops()) {
        FKDB_ASSIGN(ops, ParseOpWords(batch.labels.ops(n)));
      }
      const auto made = inputs_.Samples(image_, boxes[i], flips[i], ops, *partners_, out + n * inputs_.samples());
      if (!made) return Fail(made.error().code, fmt::format("image '{}': {}", Printable(data.keys()[labelled.ordinal]), made.error().message));
    }
    return {};
  }

  CropInputs inputs_;
  Image image_;
  DataSetPtr partners_of_;
  std::unique_ptr<PartnerImages> partners_;
};

InputSpec MakeInputSpec(uint32_t height, uint32_t width, const std::string& interpolation, const std::string& resampling,
                        std::vector<double> mean, std::vector<double> std) {
  if (height == 0 || width == 0) Raise({ErrorCode::kInvalidArgument, "an input of 0 pixels"});
  return {height, width, Unwrap(ParseInterpolation(interpolation)), std::move(mean), std::move(std), Unwrap(ParsePassOrder(resampling))};
}

}  // namespace

void BindPixels(nb::module_& module) {
  nb::class_<DataSet>(module, "DataSet")
      .def_prop_ro("name", [](const DataSet& data) { return ToPython(std::string_view(data.name())); })
      .def_prop_ro("layout", [](const DataSet& data) { return ToPython(std::string_view(data.layout())); })
      .def_prop_ro("channels", &DataSet::channels)
      .def("__len__", &DataSet::size)
      .def("keys", [](const DataSet& data) { return ToPython(data.keys()); })
      .def("class_names", [](const DataSet& data) { return ToPython(data.class_names()); })
      .def("key", [](const DataSet& data, uint64_t ordinal) { return ToPython(std::string_view(data.keys().at(ordinal))); }, nb::arg("ordinal"))
      .def("class_index", [](const DataSet& data, uint64_t ordinal) {
        return ordinal < data.size() ? data.class_index(ordinal) : -1;
      }, nb::arg("ordinal"))
      .def("key_list_sha256", [](const DataSet& data) { return Released([&] { return Sha256OfKeys(data.keys()); }); })
      .def("class_indices", [](const DataSet& data) {
        std::vector<int32_t> classes;
        for (uint64_t i = 0; i < data.size(); ++i) classes.push_back(data.class_index(i));
        return Owned(std::move(classes), {data.size()});
      })
      .def("missing", [](const DataSet& data) {
        std::vector<int64_t> ordinals;
        for (uint64_t i = 0; i < data.size(); ++i) {
          if (!data.has(i)) ordinals.push_back(static_cast<int64_t>(i));
        }
        const size_t count = ordinals.size();
        return Owned(std::move(ordinals), {count});
      }, "Ordinals without an image: of labelled_images alone.")
      .def("load", [](const DataSet& data, uint64_t ordinal) {
        if (ordinal >= data.size()) Raise({ErrorCode::kNotFound, fmt::format("image {} of {}", ordinal, data.size())});
        std::vector<std::byte> file;
        Image image = WithoutGil([&] { return data.Load(ordinal, &file); });
        const ContentHash hash = HashContent(file);
        return nb::typed<nb::tuple, AnyArray, nb::bytes>(
            nb::make_tuple(PixelsOf(std::move(image)), nb::bytes(reinterpret_cast<const char*>(hash.data()), hash.size())));
      }, nb::arg("ordinal"), "The image's pixels (height, width, channels) and the hash of its file.");
  module.def("open_images", [](const std::filesystem::path& path, uint64_t limit) -> DataSetPtr {
    return WithoutGil([&]() -> Result<DataSetPtr> {
      FKDB_ASSIGN(std::unique_ptr<DataSet> data, OpenDataSet(path, limit));
      return DataSetPtr(std::move(data));
    });
  }, nb::arg("path"), nb::arg("limit") = 0);
  module.def("decode", &Decode, nb::arg("file"));
  nb::class_<InputSpec>(module, "InputSpec").def_ro("height", &InputSpec::height).def_ro("width", &InputSpec::width);
  module.def("make_input_spec", &MakeInputSpec, nb::arg("height"), nb::arg("width"), nb::arg("interpolation"), nb::arg("resampling"),
             nb::arg("mean"), nb::arg("std"));
  nb::class_<CropMaker>(module, "CropMaker")
      .def(nb::init<InputSpec>(), nb::arg("spec"))
      .def("from_image", &CropMaker::FromImage, nb::arg("pixels"), nb::arg("boxes"), nb::arg("flips"), nb::arg("out").noconvert())
      .def("samples_from_data_set", &CropMaker::SamplesFromDataSet, nb::arg("data"), nb::arg("batch"), nb::arg("out").noconvert())
      .def("normalize", &CropMaker::Normalize, nb::arg("samples"))
      .def("samples", &CropMaker::Samples, nb::arg("pixels"), nb::arg("boxes"), nb::arg("flips"));
}

}  // namespace fkdb::python
