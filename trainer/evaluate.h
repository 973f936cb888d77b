// SPDX-License-Identifier: Apache-2.0
// Top-1 and top-5 of a model on a data set. Includes Torch: for trainer's own sources only.
#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <cstdint>
#include <optional>

#include "format/result.h"
#include "image/data_set.h"
#include "trainer/batch_loader.h"
#include "trainer/models.h"

namespace fkdb {

struct EvaluationView {
  // The shorter side is resized to `resize`, then the centre `crop` x `crop` is taken. 0: images
  // as they are, which must all have the input's size.
  uint32_t resize = 256;
  uint32_t crop = 224;
};

struct Accuracy {
  uint64_t images = 0, right1 = 0, right5 = 0;

  double top1() const { return static_cast<double>(right1) / static_cast<double>(images); }  // share of images, 0 to 1
  double top5() const { return static_cast<double>(right5) / static_cast<double>(images); }
};

// Images without a class are left out, and those of other processes. None if `stop`, which may be null, became true before the end.
// Errors: a broken image; InvalidArgument (no image has a class, or an image's size is not the input's).
Result<std::optional<Accuracy>> Evaluate(Model& model, const DataSet& data, const InputSpec& input,
                                         const EvaluationView& view, c10::Device device, int workers,
                                         const std::atomic<bool>* stop = nullptr, const Shard& shard = {});

}  // namespace fkdb
