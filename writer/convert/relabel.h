// SPDX-License-Identifier: Apache-2.0
// ReLabel's label maps: `<class>/<name>.pt` for each image, a tensor (2, K, H, W) as torch.save writes it: [0] the scores
// (before softmax) and [1] the classes of the K largest at each cell of a grid of H x W over the image.
#pragma once

#include <filesystem>
#include <memory>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/label_source.h"
#include "writer/convert/pickle.h"

namespace fkdb {

// What one file says. Errors: Corruption (not such a tensor; says what differs).
Result<ImageLabels> ParseRelabel(const PickleValue& root);

// The label maps below `root` of images that lie in `folder`. Borrows the data set. Errors: those of
// LabelFiles::Find.
Result<std::unique_ptr<LabelSource>> OpenRelabel(const std::filesystem::path& root, const std::filesystem::path& folder, const LabelledImages& images);

}  // namespace fkdb
