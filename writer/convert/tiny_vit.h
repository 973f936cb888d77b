// SPDX-License-Identifier: Apache-2.0
// TinyViT's sparse logits: a folder `logits_topK_epochE` for each epoch, in it for each rank R `rankR-keys.txt`, a key
// a line, and `rankR-values.bin`, a record for each: i4 seed | i2 class[K] | f2 p[K].
//
// Boxes and flips are not stored: everything that was drawn follows from the seed (operation `replay`), so a crop's
// box is the whole image here.
#pragma once

#include <filesystem>
#include <memory>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/label_source.h"

namespace fkdb {

// Keys are the images' keys, or their numbers in ImageFolder's order. Takes 4 bytes of memory for each record. Borrows
// the data set. Errors: NotFound (no such folders), Corruption (values that are not of the keys), IoError.
Result<std::unique_ptr<LabelSource>> OpenTinyVit(const std::filesystem::path& root, const LabelledImages& images);

}  // namespace fkdb
