// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include "python/bind.h"
#include "reader/epoch_plan.h"
#include "trainer/match.h"
#include "trainer/relabel.h"

namespace fkdb::python {
namespace {

LabelSetPtr Open(const std::filesystem::path& path, bool allow_partial) {
  return WithoutGil([&]() -> Result<LabelSetPtr> {
    FKDB_ASSIGN(Reader reader, Reader::Open(path, {allow_partial}));
    return std::make_shared<OpenLabelSet>(std::move(reader), std::nullopt);
  });
}

// m crops of each ordinal, as a training takes them.
std::unique_ptr<ExpandedBatch> Sample(const LabelSetPtr& set, const ArrayIn<uint64_t, 1>& ordinals, uint32_t m, uint64_t seed,
                                      uint32_t epoch, uint64_t pass, const std::string& order) {
  const CropOrder crop_order = Unwrap(ParseCropOrder(order));
  if (m == 0) Raise({ErrorCode::kInvalidArgument, "0 crops an image: expected 1 or more"});
  const std::span<const uint64_t> images(ordinals.data(), ordinals.size());
  return WithoutGil([&]() -> Result<std::unique_ptr<ExpandedBatch>> {
    auto batch = std::make_unique<ExpandedBatch>();
    const auto choose = [&](size_t image, uint32_t num_crops, std::span<uint32_t> crops) {
      SelectCrops(crop_order, seed, pass, images[image], num_crops, epoch, crops);
    };
    FKDB_TRY(FillBatch(set->reader, images, m, choose, &batch->labels));
    batch->Expand();
    return batch;
  });
}

// m fresh crops of each ordinal, with what label maps say of them.
std::unique_ptr<ExpandedBatch> Pool(const LabelSetPtr& set, const ArrayIn<uint64_t, 1>& ordinals, uint32_t m, uint64_t seed, uint32_t epoch,
                                    std::array<double, 2> scale, std::array<double, 2> ratio) {
  const StepPlan step = {0, {epoch, m}, {ordinals.data(), ordinals.data() + ordinals.size()}};
  return WithoutGil([&]() -> Result<std::unique_ptr<ExpandedBatch>> {
    FKDB_TRY(CheckMaps(set->reader));
    FKDB_ASSIGN(const CropSampler sampler, CropSampler::Make({scale, ratio, set->reader.manifest().augmentation.flip_probability}));
    const FreshCrops crops(sampler, seed);
    auto batch = std::make_unique<ExpandedBatch>();
    FreshCrops::Resize(step, PooledSpec(set->reader), &batch->labels);
    for (size_t i = 0; i < step.ordinals.size(); ++i) FKDB_TRY(AddPooledCrops(set->reader, crops, step, i, &batch->labels));
    batch->Expand();
    return batch;
  });
}

// crops (I, m): which crops of each ordinal.
std::unique_ptr<ExpandedBatch> Take(const LabelSetPtr& set, const ArrayIn<uint64_t, 1>& ordinals, const ArrayIn<uint32_t, 2>& crops) {
  const size_t images = ordinals.size(), m = crops.shape(1);
  if (crops.shape(0) != images) {
    Raise({ErrorCode::kInvalidArgument, fmt::format("crops of {} images for {} ordinals", crops.shape(0), images)});
  }
  return WithoutGil([&]() -> Result<std::unique_ptr<ExpandedBatch>> {
    auto batch = std::make_unique<ExpandedBatch>();
    std::vector<CropRequest> requests(images);
    for (size_t i = 0; i < images; ++i) requests[i] = {ordinals.data()[i], {crops.data() + i * m, m}};
    FKDB_TRY(FillBatch(set->reader, requests, &batch->labels));
    batch->Expand();
    return batch;
  });
}

void Preload(const LabelSetPtr& set, const std::string& mode) {
  const fkdb::Preload parsed = Unwrap(ParsePreload(mode));
  set->preloader.reset();
  set->preloader.emplace(std::make_unique<Preloader>(set->reader.label_set(), parsed));
}

std::optional<nb::str> Key(const LabelSetPtr& set, uint64_t ordinal) {
  const auto key = Unwrap(set->reader.Key(ordinal));
  return key ? std::optional(ToPython(std::string_view(*key))) : std::nullopt;
}

}  // namespace

void BindLabelSet(nb::module_& module) {
  module.def("open", &Open, nb::arg("path"), nb::arg("allow_partial") = false);
  nb::class_<OpenLabelSet>(module, "LabelSet")
      .def("manifest_json", [](const LabelSetPtr& set) { return ToPython(ToJson(set->reader.manifest())); })
      .def_prop_ro("spec", [](const LabelSetPtr& set) { return set->reader.spec(); })
      .def_prop_ro("path", [](const LabelSetPtr& set) { return set->reader.label_set().path(); })
      .def_prop_ro("partial", [](const LabelSetPtr& set) { return set->reader.label_set().partial(); })
      .def_prop_ro("num_images", [](const LabelSetPtr& set) { return set->reader.num_images(); })
      .def("keys", [](const LabelSetPtr& set) { return ToPython(WithoutGil([&] { return set->reader.label_set().AllKeys(); })); })
      .def("key", &Key, nb::arg("ordinal"))
      .def("find", [](const LabelSetPtr& set, nb::handle key) { return Unwrap(set->reader.Find(FromPython(key))); }, nb::arg("key"))
      .def("preload", &Preload, nb::arg("mode"))
      .def("sample", &Sample, nb::arg("ordinals"), nb::arg("m"), nb::arg("seed"), nb::arg("epoch"), nb::arg("pass_number"),
           nb::arg("order"))
      .def("pool", &Pool, nb::arg("ordinals"), nb::arg("m"), nb::arg("seed"), nb::arg("epoch"), nb::arg("scale"), nb::arg("ratio"))
      .def("take", &Take, nb::arg("ordinals"), nb::arg("crops"))
      .def("check_images",
           [](const LabelSetPtr& set, nb::handle name, const nb::iterable& sorted_keys) {
             Unwrap(CheckKeys(set->reader, FromPython(name), FromPython(sorted_keys)));
           },
           nb::arg("name"), nb::arg("sorted_keys"))
      .def("check_classes",
           [](const LabelSetPtr& set, nb::handle name, const nb::iterable& class_names) {
             Unwrap(CheckClasses(set->reader, FromPython(name), FromPython(class_names)));
           },
           nb::arg("name"), nb::arg("class_names"))
      .def("check_pixels", [](const LabelSetPtr& set) { Unwrap(CheckPixels(set->reader)); });
  module.def(
      "image_order",
      [](uint64_t num_images, uint64_t seed, uint64_t pass) {
        const Permutation order = ImageOrder(num_images, seed, pass);
        std::vector<uint64_t> images(num_images);
        for (uint64_t i = 0; i < num_images; ++i) images[i] = order(i);
        return Owned(std::move(images), {num_images});
      },
      nb::arg("num_images"), nb::arg("seed"), nb::arg("pass_number"));
}

}  // namespace fkdb::python
