// SPDX-License-Identifier: Apache-2.0
// Sparse labels of a batch as numpy arrays of the batch's own memory.
#include "cuda/unpack.h"
#include "python/bind.h"

namespace fkdb::python {

void ExpandedBatch::Expand() {
  const LabelSpec& spec = labels.spec();
  const size_t crops = labels.size();
  arrays.indices.resize(crops * spec.num_indices());
  arrays.values.resize(crops * spec.num_values());
  UnpackLabels(spec, labels.indices(), labels.values(), crops, arrays.indices.data(), arrays.values.data());
}

void BindBatch(nb::module_& module) {
  using Self = nb::handle_t<ExpandedBatch>;
  const auto of = [](Self self) -> ExpandedBatch& { return *nb::inst_ptr<ExpandedBatch>(self); };
  nb::class_<ExpandedBatch>(module, "LabelBatch", "Sparse labels of N crops of I images, as numpy arrays of one buffer.")
      .def("__len__", [](const ExpandedBatch& batch) { return batch.labels.size(); })
      // Class indices are below 2^24: the same bits as signed numbers, which more libraries take.
      .def_prop_ro("indices", [of](Self self) {
        ExpandedBatch& batch = of(self);
        return View(reinterpret_cast<int32_t*>(batch.arrays.indices.data()), {batch.labels.size(), batch.labels.spec().num_indices()}, self);
      }, "(N, K) int32: the classes whose probabilities are stored; K = 0 for labels of kind full and logits.")
      .def_prop_ro("values", [of](Self self) {
        ExpandedBatch& batch = of(self);
        return View(batch.arrays.values.data(), {batch.labels.size(), batch.labels.spec().num_values()}, self);
      }, "(N, K) float32: their probabilities; (N, C) of kind full and logits, (N, 0) of kind hard.")
      .def_prop_ro("boxes", [of](Self self) {
        ExpandedBatch& batch = of(self);
        return View(reinterpret_cast<int32_t*>(batch.labels.boxes().data()), {batch.labels.size(), 4}, self);
      }, "(N, 4) int32: top, left, height, width in pixels of the original image.")
      .def_prop_ro("flips", [of](Self self) {
        ExpandedBatch& batch = of(self);
        return View(reinterpret_cast<bool*>(batch.labels.flips().data()), {batch.labels.size()}, self);
      }, "(N,) bool: mirrored left to right after crop and resize.")
      .def_prop_ro("ordinals", [](const ExpandedBatch& batch) {
        std::vector<int64_t> ordinals;
        for (const BatchImage& image : batch.labels.images()) ordinals.push_back(static_cast<int64_t>(image.ordinal));
        const size_t count = ordinals.size();
        return Owned(std::move(ordinals), {count});
      }, "(I,) int64: the images; image i has crops i * m to (i + 1) * m - 1.")
      .def_prop_ro("sizes", [](const ExpandedBatch& batch) {
        std::vector<int32_t> sizes;
        for (const BatchImage& image : batch.labels.images()) {
          sizes.push_back(static_cast<int32_t>(image.height));
          sizes.push_back(static_cast<int32_t>(image.width));
        }
        const size_t count = sizes.size() / 2;
        return Owned(std::move(sizes), {count, 2});
      }, "(I, 2) int32: height and width of the images when they were labelled.")
      .def_prop_ro("spec", [](const ExpandedBatch& batch) { return batch.labels.spec(); }, "The LabelSpec of the label set.")
      .def_prop_ro("has_ops", [](const ExpandedBatch& batch) {
        for (size_t n = 0; batch.labels.has_ops() && n < batch.labels.size(); ++n) {
          if (!batch.labels.ops(n).empty()) return true;
        }
        return false;
      }, "Whether any of these crops was changed by further operations.");
}

}  // namespace fkdb::python
