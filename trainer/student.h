// SPDX-License-Identifier: Apache-2.0
// The model of a training as it stands before the first step. Includes Torch: for trainer's own sources only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "format/result.h"
#include "trainer/models.h"
#include "trainer/script_model.h"

namespace fkdb {

struct StudentOptions {
  std::string model;              // a name of model_names.h, or a file that script_model.h reads
  std::filesystem::path weights;  // initial ones (initial_weights.h); empty: fresh, or those in the model's file
  bool new_head = false;          // `weights` are of other classes: the last layer is drawn
};

struct Student {
  std::shared_ptr<Model> model;
  std::string name;            // of the network, or of its file without the folder
  std::string model_file;      // "sha256:.." of the files it came from: a resumed training has the same
  std::string initial_weights;
};

// What is fresh comes from Torch's default generator. Errors: InvalidArgument, and those of loading.
Result<Student> MakeStudent(const StudentOptions& options, const ModelShape& shape);

}  // namespace fkdb
