// SPDX-License-Identifier: Apache-2.0
// The flags that name teachers: the same for labelling and for training with teachers in every step.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "format/result.h"
#include "image/data_set.h"
#include "trainer/torch_teacher.h"
#include "writer/ensemble.h"

namespace fkdb {

struct LoadedTeachers {
  std::vector<std::unique_ptr<Teacher>> teachers;
  Ensemble ensemble;  // of them
};

struct TeacherFlags {
  std::string specs, average = "probabilities";
  std::vector<double> weights;

  // Gives --teacher back.
  CLI::Option* AddTo(CLI::App& app);
  // Errors: InvalidArgument (the flags; other channels than the images'), those of LoadTeacher.
  Result<LoadedTeachers> Load(const DataSet& images, const TeacherOptions& options) const;
};

}  // namespace fkdb
