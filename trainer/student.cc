// SPDX-License-Identifier: Apache-2.0
#include "trainer/student.h"

#include <fmt/format.h>

#include "db/sha256.h"
#include "trainer/initial_weights.h"

namespace fkdb {
namespace {

Result<std::string> HashOf(const std::filesystem::path& file) {
  FKDB_ASSIGN(const std::string hash, Sha256OfFile(file));
  return "sha256:" + hash;
}

}  // namespace

Result<Student> MakeStudent(const StudentOptions& options, const ModelShape& shape) {
  Student student;
  if (IsScriptFile(options.model)) {
    const std::filesystem::path file = options.model;
    if (options.new_head) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("--new-head: only for the models {}; the classes of '{}' are set where it is scripted",
                                                           ModelNames(), file.filename().string()));
    }
    FKDB_ASSIGN(student.model, LoadScriptModel(file, shape));
    FKDB_ASSIGN(student.model_file, HashOf(file));
    student.name = file.filename().string();
  } else {
    auto made = MakeModel(options.model, shape.channels, shape.classes);
    if (!made) return Fail(made.error().code, made.error().message + ", or FILE.pt");
    student.model = std::move(*made);
    student.name = options.model;
  }
  if (options.weights.empty()) {
    if (options.new_head) return Fail(ErrorCode::kInvalidArgument, "--new-head: for initial weights of other classes: --weights FILE");
    return student;
  }
  FKDB_TRY(LoadInitialWeights(options.weights, ClassifierOf(options.model), options.new_head, student.model.get()));
  FKDB_ASSIGN(student.initial_weights, HashOf(options.weights));
  return student;
}

}  // namespace fkdb
