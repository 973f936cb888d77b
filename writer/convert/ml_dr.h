// SPDX-License-Identifier: Apache-2.0
// The label files of ml-dr (ImageNet+ and its like): `N.pth.tar` for image N in ImageFolder's order, plain or
// gzipped, as torch.save writes
//
//   (N, [{'params': [..], 'prob': ([p; K], [class; K])}; M])      the K in no order
//
// params, as far as `config.pth.tar` has them: partner (mixing only; None: not mixed), crop (top, left, height, width)
// in pixels, flip, rand-augment [(operation, magnitude)..] or None, erase (top, left, height, width) or None, each a
// pair (this image's, its partner's) where there is a partner; then mixup lambda or None, cutmix [lambda, top, left,
// bottom, right] or None.
#pragma once

#include <filesystem>
#include <memory>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/label_source.h"

namespace fkdb {

// Borrows the data set. Errors: NotFound (no config.pth.tar), Mismatch (numbers of more images than there are), Unsupported (crops of a resized or padded image), those of reading.
Result<std::unique_ptr<LabelSource>> OpenMlDr(const std::filesystem::path& root, const LabelledImages& images);

}  // namespace fkdb
