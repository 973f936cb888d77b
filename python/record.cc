// SPDX-License-Identifier: Apache-2.0
// One image's record: numpy arrays of the map's own memory wherever the file holds plain arrays.
#include <fmt/format.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include "format/recover.h"
#include "python/bind.h"

namespace fkdb::python {
namespace {

// Validated; whoever holds it holds the map.
struct ImageRecord {
  LabelSetPtr set;
  uint64_t ordinal;
  RecordView view;
  std::span<const std::byte> bytes;
};
using Self = nb::handle_t<ImageRecord>;

const ImageRecord& Of(Self self) { return *nb::inst_ptr<ImageRecord>(self); }

ImageRecord Get(const LabelSetPtr& set, uint64_t ordinal) {
  return WithoutGil([&]() -> Result<ImageRecord> {
    FKDB_ASSIGN(const RecordView view, set->reader.Get(ordinal));
    if (auto valid = view.Validate(); !valid) return Fail(set->reader.About(ordinal, valid.error()));
    FKDB_ASSIGN(const auto bytes, set->reader.label_set().RecordBytes(ordinal));
    return ImageRecord{set, ordinal, view, bytes};
  });
}

// Of the map, read-only.
template <class T>
AnyArray Mapped(Self self, std::span<const T> values, size_t columns) {
  return ToAny(View(values.data(), {values.size() / columns, columns}, self));
}

AnyArray Boxes(Self self) {
  const RecordView& view = Of(self).view;
  if (!view.boxes_u16().empty()) return Mapped(self, view.boxes_u16(), 4);
  if (!view.boxes_u32().empty()) return Mapped(self, view.boxes_u32(), 4);
  if (!view.boxes_f32().empty()) return Mapped(self, view.boxes_f32(), 4);
  const size_t m = view.num_crops();
  if (view.spec().boxes != BoxEncoding::kPixel) {
    std::vector<float> boxes;
    for (uint32_t i = 0; i < m; ++i) {
      const FractionBox box = view.fraction_box(i);
      boxes.insert(boxes.end(), {box.top, box.left, box.height, box.width});
    }
    return Owned(std::move(boxes), {m, 4});
  }
  std::vector<uint32_t> boxes;
  for (uint32_t i = 0; i < m; ++i) {
    const PixelBox box = view.pixel_box(i);
    boxes.insert(boxes.end(), {box.top, box.left, box.height, box.width});
  }
  return Owned(std::move(boxes), {m, 4});
}

AnyArray PixelBoxes(Self self) {
  const RecordView& view = Of(self).view;
  std::vector<int32_t> boxes;
  for (uint32_t i = 0; i < view.num_crops(); ++i) {
    const PixelBox box = view.pixel_box(i);
    for (const uint32_t side : {box.top, box.left, box.height, box.width}) boxes.push_back(static_cast<int32_t>(side));
  }
  return Owned(std::move(boxes), {view.num_crops(), 4});
}

AnyArray Flips(Self self) {
  const RecordView& view = Of(self).view;
  std::vector<uint8_t> flips(view.num_crops());
  for (uint32_t i = 0; i < flips.size(); ++i) flips[i] = view.flip(i);
  return AsBool(Owned(std::move(flips), {view.num_crops()}));
}

AnyArray Indices(Self self) {
  const RecordView& view = Of(self).view;
  const size_t k = view.spec().num_indices(), m = view.num_crops();
  if (!view.indices_u16().empty()) return Mapped(self, view.indices_u16(), k);
  if (!view.indices_u32().empty()) return Mapped(self, view.indices_u32(), k);
  std::vector<uint32_t> indices(m * k);
  for (uint32_t i = 0; i < m; ++i) view.CopyIndices(i, indices.data() + i * k);
  return Owned(std::move(indices), {m, k});
}

AnyArray Values(Self self) {
  const RecordView& view = Of(self).view;
  const size_t k = view.spec().num_values(), m = view.num_crops();
  if (!view.values_f32().empty()) return Mapped(self, view.values_f32(), k);
  if (!view.values_16().empty() && view.spec().values == ValueEncoding::kF16) {
    const size_t shape[] = {m, k};
    return ToAny(nb::ndarray<nb::numpy, nb::ro>(view.values_16().data(), 2, shape, self, nullptr,
                                                       {static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1}));
  }
  std::vector<float> values(m * k);
  for (uint32_t i = 0; i < m; ++i) view.CopyValues(i, values.data() + i * k);
  return Owned(std::move(values), {m, k});
}

AnyArray Dense(Self self, float tau) {
  const RecordView& view = Of(self).view;
  const LabelSpec& spec = view.spec();
  const size_t m = view.num_crops(), c = spec.num_classes;
  std::vector<uint32_t> indices(spec.num_indices());
  std::vector<float> values(spec.num_values()), dense(m * c);
  for (uint32_t i = 0; i < m; ++i) {
    view.CopyIndices(i, indices.data());
    view.CopyValues(i, values.data());
    RecoverCrop(spec, indices, values, tau, std::span(dense).subspan(i * c, c));
  }
  return Owned(std::move(dense), {m, c});
}

// A list for each crop of (name, parameters by name); a partner is the hash of its key.
nb::list Ops(Self self) {
  const RecordView& view = Of(self).view;
  nb::list all;
  for (uint32_t i = 0; i < view.num_crops(); ++i) {
    nb::list crop;
    for (const CropOp& op : Unwrap(view.Ops(i))) {
      const OpInfo& info = *InfoOf(op.kind);
      nb::dict parameters;
      if (info.has_partner) parameters["partner"] = op.partner;
      for (size_t v = 0; v < info.values.size(); ++v) parameters[ToPython(info.values[v])] = op.values[v];
      crop.append(nb::make_tuple(ToPython(info.name), parameters));
    }
    all.append(crop);
  }
  return all;
}

}  // namespace

void BindRecord(nb::module_& module) {
  nb::class_<ImageRecord>(module, "ImageRecord")
      .def_ro("ordinal", &ImageRecord::ordinal)
      .def_prop_ro("width", [](const ImageRecord& r) { return r.view.width(); })
      .def_prop_ro("height", [](const ImageRecord& r) { return r.view.height(); })
      .def_prop_ro("class_index", [](const ImageRecord& r) -> std::optional<int32_t> {
        return r.view.class_index() == kNoClass ? std::nullopt : std::optional(r.view.class_index());
      })
      .def_prop_ro("num_crops", [](const ImageRecord& r) { return r.view.num_crops(); })
      .def_prop_ro("skip_reason", [](const ImageRecord& r) -> std::optional<nb::str> {
        return r.view.skipped() ? std::optional(ToPython(r.view.skip_reason())) : std::nullopt;
      })
      .def_prop_ro("content_hash", [](const ImageRecord& r) {
        const ContentHash hash = r.view.content_hash();
        return nb::bytes(reinterpret_cast<const char*>(hash.data()), hash.size());
      })
      .def_prop_ro("boxes", &Boxes)
      .def_prop_ro("pixel_boxes", &PixelBoxes)
      .def_prop_ro("flips", &Flips)
      .def_prop_ro("indices", &Indices)
      .def_prop_ro("values", &Values)
      .def_prop_ro("ops", &Ops)
      .def_prop_ro("raw", [](Self self) {
        const auto bytes = Of(self).bytes;
        return View(reinterpret_cast<const uint8_t*>(bytes.data()), {bytes.size()}, self);
      })
      .def("dense", &Dense, nb::arg("tau"));
  module.def("get_record", &Get, nb::arg("label_set"), nb::arg("ordinal"));
}

}  // namespace fkdb::python
