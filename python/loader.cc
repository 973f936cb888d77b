// SPDX-License-Identifier: Apache-2.0
// The input path of fkdb-train as an iterator: batches made ahead on C++ threads.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <mutex>

#include "image/data_set.h"
#include "python/bind.h"
#include "trainer/batch_loader.h"
#include "trainer/labelled_images.h"
#include "trainer/match.h"
#include "trainer/relabel.h"
#include "trainer/supervision.h"

namespace fkdb::python {
namespace {

// A loader with what it borrows; destroyed before them.
struct Pipeline {
  LabelSetPtr labels;
  std::shared_ptr<DataSet> data;
  std::unique_ptr<Supervision> supervision;
  std::unique_ptr<BatchLoader> loader;
  std::mutex next;  // one caller at a time: without the GIL nothing else says so
};
using PipelinePtr = std::shared_ptr<InItsProcess<Pipeline>>;

// A batch in Python's hands: its memory goes back to the loader when no array shows it any more.
struct LoadedBatch {
  PipelinePtr pipeline;
  std::unique_ptr<TrainBatch> batch;

  LoadedBatch(PipelinePtr from, std::unique_ptr<TrainBatch> taken) : pipeline(std::move(from)), batch(std::move(taken)) {}
  LoadedBatch(LoadedBatch&&) = default;
  ~LoadedBatch() {
    if (batch && pipeline->here()) (*pipeline)->loader->Recycle(std::move(batch));
  }
};

PipelinePtr Open(const std::shared_ptr<DataSet>& data, const LabelSetPtr& labels, const InputSpec& input, const std::string& order,
                 uint32_t crops_per_image, uint32_t batch_size, uint64_t seed, uint32_t first_epoch, uint64_t first_pass,
                 uint64_t first_step, uint32_t num_passes, int workers, uint64_t rank, uint64_t ranks, std::array<double, 2> scale,
                 std::array<double, 2> ratio) {
  const CropOrder crop_order = Unwrap(ParseCropOrder(order));
  return WithoutGil([&]() -> Result<PipelinePtr> {
    auto pipeline = std::make_unique<Pipeline>();
    pipeline->labels = labels;
    pipeline->data = data;
    const CropSampling sampling = {scale, ratio, labels->reader.manifest().augmentation.flip_probability};
    FKDB_ASSIGN(pipeline->supervision, labels->reader.spec().is_map() ? RelabelSupervision(labels->reader, sampling, seed, data.get())
                                                                      : DbSupervision(labels->reader, crop_order, seed, data.get()));
    std::vector<Pass> passes;
    for (uint32_t i = 0; i < num_passes; ++i) passes.push_back({first_epoch + i * crops_per_image, crops_per_image});
    LoaderConfig config = {input, first_pass, std::move(passes), batch_size, seed, first_step, workers, {rank, ranks}};
    FKDB_ASSIGN(pipeline->loader, BatchLoader::Make(*data, *pipeline->supervision, std::move(config)));
    return std::make_shared<InItsProcess<Pipeline>>(std::move(pipeline));
  });
}

std::optional<LoadedBatch> Next(const PipelinePtr& pipeline) {
  if (!pipeline->here()) {
    Raise({ErrorCode::kInvalidArgument, "a loader works in the process that made it: its threads were not forked along"});
  }
  std::unique_ptr<TrainBatch> batch = WithoutGil([&]() -> Result<std::unique_ptr<TrainBatch>> {
    const std::lock_guard lock((*pipeline)->next);
    FKDB_ASSIGN(TrainBatch* const next, (*pipeline)->loader->Next());
    return next == nullptr ? nullptr : (*pipeline)->loader->Release();
  });
  if (batch == nullptr) return std::nullopt;
  return LoadedBatch(pipeline, std::move(batch));
}

}  // namespace

void BindLoader(nb::module_& module) {
  using Self = nb::handle_t<LoadedBatch>;
  const auto of = [](Self self) -> TrainBatch& { return *nb::inst_ptr<LoadedBatch>(self)->batch; };
  nb::class_<LoadedBatch>(module, "LoadedBatch")
      .def_prop_ro("pass_number", [](const LoadedBatch& b) { return b.batch->pass; })
      .def_prop_ro("step", [](const LoadedBatch& b) { return b.batch->step; })
      .def_prop_ro("inputs", [of](Self self) {
        TrainBatch& batch = of(self);
        return View(batch.inputs.data(), {batch.inputs.size()}, self);
      })
      .def_prop_ro("indices", [of](Self self) {
        TrainBatch& batch = of(self);
        return View(reinterpret_cast<int32_t*>(batch.arrays.indices.data()), {batch.labels.size(), batch.labels.spec().num_indices()}, self);
      })
      .def_prop_ro("values", [of](Self self) {
        TrainBatch& batch = of(self);
        return View(batch.arrays.values.data(), {batch.labels.size(), batch.labels.spec().num_values()}, self);
      })
      .def_prop_ro("ordinals", [](const LoadedBatch& b) {
        std::vector<int64_t> ordinals;
        for (const BatchImage& image : std::as_const(b.batch->labels).images()) ordinals.push_back(static_cast<int64_t>(image.ordinal));
        const size_t count = ordinals.size();
        return Owned(std::move(ordinals), {count});
      });
  nb::class_<InItsProcess<Pipeline>>(module, "Pipeline").def("next", &Next).def_prop_ro("max_batches", [](const PipelinePtr& p) {
    return (**p).loader->max_batches();
  });
  module.def("open_pipeline", &Open, nb::arg("data"), nb::arg("labels"), nb::arg("input"), nb::arg("order"), nb::arg("crops_per_image"),
             nb::arg("batch_size"), nb::arg("seed"), nb::arg("first_epoch"), nb::arg("first_pass"), nb::arg("first_step"),
             nb::arg("num_passes"), nb::arg("workers"), nb::arg("rank"), nb::arg("ranks"), nb::arg("scale"), nb::arg("ratio"),
             "scale, ratio: of the fresh crops that label maps label; stored crops have theirs.");
  module.def("check_sampling", [](std::array<double, 2> scale, std::array<double, 2> ratio) {
    if (auto made = CropSampler::Make({scale, ratio}); !made) Raise(made.error());
  }, nb::arg("scale"), nb::arg("ratio"));
  module.def("check_match", [](const LabelSetPtr& labels, const std::shared_ptr<DataSet>& data) {
    WithoutGil([&] { return CheckMatch(labels->reader, *data); });
  }, nb::arg("labels"), nb::arg("data"));
  module.def("labelled_images", [](const LabelSetPtr& labels, const std::shared_ptr<DataSet>& data) {
    return WithoutGil([&]() -> Result<std::shared_ptr<DataSet>> {
      FKDB_TRY(CheckForm(labels->reader, *data));
      FKDB_ASSIGN(auto images, LabelledImages::Of(labels->reader, *data));
      return std::shared_ptr<DataSet>(images.release(), [labels, data](DataSet* both) { delete both; });  // which borrows them
    });
  }, nb::arg("labels"), nb::arg("data"), "The images that both have, numbered as the label set is.");
}

}  // namespace fkdb::python
