// SPDX-License-Identifier: Apache-2.0
#include "tools/share_diff.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "format/text.h"
#include "reader/diff.h"

namespace fkdb {

std::string LabelWords(const LabelSpec& spec) {
  return fmt::format("{} of {} classes{}, boxes {}{}, values {}{}", Name(spec.kind), spec.num_classes,
                     spec.top_k > 0 ? fmt::format(" (top {})", spec.top_k) : "", Name(spec.boxes),
                     spec.is_map() ? fmt::format(" {}x{}", spec.grid_height, spec.grid_width) : "", Name(spec.values),
                     spec.temperature == 1 ? "" : fmt::format(", temperature {}", spec.temperature));
}

namespace {

using Json = nlohmann::ordered_json;

// "seed 0, flip_probability 0.5": the fields of `mine` that `theirs` has otherwise.
std::string Others(const Json& mine, const Json& theirs) {
  Json names = mine;
  names.update(theirs);
  std::string out;
  for (const auto& [name, unused] : names.items()) {
    const Json value = mine.value(name, Json());
    if (value != theirs.value(name, Json())) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", name, value.dump());
  }
  return out;
}

// "1000", or beside others "1000, cat at 281": the first that is not theirs.
std::string ClassWords(const std::vector<std::string>& mine, const std::vector<std::string>& theirs) {
  const auto differ = std::mismatch(mine.begin(), mine.end(), theirs.begin(), theirs.end()).first;
  return fmt::format("{}{}", mine.size(), differ == mine.end() ? "" : fmt::format(", {} at {}", Printable(*differ), differ - mine.begin()));
}

class Lines {
 public:
  void Add(const char* name, const std::string& value) { text_ += fmt::format("{:<16} {}\n", name, value); }
  // What both have, or what each of them has.
  void Compare(const char* name, bool same, const std::string& a, const std::string& b) {
    if (same) return Add(name, a.empty() ? "same" : "same: " + a);
    Add(name, "A: " + a);
    Add("", "B: " + b);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// "a.pt sha256:.., b.pt sha256:.., average of logits"
std::string TeacherWords(const Manifest& m) {
  std::vector<std::string> words;
  for (const TeacherInfo& teacher : m.teachers) words.push_back(fmt::format("{} sha256:{}", Printable(teacher.name), Printable(teacher.sha256)));
  if (!m.teacher_average.empty()) words.push_back("average of " + Printable(m.teacher_average));
  return fmt::format("{}", fmt::join(words, ", "));
}

void AddRecipes(const Manifest& a, const Manifest& b, Lines* lines) {
  Json json_a = Json::parse(ToJson(a)), json_b = Json::parse(ToJson(b));
  lines->Compare("labels", a.spec == b.spec, LabelWords(a.spec), LabelWords(b.spec));
  for (Json* json : {&json_a, &json_b}) {
    for (const char* apart : {"images", "key_list_sha256", "class_names"}) (*json)["data_set"].erase(apart);
  }
  const std::string sets[] = {Others(json_a["data_set"], json_b["data_set"]), Others(json_b["data_set"], json_a["data_set"])};
  const bool same_set = sets[0].empty();
  lines->Compare("data set", same_set, same_set ? Printable(a.data_set.name) : sets[0], sets[1]);
  const std::vector<std::string>&classes_a = a.data_set.class_names, &classes_b = b.data_set.class_names;
  lines->Compare("class names", classes_a == classes_b, ClassWords(classes_a, classes_b), ClassWords(classes_b, classes_a));
  const bool same_teachers = a.teachers == b.teachers && a.teacher_average == b.teacher_average;
  lines->Compare("teachers", same_teachers, same_teachers ? "" : TeacherWords(a), TeacherWords(b));
  lines->Compare("augmentation", a.augmentation == b.augmentation, Others(json_a["augmentation"], json_b["augmentation"]),
                 Others(json_b["augmentation"], json_a["augmentation"]));
}

std::string ToText(const DiffFlags& flags, const Manifest& a, const Manifest& b, const DiffReport& report) {
  Lines lines;
  const auto head = [&](const char* name, const std::string& path, const Manifest& m) {
    lines.Add(name, fmt::format("{}: {} images, {} crops, {}", path, m.num_images, m.num_crops, m.digest));
  };
  head("A", flags.a, a);
  head("B", flags.b, b);
  if (a.digest == b.digest) lines.Add("digest", fmt::format("the same labels: digest {}", a.digest));
  AddRecipes(a, b, &lines);
  lines.Add("images", fmt::format("{} in both, {} only in A, {} only in B", report.images.both, report.images.only_a, report.images.only_b));
  lines.Add("crops", fmt::format("{} the same, of {} in A and {} in B, of images in both", report.same_crops, report.crops_a, report.crops_b));
  if (!report.labels) {
    lines.Add("distances", "none: " + report.no_labels);
    return lines.text();
  }
  const LabelDistances& labels = *report.labels;
  lines.Add("KL(A||B)", fmt::format("{:.4g} nats, mean of the same crops", labels.kl_ab));
  lines.Add("KL(B||A)", fmt::format("{:.4g} nats", labels.kl_ba));
  lines.Add("total variation", fmt::format("{:.4g}", labels.total_variation));
  lines.Add("top-1", fmt::format("the same in {:.2f}%", 100 * labels.top1_agreement));
  lines.Add("largest KL(A||B)", fmt::format("{:.4g} nats, image '{}', crop {}", labels.worst_kl, Printable(labels.worst_key), labels.worst_crop));
  return lines.text();
}

Json ToJson(const Manifest& a, const Manifest& b, const DiffReport& report) {
  Json json = {{"images", {{"both", report.images.both}, {"only_a", report.images.only_a}, {"only_b", report.images.only_b}}},
               {"crops", {{"same", report.same_crops}, {"a", report.crops_a}, {"b", report.crops_b}}},
               {"spec_same", a.spec == b.spec},
               {"digest_same", a.digest == b.digest}};
  if (!report.labels) {
    for (const char* name : {"kl_ab", "kl_ba", "total_variation", "top1_agreement", "worst"}) json[name] = nullptr;
    return json;
  }
  const LabelDistances& labels = *report.labels;
  const bool text = IsUtf8(labels.worst_key);
  json.update({{"kl_ab", labels.kl_ab}, {"kl_ba", labels.kl_ba}, {"total_variation", labels.total_variation}, {"top1_agreement", labels.top1_agreement}});
  json["worst"] = {{text ? "key" : "key_b64", text ? labels.worst_key : ToBase64(labels.worst_key)}, {"crop", labels.worst_crop}, {"kl", labels.worst_kl}};
  return json;
}

}  // namespace

CLI::App* AddDiffCommand(CLI::App& app, DiffFlags* flags) {
  CLI::App* const command = app.add_subcommand("diff", "Says what distinguishes two label sets: recipes, images, crops, labels");
  command->footer(fmt::format(
      "Labels are compared where both have the same crop (place, box, flip, operations): the means of KL(A||B), KL(B||A) in nats and of the\n"
      "total variation, over the probabilities of all classes that training recovers; of logits those of a softmax at temperature 1.\n"
      "Probabilities under {} count as {} in KL. Label maps, and other numbers of classes, are not compared.", kLeastProbability, kLeastProbability));
  command->add_option("A", flags->a, "A label set")->required();
  command->add_option("B", flags->b, "Another")->required();
  return command;
}

Result<int> RunDiff(const DiffFlags& flags, int threads, const CommonFlags& common) {
  FKDB_ASSIGN(const Reader a, Reader::Open(flags.a));
  FKDB_ASSIGN(const Reader b, Reader::Open(flags.b));
  Progress progress(common.quiet || common.json);
  PairOptions options;
  options.threads = threads;
  options.stop = StopOnSignals();
  options.progress = [&](uint64_t done, uint64_t all) { progress.Count(done, all, "images"); };
  const auto report = DiffLabelSets(a, b, options);
  progress.Done();
  if (!report) return Fail(report.error());
  FKDB_TRY(PrintOut(common.json ? ToJson(a.manifest(), b.manifest(), *report).dump() + "\n" : ToText(flags, a.manifest(), b.manifest(), *report)));
  return kExitOk;
}

}  // namespace fkdb
