// SPDX-License-Identifier: Apache-2.0
// Teachers that run on Torch: a TorchScript file, a package that AOTInductor compiled, or one of our models with its weights.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "format/result.h"
#include "writer/teacher.h"

namespace fkdb {

struct TeacherOptions {
  InputSpec input;            // unless its card (teacher_card.h) says otherwise
  uint32_t batch_size = 64;   // of the warm-up
  std::string device = "cpu";
  int threads = 1;  // that ask it at once, at most
  std::string autocast;  // "bf16" or "fp16", on a GPU; empty: the type of the teacher's file
};

// `spec`: the path of a TorchScript file or, with the extension .pt2, of a compiled package, whose card must say its input_size and
// whose native code runs; or MODEL:WEIGHTS with a name trainer/models.h knows and a safetensors file, e.g.
// "resnet18:weights.safetensors". The model is frozen, optimized for inference, warmed up, and must give (N, C) for
// (N, channels, height, width).
// Errors: those of its card, NotFound, Model (does not load, run, or give such an output), Mismatch (weights of another
// model), InvalidArgument, Cuda (no such device).
Result<std::unique_ptr<Teacher>> LoadTeacher(const std::string& spec, const TeacherOptions& options);

}  // namespace fkdb
