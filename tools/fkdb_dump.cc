// SPDX-License-Identifier: Apache-2.0
// fkdb-dump: shows what a label set says about itself, or the labels of one image.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "reader/dump.h"
#include "reader/reader.h"
#include "tools/cli.h"
#include "tools/programs.h"

namespace fkdb {
namespace {

struct Flags : CommonFlags {
  std::string db;
  std::string image;
  std::optional<uint64_t> ordinal;
  DumpOptions dump;
};

std::string ManifestText(const Reader& reader, bool json) {
  const LabelSet& set = reader.label_set();
  const Manifest& m = set.manifest();
  auto fields = nlohmann::ordered_json::parse(ToJson(m));
  if (set.partial()) {
    fields["counts"]["images"] = set.num_images();
    fields["counts"].erase("crops");
    fields["counts"].erase("skipped");
  }
  if (set.is_collection()) {
    for (const LabelFile& file : set.files()) {
      fields["shards"].push_back({{"file", file.path().string()}, {"images", file.num_images()}, {"digest", file.manifest().digest}});
    }
  }
  if (json) return fields.dump() + "\n";
  std::string out = fmt::format(
      "{}: {} images{}, {} crops an image, {} labels of {} classes{}, boxes {}, values {}\n", set.path().string(),
      set.partial() ? fmt::format("not finished, {} of {}", set.num_images(), m.data_set.num_images)
                    : std::to_string(m.num_images),
      set.is_collection() ? fmt::format(" in {} files", set.files().size()) : "",
      m.augmentation.crops, Name(m.spec.kind), m.spec.num_classes,
      m.spec.top_k > 1 ? fmt::format(" (top {})", m.spec.top_k) : "", Name(m.spec.boxes), Name(m.spec.values));
  return out + fields.dump(2) + "\n";
}

// One line a crop, for people.
std::string ImageText(const std::string& json) {
  const auto image = nlohmann::ordered_json::parse(json);
  std::string out = fmt::format("{} (image {}): {} x {} pixels, class {}, {} crops, {}\n",
                                image.contains("key") ? image["key"].dump() : image["key_b64"].dump(),
                                image["ordinal"].dump(), image["width"].dump(), image["height"].dump(),
                                image["class"].dump(), image["crops"].size(), image["kind"].get<std::string>());
  if (image.contains("skipped")) out += fmt::format("skipped: {}\n", image["skipped"].get<std::string>());
  size_t number = 0;
  for (const auto& crop : image["crops"]) {
    out += fmt::format("{:>5}  box {:<24} flip {:<5}", number++, crop["box"].dump(), crop["flip"].dump());
    const auto& values = crop["values"];
    for (size_t i = 0; i < values.size() && i < 10; ++i) {
      const std::string index = crop.contains("indices") ? crop["indices"][i].dump() : std::to_string(i);
      out += fmt::format("  {}:{:.4g}", index, values[i].get<double>());
    }
    if (values.size() > 10) out += "  ..";
    for (const auto& op : crop["ops"]) out += fmt::format("  {}", op.dump());
    if (crop.contains("dense")) out += fmt::format("  dense {}", crop["dense"].dump());
    out += "\n";
  }
  return out;
}

Result<int> Run(const Flags& flags) {
  if (!flags.image.empty() && flags.ordinal) {
    return Fail(ErrorCode::kInvalidArgument, "--image and --ordinal name an image each: give one");
  }
  const bool wants_image = !flags.image.empty() || flags.ordinal;
  if (!wants_image && (flags.dump.crop || flags.dump.dense)) {
    return Fail(ErrorCode::kInvalidArgument, "--crop and --dense need an image: --image KEY or --ordinal N");
  }
  LabelFileOptions options;
  options.allow_partial = true;
  FKDB_ASSIGN(const Reader reader, Reader::Open(flags.db, options));
  if (!wants_image) {
    FKDB_TRY(PrintOut(ManifestText(reader, flags.json)));
    return kExitOk;
  }
  uint64_t ordinal = flags.ordinal.value_or(0);
  if (!flags.ordinal) {
    FKDB_ASSIGN(ordinal, reader.Find(flags.image));
  }
  FKDB_ASSIGN(const std::string json, DumpImage(reader, ordinal, flags.dump));
  FKDB_TRY(PrintOut(flags.json ? json + "\n" : ImageText(json)));
  return kExitOk;
}

}  // namespace
}  // namespace fkdb

int fkdb::RunDump(int argc, char** argv) {
  fkdb::Flags flags;
  CLI::App app("Shows a label set: its manifest, or the labels of one image.", "fkdb-dump");
  AddCommonFlags(app, &flags, "One line of JSON");
  app.add_option("DB", flags.db, "The label set (NAME.fkdb, or a NAME.fkdb.partial)")->required();
  app.add_option("--image", flags.image, "The image with this key: its path below --images");
  app.add_option("--ordinal", flags.ordinal, "The image with this number, counted from 0 in key order");
  app.add_option("--crop", flags.dump.crop, "Only this crop, counted from 0");
  app.add_flag("--dense", flags.dump.dense, "Add the recovered label of all classes");
  app.add_option("--tau", flags.dump.tau, "Temperature of the softmax that makes logits dense");
  return fkdb::RunTool(app, argc, argv, [&] { return fkdb::Run(flags); });
}
