// SPDX-License-Identifier: Apache-2.0
#include "tools/eval_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string_view>

#include "trainer/class_order.h"
#include "trainer/evaluator.h"
#include "trainer/real_labels.h"
#include "writer/recipe.h"

namespace fkdb {
namespace {

const std::set<std::string, std::less<>> kForEvaluations = {
    "--eval",    "--real",       "--class-order",   "--val",        "--val-resize", "--val-crop", "--model", "--device", "--threads",
    "--workers", "--input-size", "--interpolation", "--resampling", "--mean",       "--std",      "--json",  "--quiet",  "--config"};

struct Scores {
  Accuracy classes;
  uint64_t real_images = 0, real_right = 0;
  double seconds = 0;
  uint64_t images = 0;  // that were shown

  double real_top1() const { return static_cast<double>(real_right) / static_cast<double>(real_images); }
};

struct Evaluation {
  const ValidationFlags& validation;
  const PixelFlags& pixels;
  const TrainConfig& config;
  ClassOrder order;
  Evaluator& evaluator;
  const RealLabels* real;  // or null
};

Result<Scores> Score(const Evaluation& e, const DataSet& data, Progress* progress) {
  FKDB_ASSIGN(const AugmentationInfo usual, DefaultAugmentation(data));
  FKDB_ASSIGN(const AugmentationInfo augmentation, e.pixels.Over(usual));
  FKDB_ASSIGN(const InputSpec input, InputOf(augmentation));
  FKDB_ASSIGN(const EvaluationView view, e.validation.View(data));
  std::vector<int32_t> classes;
  if (!data.class_names().empty()) {
    FKDB_ASSIGN(classes, ModelClasses(data, e.evaluator.classes(), e.evaluator.class_names(), e.order));
  }
  const auto class_of = [&](uint64_t image) { return data.class_index(image) < 0 ? -1 : classes[static_cast<size_t>(data.class_index(image))]; };
  const std::vector<int32_t> none;
  std::vector<uint64_t> images;
  std::vector<const std::vector<int32_t>*> real;  // of each of `images`
  for (uint64_t i = 0; i < data.size(); ++i) {
    const std::vector<int32_t>* labels = &none;
    if (e.real != nullptr) {
      FKDB_ASSIGN(labels, e.real->Of(data.keys()[i]));
    }
    if (class_of(i) < 0 && labels->empty()) continue;
    images.push_back(i);
    real.push_back(labels);
  }
  if (images.empty()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("no image of '{}' has a class{}", data.name(), e.real != nullptr ? " or a label" : ""));
  }

  const auto start = std::chrono::steady_clock::now();
  const EvaluatorHooks hooks = {StopOnSignals(), [&](uint64_t done) {
                                  progress->Show(fmt::format("{} of {}: {} images", Bar(done, images.size()), data.name(), images.size()));
                                }};
  auto run = e.evaluator.Run(data, images, input, view, e.config.workers, hooks);
  progress->Done();
  FKDB_ASSIGN(const auto predicted, std::move(run));
  if (!predicted) return Fail(ErrorCode::kIncomplete, fmt::format("stopped before the end of '{}'", data.name()));
  Scores scores = {.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), .images = images.size()};
  for (size_t i = 0; i < images.size(); ++i) {
    const Top5& top = (*predicted)[i];
    if (const int32_t c = class_of(images[i]); c >= 0) scores.classes.Add(top, c);
    if (real[i]->empty()) continue;
    ++scores.real_images;
    scores.real_right += std::ranges::find(*real[i], top[0]) != real[i]->end() ? 1 : 0;
  }
  return scores;
}

nlohmann::ordered_json ToJson(const Scores& s) {
  nlohmann::ordered_json json;
  if (s.classes.images > 0) json.update({{"images", s.classes.images}, {"top1", s.classes.top1()}, {"top5", s.classes.top5()}});
  if (s.real_images > 0) json.update({{"real_images", s.real_images}, {"real_top1", s.real_top1()}});
  json["seconds"] = s.seconds;
  return json;
}

std::string ToText(const Scores& s) {
  std::string text;
  if (s.classes.images > 0) {
    text = fmt::format("top-1 {:.2f}%  top-5 {:.2f}%  of {} images", 100 * s.classes.top1(), 100 * s.classes.top5(), s.classes.images);
  }
  if (s.real_images > 0) text += fmt::format("{}ReaL top-1 {:.2f}%  of {}", text.empty() ? "" : "  ", 100 * s.real_top1(), s.real_images);
  return text + fmt::format("  {:.1f} s, {:.0f} images/s", s.seconds, static_cast<double>(s.images) / std::max(1e-9, s.seconds));
}

}  // namespace

void ValidationFlags::AddTo(CLI::App& app) {
  app.add_option("--val", val, "Validation images with classes; with --eval several, as A,B or each with a --val of its own")->allow_extra_args(false);
  app.add_option("--val-resize", resize, "Shorter side of validation images (256; IDX: as they are)");
  app.add_option("--val-crop", crop, "Centre crop of validation images (224)");
}

std::vector<std::string> ValidationFlags::Sets() const {
  std::vector<std::string> sets;
  for (const std::string& given : val) {
    std::error_code ec;
    if (std::filesystem::exists(given, ec)) {
      sets.push_back(given);
      continue;
    }
    std::istringstream parts(given);
    for (std::string part; std::getline(parts, part, ',');) sets.push_back(part);
  }
  return sets;
}

Result<std::string> ValidationFlags::One() const {
  const std::vector<std::string> sets = Sets();
  if (sets.size() <= 1) return sets.empty() ? "" : sets[0];
  return Fail(ErrorCode::kInvalidArgument, fmt::format("--val: {} validation sets, expected one in a training; --eval takes several", sets.size()));
}

Result<EvaluationView> ValidationFlags::View(const DataSet& validation) const {
  const EvaluationView view = {resize.value_or(validation.layout() == "idx" ? 0 : 256), crop.value_or(224)};
  if (view.resize == 0 || view.crop <= view.resize) return view;
  return Fail(ErrorCode::kInvalidArgument, fmt::format("--val-crop {} is more than --val-resize {}", view.crop, view.resize));
}

void EvalFlags::AddTo(CLI::App& app) {
  const std::string group = "Evaluation";
  app.add_option_function<std::string>("--eval",
                                       [this, &app](const std::string& file) {
                                         weights = file;
                                         asked = true;
                                         for (CLI::Option* const option : app.get_options()) option->required(false);
                                       },
                                       "Train nothing: evaluate these weights on --val; .safetensors, a state dict that torch.save wrote, or "
                                       "--model's FILE.pt")
      ->trigger_on_parse()
      ->group(group);
  app.add_option("--real", real, "With --eval: ImageNet ReaL's real.json, too")->group(group);
  app.add_option("--class-order", class_order,
                 "With --eval: classes by name if the weights know names, else by number if folders are 0 to C-1, else in text order (auto); "
                 "text; number")
      ->check(CLI::IsMember({"auto", "text", "number"}))
      ->capture_default_str()
      ->group(group);
}

Result<int> RunEval(const CLI::App& app, const EvalFlags& flags, const ValidationFlags& validation, const PixelFlags& pixels,
                    const TrainConfig& config, const CommonFlags& common) {
  for (const CLI::Option* const option : app.get_options()) {
    if (option->count() > 0 && !kForEvaluations.contains(option->get_name())) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("--eval: {} is for trainings", option->get_name()));
    }
  }
  const std::vector<std::string> sets = validation.Sets();
  if (sets.empty()) return Fail(ErrorCode::kInvalidArgument, "--eval: on which images? --val DIR");
  std::vector<std::unique_ptr<DataSet>> data;
  for (const std::string& set : sets) {
    FKDB_ASSIGN(data.emplace_back(), OpenDataSet(set));
    if (data.back()->channels() == data[0]->channels()) continue;
    return Fail(ErrorCode::kMismatch,
                fmt::format("{} has images of {} channels, {} of {}", set, data.back()->channels(), sets[0], data[0]->channels()));
  }
  FKDB_ASSIGN(const AugmentationInfo usual, DefaultAugmentation(*data[0]));
  FKDB_ASSIGN(const EvaluationView view, validation.View(*data[0]));
  EvaluatorOptions options = {.weights = flags.weights, .model = config.model, .channels = data[0]->channels(), .device = config.device,
                              .num_threads = config.num_threads};
  options.height = view.resize != 0 ? view.crop : pixels.input_size.value_or(usual.input_height);
  options.width = view.resize != 0 ? view.crop : pixels.input_size.value_or(usual.input_width);
  FKDB_ASSIGN(const std::unique_ptr<Evaluator> evaluator, Evaluator::Load(options));
  std::optional<RealLabels> real;
  if (!flags.real.empty()) {
    FKDB_ASSIGN(real, RealLabels::Read(flags.real, evaluator->classes()));
  }
  FKDB_ASSIGN(const ClassOrder order, ParseClassOrder(flags.class_order));
  const Evaluation evaluation = {validation, pixels, config, order, *evaluator, real ? &*real : nullptr};
  Progress progress(common.quiet || common.json);
  for (size_t i = 0; i < data.size(); ++i) {
    FKDB_ASSIGN(const Scores scores, Score(evaluation, *data[i], &progress));
    if (common.json) {
      nlohmann::ordered_json json = {{"weights", flags.weights}, {"model", evaluator->model()}, {"val", sets[i]}};
      json.update(ToJson(scores));
      FKDB_TRY(PrintOut(json.dump() + "\n"));
    } else {
      FKDB_TRY(PrintOut(fmt::format("{}: {}\n", sets[i], ToText(scores))));
    }
  }
  return kExitOk;
}

}  // namespace fkdb
