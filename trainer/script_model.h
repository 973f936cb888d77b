// SPDX-License-Identifier: Apache-2.0
// A student of somebody else's: a scripted TorchScript module. Includes Torch: for trainer's own sources only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>

#include "format/result.h"
#include "trainer/models.h"

namespace fkdb {

// Does `model` name a file, rather than a network of ours?
bool IsScriptFile(std::string_view model);

struct ModelShape {
  int64_t channels = 3, height = 224, width = 224;  // of an input
  int64_t classes = 1000;  // 0: as many as a scripted module has
};

// With the weights of the file; parameters and buffers have the module's own names. A copy of it was
// tried in eval mode: the module and Torch's generator are as they were.
// Errors: NotFound, Model (no TorchScript; traced, in the whole or in part: its batch norms would not follow train and eval; without
// parameters), Mismatch (does not take such inputs, or gives something other than (N, classes)).
Result<std::shared_ptr<Model>> LoadScriptModel(const std::filesystem::path& file, const ModelShape& shape);

}  // namespace fkdb
