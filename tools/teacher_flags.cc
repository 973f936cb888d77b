// SPDX-License-Identifier: Apache-2.0
#include "tools/teacher_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace fkdb {
namespace {

// Whether there is a file FILE or, of a built-in model, MODEL:FILE.
bool IsTeacherFile(const std::string& spec) {
  std::error_code ec;
  const size_t colon = spec.find(':');
  return std::filesystem::is_regular_file(spec, ec) ||
         (colon != std::string::npos && std::filesystem::is_regular_file(spec.substr(colon + 1), ec));
}

// "a.pt,b.pt" are two, unless a name has a comma in it: the longest one that is a file is taken.
Result<std::vector<std::string>> SplitTeachers(const std::string& text) {
  std::vector<std::string> specs;
  for (size_t from = 0; from <= text.size();) {
    size_t end = text.size();
    while (end != std::string::npos && end > from && !IsTeacherFile(text.substr(from, end - from))) end = text.rfind(',', end - 1);
    if (end == std::string::npos || end <= from) end = std::min(text.find(',', from), text.size());
    if (end == from) return Fail(ErrorCode::kInvalidArgument, fmt::format("--teacher '{}': a name is missing", text));
    specs.push_back(text.substr(from, end - from));
    from = end + 1;
  }
  return specs;
}

}  // namespace

CLI::Option* TeacherFlags::AddTo(CLI::App& app) {
  auto* teacher = app.add_option("--teacher", specs,
                                 "A TorchScript file, a package compiled by AOTInductor (.pt2: native code, which runs), or "
                                 "MODEL:WEIGHTS.safetensors; several, with commas between: their average");
  app.add_option("--teacher-weights", weights, "Of several teachers in the average, one for each (equal)")->delimiter(',')->allow_extra_args(false);
  app.add_option("--average", average, "What of several teachers is averaged: probabilities (after the softmax) or logits")
      ->check(CLI::IsMember({"probabilities", "logits"}))
      ->capture_default_str();
  return teacher;
}

Result<LoadedTeachers> TeacherFlags::Load(const DataSet& images, const TeacherOptions& options) const {
  if (options.input.mean.size() != images.channels()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{} means for images of {} channels", options.input.mean.size(), images.channels()));
  }
  std::vector<std::unique_ptr<Teacher>> teachers;
  FKDB_ASSIGN(const auto each, SplitTeachers(specs));
  for (const std::string& spec : each) {
    FKDB_ASSIGN(auto teacher, LoadTeacher(spec, options));
    teachers.push_back(std::move(teacher));
  }
  if (!weights.empty() && weights.size() != teachers.size()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("--teacher-weights: {} for {} teachers", weights.size(), teachers.size()));
  }
  std::vector<Ensemble::Member> members;
  for (size_t i = 0; i < teachers.size(); ++i) members.push_back({teachers[i].get(), weights.empty() ? 1 : weights[i]});
  FKDB_ASSIGN(const Average averaged, ParseAverage(average));
  return LoadedTeachers{std::move(teachers), Ensemble(std::move(members), averaged)};
}

}  // namespace fkdb
