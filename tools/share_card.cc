// SPDX-License-Identifier: Apache-2.0
#include "tools/share_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "format/text.h"
#include "tools/cli.h"

namespace fkdb {
namespace {

// Texts come from manifests of anybody: one line each, nothing that Markdown or YAML would take for its own.
std::string Plain(const std::string& text) {
  std::string plain;
  for (const char c : Printable(text)) {
    if (std::string_view("|`<>*_[]#").find(c) != std::string_view::npos) plain += '\\';
    plain += c;
  }
  return plain;
}

// A JSON string is one of YAML.
std::string Quoted(const std::string& text) { return nlohmann::json(Printable(text)).dump(); }

std::string SizeCategory(uint64_t images) {
  constexpr std::pair<uint64_t, const char*> kSizes[] = {{1'000, "n<1K"},         {10'000, "1K<n<10K"},      {100'000, "10K<n<100K"},
                                                         {1'000'000, "100K<n<1M"}, {10'000'000, "1M<n<10M"}, {100'000'000, "10M<n<100M"}};
  for (const auto& [below, name] : kSizes) {
    if (images < below) return name;
  }
  return "n>100M";
}

}  // namespace

std::string ShareCard(const ShareManifest& m, const std::string& folder) {
  const Manifest& set = m.label_set;
  std::string licence = m.licence;
  std::ranges::transform(licence, licence.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::string card = "---\n";
  if (!licence.empty()) card += fmt::format("license: {}\n", Quoted(licence));
  card += fmt::format("pretty_name: {}\ntags: [fkdb, knowledge-distillation, soft-labels]\ntask_categories: [image-classification]\nsize_categories: [\"{}\"]\n---\n\n",
                      Quoted(m.name), SizeCategory(set.num_images));
  card += fmt::format("# {}\n\nSoft labels of {} for fast knowledge distillation (FKD), as fkdb shares them. They hold no image: "
                      "bring your own copy of the data set, whose files are compared with the labels' hashes.\n\n",
                      Plain(m.name), Plain(set.data_set.name));
  const auto row = [&](const char* name, const std::string& value) {
    if (!value.empty()) card += fmt::format("| {} | {} |\n", name, value);
  };
  card += "| | |\n|---|---|\n";
  row("images", fmt::format("{}{}", set.num_images, set.skipped.empty() ? "" : fmt::format(", {} of them without labels", set.skipped.size())));
  row("crops", fmt::format("{}, {} an image", set.num_crops, set.augmentation.crops));
  row("classes", set.data_set.class_names.empty() ? std::string() : std::to_string(set.data_set.class_names.size()));
  row("labels", fmt::format("{}{}, of {} classes, temperature {}", Name(set.spec.kind), set.spec.top_k > 0 ? fmt::format(", top {}", set.spec.top_k) : "",
                            set.spec.num_classes, set.spec.temperature));
  for (const TeacherInfo& teacher : set.teachers) row("teacher", fmt::format("{}, sha256:{}", Plain(teacher.name), Plain(teacher.sha256)));
  row("teacher's accuracy", Plain(m.accuracy));
  const AugmentationInfo& a = set.augmentation;
  row("recipe", fmt::format("random resized crops of {} to {} of the area, ratio {:.4g} to {:.4g}, flipped with probability {}, {} x {} pixels, {}, seed {}", a.scale[0],
                            a.scale[1], a.ratio[0], a.ratio[1], a.flip_probability, a.input_height, a.input_width, Plain(a.interpolation), a.seed));
  row("size", fmt::format("{} in {} shard{}", HumanBytes(static_cast<double>(m.total_bytes)), m.shards.size(), m.shards.size() == 1 ? "" : "s"));
  row("licence", Plain(m.licence));
  row("authors", Plain(m.authors));
  row("notes", Plain(m.notes));
  row("digest", Plain(set.digest));
  card += fmt::format("\n```console\n$ fkdb-share verify {0}\n$ fkdb-share unpack {0} labels.fkdb                       # or a part: --crops 50, --images keys.txt, --classes A,B\n"
                      "$ fkdb-train --images train/ --val val/ --db labels.fkdb --model resnet18 --crops-per-image 4 --epochs 300 --out run/\n```\n",
                      Printable(folder));
  return card;
}

}  // namespace fkdb
