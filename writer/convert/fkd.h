// SPDX-License-Identifier: Apache-2.0
// The label files of FKD's original code (also FerKD's, and MEAL V2's with FKD): one file an image, a list of
//
//   coords  f4 (M, 4)  top / H, left / W, height / H, width / W of the crop in the original image
//   flip    b1 (M,)    after crop and resize
//   label   softmax(z / temperature), by type:
//           hard                               i8 (M,)       the class
//           smoothing                          f4 (M, 2)     class, p
//           marginal_smoothing_kK, marginal_renorm  f4 (M, 2, K)  [0] classes, [1] p, descending
//           ori                                f4 (M, C)     p
//
// as torch.save writes it; with their fp16 option coords and labels are f2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "format/record.h"
#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/label_source.h"
#include "writer/convert/pickle.h"

namespace fkdb {

// What one file says. num_classes: C, for labels of shape (M, 2), which are `smoothing` unless C is 2.
// Errors: Corruption (not such a list; says what differs), Unsupported (classes that float16 cannot tell apart).
Result<ImageLabels> ParseFkd(const PickleValue& root, uint32_t num_classes);

// The label files below `root` of images that lie in `folder`. Borrows the data set. Errors: those of
// LabelFiles::Find.
Result<std::unique_ptr<LabelSource>> OpenFkd(const std::filesystem::path& root, const std::filesystem::path& folder,
                                             const LabelledImages& images, uint32_t num_classes);

// The bytes of the file of one image, to be called `stem`.tar. Labels of more than 2049 classes are written as f4,
// others of an f16 spec as f2; coords of an f16 spec as f2 where that gives every box back. Errors: Unsupported
// (logits; crops with further augmentation: their files have no place for them).
Result<std::vector<std::byte>> MakeFkdFile(const LabelSpec& spec, const Record& record, std::string_view stem);

}  // namespace fkdb
