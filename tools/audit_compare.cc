// SPDX-License-Identifier: Apache-2.0
#include "tools/audit_compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "db/publish.h"
#include "format/text.h"
#include "reader/cross_entropy.h"
#include "tools/curve_plot.h"
#include "tools/share_diff.h"

namespace fkdb {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kClassesShown = 50;  // as Fig. 3 does

double Of(const std::array<double, 3>& x, Target y) { return x[static_cast<size_t>(y)]; }

std::string ClassName(const Manifest& a, const Manifest& b, uint32_t class_index) {
  for (const Manifest* m : {&a, &b}) {
    if (class_index < m->data_set.class_names.size()) return m->data_set.class_names[class_index];
  }
  return std::to_string(class_index);
}

std::string ToText(const CompareFlags& flags, const Reader& a, const Reader& b, const ComparisonOfLabels& comparison) {
  const CrossEntropies& all = comparison.all;
  std::string text = fmt::format("A  {}: {}\nB  {}: {}\n{} crops of {} images in both, {} with a class\n\n", flags.sets[0], LabelWords(a.spec()), flags.sets[1],
                                 LabelWords(b.spec()), all.crops, comparison.images.both, all.crops_with_class);
  text += fmt::format("cross-entropy x -> y: -sum y log x, nats\n{:<8}{:>10}{:>10}{:>10}\n", "x", "y = A", "y = B", "y = class");
  for (const auto& [name, x] : {std::pair("A", &all.a), {"B", &all.b}}) {
    text += fmt::format("{:<8}{:>10.4f}{:>10.4f}", name, Of(*x, Target::kA), Of(*x, Target::kB));
    text += all.crops_with_class > 0 ? fmt::format("{:>10.4f}\n", Of(*x, Target::kClass)) : fmt::format("{:>10}\n", "-");
  }
  if (comparison.classes.empty()) return text;
  const size_t shown = std::min(kClassesShown, comparison.classes.size());
  text += fmt::format("\n{:<24}{:>10}{:>10}{:>10}{:>12}{:>12}\n",
                      shown < comparison.classes.size() ? fmt::format("class (first {} of {})", shown, comparison.classes.size()) : "class", "crops", "A -> B", "B -> A",
                      "A -> class", "B -> class");
  for (size_t i = 0; i < shown; ++i) {
    const auto& [class_index, means] = comparison.classes[i];
    text += fmt::format("{:<24}{:>10}{:>10.4f}{:>10.4f}{:>12.4f}{:>12.4f}\n", Printable(ClassName(a.manifest(), b.manifest(), class_index)), means.crops,
                        Of(means.a, Target::kB), Of(means.b, Target::kA), Of(means.a, Target::kClass), Of(means.b, Target::kClass));
  }
  return text;
}

Json ToJson(const CrossEntropies& means) {
  Json json = {{"crops", means.crops}};
  for (const auto& [x, of] : {std::pair("a", &means.a), {"b", &means.b}}) {
    json[fmt::format("{}_to_a", x)] = Of(*of, Target::kA);
    json[fmt::format("{}_to_b", x)] = Of(*of, Target::kB);
    json[fmt::format("{}_to_class", x)] = means.crops_with_class > 0 ? Json(Of(*of, Target::kClass)) : Json();
  }
  return json;
}

Json ToJson(const Reader& a, const Reader& b, const ComparisonOfLabels& comparison) {
  Json json = {{"images", comparison.images.both}, {"crops_with_class", comparison.all.crops_with_class}};
  json.update(ToJson(comparison.all));
  json["classes"] = Json::array();
  for (const auto& [class_index, means] : comparison.classes) {
    Json of_class = {{"class", class_index}, {"name", ClassName(a.manifest(), b.manifest(), class_index)}};
    of_class.update(ToJson(means));
    json["classes"].push_back(std::move(of_class));
  }
  return json;
}

// Fig. 3: a curve for each pair, over the first classes.
std::string ToSvg(const CompareFlags& flags, const ComparisonOfLabels& comparison) {
  std::vector<Curve> curves = {{"A -> B", {}}, {"B -> A", {}}, {"A -> class", {}}, {"B -> class", {}}};
  for (size_t i = 0; i < std::min(kClassesShown, comparison.classes.size()); ++i) {
    const CrossEntropies& means = comparison.classes[i].means;
    curves[0].y.push_back(Of(means.a, Target::kB));
    curves[1].y.push_back(Of(means.b, Target::kA));
    curves[2].y.push_back(Of(means.a, Target::kClass));
    curves[3].y.push_back(Of(means.b, Target::kClass));
  }
  const auto name = [](const std::string& path) { return std::filesystem::path(path).filename().string(); };
  return PlotCurves(fmt::format("A: {}    B: {}", name(flags.sets[0]), name(flags.sets[1])), "class, in the order of its number", "cross-entropy x -> y, nats", curves);
}

}  // namespace

void AddCompareFlags(CLI::App& app, CompareFlags* flags) {
  flags->threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  auto* compare = app.add_option("--compare", flags->sets, "A B: the cross-entropies between two label sets' labels of the same crops and the images' classes, by class (Eq. 2, Fig. 3); "
                                 "of label maps what they say of the other's crops")
                      ->expected(2);
  app.add_option("--svg", flags->svg, "With --compare: a plot of the first 50 classes, NAME.svg")->needs(compare);
  app.add_option("--limit", flags->limit, "With --compare: only the first N images that both have")->needs(compare);
  app.add_option("--threads", flags->threads, "Of --compare (all cores)")->check(CLI::Range(1, 1024));
}

Result<int> RunCompare(const CompareFlags& flags, const CommonFlags& common) {
  if (!flags.svg.empty() && !flags.svg.ends_with(".svg")) return Fail(ErrorCode::kInvalidArgument, fmt::format("--svg {}: expected NAME.svg", flags.svg));
  FKDB_ASSIGN(const Reader a, Reader::Open(flags.sets[0]));
  FKDB_ASSIGN(const Reader b, Reader::Open(flags.sets[1]));
  Progress progress(common.quiet || common.json);
  PairOptions options;
  options.threads = flags.threads;
  options.limit = flags.limit;
  options.stop = StopOnSignals();
  options.progress = [&](uint64_t done, uint64_t all) { progress.Count(done, all, "images"); };
  const auto comparison = CompareLabels(a, b, options);
  progress.Done();
  if (!comparison) return Fail(comparison.error());
  if (!flags.svg.empty()) {
    if (comparison->classes.empty()) return Fail(ErrorCode::kInvalidArgument, "--svg: the plot is by class, and no image of these label sets has one");
    FKDB_TRY(PublishText(flags.svg, ToSvg(flags, *comparison), /*replace=*/true));
  }
  const auto dump = [&] { return ToJson(a, b, *comparison).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; };
  FKDB_TRY(PrintOut(common.json ? dump() : ToText(flags, a, b, *comparison)));
  return kExitOk;
}

}  // namespace fkdb
