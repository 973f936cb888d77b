// SPDX-License-Identifier: Apache-2.0
// What a small JSON file beside a teacher, TEACHER.json, says of it: how a crop becomes its input, and what it gives. No
// Torch in it.
#pragma once

#include <filesystem>

#include "format/result.h"
#include "writer/teacher.h"

namespace fkdb {

struct TeacherCard {
  InputSpec input;
  OutputKind output = OutputKind::kLogits;
  bool says_size = false;  // it has an input_size
};

// The card of the teacher in `file`: `otherwise`, with what is said over it. Fields, each optional, with timm's names:
// "input_size": N, [H, W] or [C, H, W]; "interpolation": "bilinear" or "bicubic"; "mean", "std": a number a channel; "output":
// "logits" or "probabilities". timm's "crop_pct" and "crop_mode" are passed over. Errors: InvalidArgument (names file, field and
// what was expected), IoError.
Result<TeacherCard> ReadTeacherCard(const std::filesystem::path& file, const InputSpec& otherwise);

}  // namespace fkdb
