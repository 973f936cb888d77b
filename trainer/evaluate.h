// SPDX-License-Identifier: Apache-2.0
// Top-1 and top-5 of a model on a data set. Includes Torch: for trainer's own sources only.
#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "format/result.h"
#include "image/data_set.h"
#include "trainer/accuracy.h"
#include "trainer/batch_loader.h"
#include "trainer/models.h"

namespace fkdb {

struct PredictHooks {
  const std::atomic<bool>* stop = nullptr;   // when true: end without a result
  std::function<void(uint64_t)> progress;    // after each batch: images done
};

// What the model says of `images` (ordinals of `data`), in their order. None if it was stopped before the end.
// Errors: a broken image; InvalidArgument (an image's size is not the input's).
Result<std::optional<std::vector<Top5>>> Predict(Model& model, const DataSet& data, std::span<const uint64_t> images, const InputSpec& input,
                                                 const EvaluationView& view, c10::Device device, int workers, const PredictHooks& hooks = {});

// Images without a class are left out, and those of other processes. None if `stop`, which may be null, became true before the end.
// Errors: those of Predict; InvalidArgument (no image has a class).
Result<std::optional<Accuracy>> Evaluate(Model& model, const DataSet& data, const InputSpec& input,
                                         const EvaluationView& view, c10::Device device, int workers,
                                         const std::atomic<bool>* stop = nullptr, const Shard& shard = {});

}  // namespace fkdb
