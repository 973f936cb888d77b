// SPDX-License-Identifier: Apache-2.0
// fkdb-share: label sets in the form in which they travel.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "db/publish.h"
#include "db/share/share.h"
#include "db/share/signature.h"
#include "format/text.h"
#include "tools/cli.h"
#include "tools/key_list.h"
#include "tools/made.h"
#include "tools/programs.h"
#include "tools/share/fetch.h"
#include "tools/share_card.h"
#include "tools/share_diff.h"

namespace fkdb {
namespace {

using Json = nlohmann::ordered_json;

struct Flags : CommonFlags {
  std::string db, folder, out, images, key;
  std::vector<std::string> urls;
  ShareSelection part;
  TrustedKeys trusted;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  uint64_t shard_mib = 256;
  std::string name, licence, authors, accuracy, notes;
  PackOptions pack;
  VerifyShareOptions verify;
  UnpackOptions unpack;
  FetchOptions fetch;
};

Result<void> PrintJson(const Json& json) {
  return PrintOut(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");  // paths may be no UTF-8
}

std::string Counted(uint64_t n, const char* what) { return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s"); }

double BytesPerCrop(const ShareManifest& m) {
  return static_cast<double>(m.total_bytes) / static_cast<double>(std::max<uint64_t>(1, m.label_set.num_crops));
}

// ", of which a part is here: 128 images by name, the first 25 crops", or nothing.
std::string PartHere(const ShareManifest& m) {
  if (!m.part) return "";
  std::vector<std::string> what;
  if (!m.part->images.empty()) what.push_back(Counted(m.part->images.size(), "image") + " by name");
  if (!m.part->classes.empty()) what.push_back(fmt::format("{} class{}", m.part->classes.size(), m.part->classes.size() == 1 ? "" : "es"));
  if (m.part->crops > 0) what.push_back(fmt::format("the first {}", Counted(m.part->crops, "crop")));
  return fmt::format(", of which a part is here: {}", fmt::join(what, ", "));
}

// "252 images, 50400 crops in 1 shard of 270.53 KiB (5.5 bytes a crop)"
std::string Summary(const ShareManifest& m) {
  return fmt::format("{} images, {} crops in {} of {} ({:.1f} bytes a crop){}", m.label_set.num_images, m.label_set.num_crops,
                     Counted(m.shards.size(), "shard"), HumanBytes(static_cast<double>(m.total_bytes)), BytesPerCrop(m), PartHere(m));
}

// Who vouches for it, as far as that was asked.
std::string Signed(const ShareManifest& m) {
  switch (m.signature) {
    case ShareSignature::kNone: return "not signed";
    case ShareSignature::kUnchecked: return "signed, by whom was not asked (--trust KEY.pub)";
    case ShareSignature::kTrusted: break;
  }
  return "signed by a trusted key";
}

const char* SignatureName(const ShareManifest& m) {
  return m.signature == ShareSignature::kNone ? "none" : m.signature == ShareSignature::kUnchecked ? "unchecked" : "trusted";
}

Json SummaryJson(const ShareManifest& m) {
  return {{"images", m.label_set.num_images}, {"crops", m.label_set.num_crops},   {"shards", m.shards.size()},
          {"bytes", m.total_bytes},           {"bytes_per_crop", BytesPerCrop(m)}, {"digest", m.label_set.digest},
          {"revision", m.revision},           {"signature", SignatureName(m)},     {"part", m.part.has_value()}};
}

Result<int> Pack(Flags& flags, const CLI::App& command) {
  const auto given = [&](const char* option, const std::string& text) {
    return command.count(option) > 0 ? std::optional(text) : std::nullopt;
  };
  flags.pack.name = given("--name", flags.name);
  flags.pack.licence = given("--licence", flags.licence);
  flags.pack.authors = given("--authors", flags.authors);
  flags.pack.accuracy = given("--accuracy", flags.accuracy);
  flags.pack.notes = given("--notes", flags.notes);
  flags.pack.shard_bytes = flags.shard_mib << 20;
  flags.pack.threads = flags.threads;
  flags.pack.sign = flags.key;
  flags.pack.stop = StopOnSignals();
  Progress progress(flags.quiet || flags.json);
  flags.pack.progress = [&](uint64_t done, uint64_t all) { progress.Count(done, all, "images"); };
  const auto packed = PackLabelSet(flags.db, flags.folder, flags.pack);
  progress.Done();
  if (!packed) return Fail(packed.error());
  const ShareManifest& m = packed->manifest;
  if (flags.json) {
    Json json = {{"out", flags.folder}};
    json.update(SummaryJson(m));
    json["drawn_images"] = packed->drawn_images;
    FKDB_TRY(PrintJson(json));
  } else if (!flags.quiet) {
    FKDB_TRY(PrintOut(fmt::format("{}: {}\n{}\n", flags.folder, Summary(m), m.label_set.digest)));
  }
  return kExitOk;
}

Result<int> Verify(Flags& flags) {
  flags.verify.threads = flags.threads;
  flags.verify.trusted = flags.trusted;
  flags.verify.stop = StopOnSignals();
  Progress progress(flags.quiet || flags.json);
  flags.verify.progress = [&](uint64_t done, uint64_t all) { progress.Count(done, all, ""); };
  const auto verified = VerifyShare(flags.folder, flags.verify);
  progress.Done();
  if (flags.json) {
    Json json = {{"ok", verified.has_value()}, {"deep", flags.verify.deep}};
    if (verified) {
      json.update(SummaryJson(*verified));
    } else {
      json["error"] = verified.error().message;
    }
    FKDB_TRY(PrintJson(json));
  }
  if (!verified) return Fail(verified.error());
  if (!flags.json) FKDB_TRY(PrintOut(fmt::format("ok: {}, {}; {}\n", Summary(*verified), Printable(verified->label_set.digest), Signed(*verified))));
  return kExitOk;
}

// --images, with --crops and --classes.
Result<ShareSelection> Selected(const Flags& flags) {
  ShareSelection part = flags.part;
  if (!flags.images.empty()) {
    FKDB_ASSIGN(part.images, ReadKeyList(flags.images));
  }
  return part;
}

Result<int> Unpack(Flags& flags) {
  FKDB_ASSIGN(static_cast<ShareSelection&>(flags.unpack), Selected(flags));
  flags.unpack.threads = flags.threads;
  flags.unpack.trusted = flags.trusted;
  return RunRewrite("fkdb-share", flags, flags.out, &flags.unpack, [&] { return UnpackShare(flags.folder, flags.out, flags.unpack); });
}

Result<int> FetchFrom(Flags& flags) {
  FKDB_ASSIGN(flags.fetch.part, Selected(flags));
  flags.folder = flags.urls.back();
  flags.urls.pop_back();
  flags.fetch.trusted = flags.trusted;
  flags.fetch.threads = flags.threads;
  flags.fetch.stop = StopOnSignals();
  Progress progress(flags.quiet || flags.json);
  const auto begun = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count(); };
  flags.fetch.progress = [&](uint64_t done, uint64_t all) { progress.Count(done, all, "bytes"); };
  const auto fetched = FetchShare(flags.urls, flags.folder, flags.fetch);
  progress.Done();
  if (!fetched) return Fail(fetched.error());
  const ShareManifest& m = fetched->manifest;
  if (flags.json) {
    Json json = {{"out", flags.folder}};
    json.update(SummaryJson(m));
    json["fetched_bytes"] = fetched->bytes;
    json["needed_bytes"] = fetched->needed;
    json["seconds"] = seconds();
    json["mirrors"] = Json::array();
    for (const FetchedFrom& from : fetched->mirrors) {
      json["mirrors"].push_back({{"url", from.url}, {"bytes", from.bytes}, {"given_up", from.given_up.empty() ? Json() : Json(from.given_up)}});
    }
    FKDB_TRY(PrintJson(json));
  } else if (!flags.quiet) {
    std::string text;
    for (const FetchedFrom& from : fetched->mirrors) {
      if (!from.given_up.empty()) text += fmt::format("given up: {}\n", from.given_up);
    }
    text += fmt::format("{}: {}, fetched {} in {}; {}\n{}\n", flags.folder, Summary(m), HumanBytes(static_cast<double>(fetched->bytes)), HumanSeconds(seconds()), Signed(m),
                        Printable(m.label_set.digest));
    FKDB_TRY(PrintOut(text));
  }
  return kExitOk;
}

Result<ShareManifest> ManifestOf(const Flags& flags) {
  if (flags.folder.find("://") == std::string::npos) return ReadShareManifest(flags.folder, flags.trusted);
  FetchOptions options = flags.fetch;
  options.trusted = flags.trusted;
  options.stop = StopOnSignals();
  return FetchShareManifest(flags.folder, options);
}

Result<int> Info(const Flags& flags) {
  FKDB_ASSIGN(const ShareManifest m, ManifestOf(flags));
  if (flags.json) {
    FKDB_TRY(PrintJson(Json::parse(ToShareText(m))));
    return kExitOk;
  }
  const Manifest& set = m.label_set;
  std::string text = fmt::format("{}: {}\n{}\n", flags.folder, Summary(m), Printable(set.digest));
  const auto line = [&](const char* name, const std::string& value) {
    if (!value.empty()) text += fmt::format("{:<10} {}\n", name, Printable(value));  // by strangers
  };
  line("signature", Signed(m));
  line("name", m.name);
  line("revision", std::to_string(m.revision));
  line("licence", m.licence);
  line("authors", m.authors);
  line("accuracy", m.accuracy);
  line("notes", m.notes);
  line("data set", fmt::format("{}, {} images{}", set.data_set.name, set.data_set.num_images,
                               set.data_set.class_names.empty() ? "" : fmt::format(", {} classes", set.data_set.class_names.size())));
  for (const TeacherInfo& teacher : set.teachers) line("teacher", fmt::format("{} sha256:{}", teacher.name, teacher.sha256));
  line("labels", LabelWords(set.spec));
  line("crops", fmt::format("{} an image, in layers up to {}", set.augmentation.crops, fmt::join(m.layers, ", ")));
  FKDB_TRY(PrintOut(text));
  return kExitOk;
}

Result<int> Card(const Flags& flags) {
  const std::filesystem::path folder = flags.folder, path = folder / "README.md";
  FKDB_ASSIGN(const ShareManifest m, ReadShareManifest(folder));
  if (!flags.pack.overwrite && std::filesystem::exists(path)) {
    return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: exists already; --overwrite to replace it", path.string()));
  }
  FKDB_TRY(PublishText(path, ShareCard(m, std::filesystem::absolute(folder).lexically_normal().filename().string()), flags.pack.overwrite));
  if (flags.json) {
    FKDB_TRY(PrintJson({{"out", path.string()}}));
  } else if (!flags.quiet) {
    FKDB_TRY(PrintOut(fmt::format("{}: {}\n", path.string(), Summary(m))));
  }
  return kExitOk;
}

Result<int> MakeKey(const Flags& flags) {
  FKDB_TRY(MakeKeyPair(flags.key));
  if (flags.json) FKDB_TRY(PrintJson({{"private", flags.key + ".pem"}, {"public", flags.key + ".pub"}}));
  if (!flags.json && !flags.quiet) {
    FKDB_TRY(PrintOut(fmt::format("{0}.pem: to sign with; keep it to yourselves\n{0}.pub: to be given to whoever shall trust you\n", flags.key)));
  }
  return kExitOk;
}

Result<int> Sign(const Flags& flags) {
  FKDB_ASSIGN(const ShareManifest m, SignShare(flags.folder, flags.key));
  if (flags.json) FKDB_TRY(PrintJson(SummaryJson(m)));
  if (!flags.json && !flags.quiet) FKDB_TRY(PrintOut(fmt::format("{}: signed, {}\n", flags.folder, Printable(m.label_set.digest))));
  return kExitOk;
}

}  // namespace
}  // namespace fkdb

int fkdb::RunShare(int argc, char** argv) {
  fkdb::Flags flags;
  CLI::App app("Packs label sets to be shared, checks and unpacks what others shared.", "fkdb-share");
  AddCommonFlags(app, &flags, "The result as one line of JSON");
  app.require_subcommand(1);
  app.fallthrough();
  std::function<fkdb::Result<int>()> run;
  const auto threads = [&](CLI::App* command) {
    command->add_option("--threads", flags.threads, "Threads")->check(CLI::Range(1, 1024))->capture_default_str();
  };

  const auto trust = [&](CLI::App* command) {
    command->add_option("--trust", flags.trusted, "Only if this public key signed it; may be repeated")->allow_extra_args(false);
  };

  const auto select = [&](CLI::App* command) {
    command->add_option("--images", flags.images, "Only these images: a text file, one key a line");
    command->add_option("--crops", flags.part.crops, "Only the first N crops of each image")->check(CLI::Range(1, 65535));
    command->add_option("--classes", flags.part.classes, "Only the images of these classes, by name or index")->delimiter(',');
  };
  const auto patience = [&](CLI::App* command) {
    command->add_option("--timeout", flags.fetch.timeout_seconds, "Seconds without an answer, or at less than 1 KiB/s")->check(CLI::Range(1, 86400))->capture_default_str();
    command->add_option("--retries", flags.fetch.retries, "Attempts more, while nothing comes")->check(CLI::Range(0, 1000))->capture_default_str();
  };

  auto* pack = app.add_subcommand("pack", "Makes a folder to share of a label set");
  pack->add_option("DB", flags.db, "The label set")->required();
  pack->add_option("DIR", flags.folder, "The folder to write")->required();
  pack->add_option("--name", flags.name, "What it is called, for the manifest");
  pack->add_option("--licence", flags.licence, "Of the labels");
  pack->add_option("--authors", flags.authors, "Who made them");
  pack->add_option("--accuracy", flags.accuracy, "Of the teacher, in words");
  pack->add_option("--notes", flags.notes, "Anything else");
  pack->add_option("--revision", flags.pack.revision, "Its number among those under the same name (1, or one more than what is replaced)")->check(CLI::Range(1, INT32_MAX));
  pack->add_option("--shard-mib", flags.shard_mib, "Size of a shard")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  pack->add_option("--sign", flags.key, "Sign the manifest with this private key (fkdb-share key makes one)");
  pack->add_flag("--overwrite", flags.pack.overwrite, "Replace a share that is there");
  threads(pack);
  pack->callback([&, pack] { run = [&, pack] { return fkdb::Pack(flags, *pack); }; });

  auto* verify = app.add_subcommand("verify", "Checks every claim of the manifest");
  verify->add_option("DIR", flags.folder, "The folder")->required();
  verify->add_flag("--deep", flags.verify.deep, "Also decode all labels, check them, and compare their digest");
  trust(verify);
  threads(verify);
  verify->callback([&] { run = [&] { return fkdb::Verify(flags); }; });

  auto* unpack = app.add_subcommand("unpack", "Makes a label set, or a part of it, of a folder");
  unpack->add_option("DIR", flags.folder, "The folder")->required();
  unpack->add_option("DB", flags.out, "The label set to write, NAME.fkdb")->required();
  select(unpack);
  fkdb::AddOutputFlags(*unpack, &flags.unpack.file, &flags.unpack.provenance);
  trust(unpack);
  threads(unpack);
  unpack->callback([&] { run = [&] { return fkdb::Unpack(flags); }; });

  auto* fetch = app.add_subcommand("fetch", "Brings a folder, or the part of it that is asked for, from where it lies; again, it goes on where it ended");
  fetch->add_option("URL", flags.urls, "Where it lies: http, https, file, or a path, several being mirrors of one; and last the folder to write")
      ->required()
      ->expected(2, 1000)
      ->type_name("[URL ..] DIR");
  select(fetch);
  fetch->add_option("--connections", flags.fetch.connections, "At a time")->check(CLI::Range(1, 256))->capture_default_str();
  patience(fetch);
  fetch->add_flag("--overwrite", flags.fetch.overwrite, "Replace another label set that is there");
  trust(fetch);
  threads(fetch);
  fetch->callback([&] { run = [&] { return fkdb::FetchFrom(flags); }; });

  auto* info = app.add_subcommand("info", "Says what a folder holds, here or elsewhere");
  info->add_option("DIR", flags.folder, "The folder, or its URL")->required();
  patience(info);
  trust(info);
  info->callback([&] { run = [&] { return fkdb::Info(flags); }; });

  auto* card = app.add_subcommand("card", "Writes README.md, the datasheet that model hubs show");
  card->add_option("DIR", flags.folder, "The folder")->required();
  card->add_flag("--overwrite", flags.pack.overwrite, "Replace a card that is there");
  card->callback([&] { run = [&] { return fkdb::Card(flags); }; });

  auto* key = app.add_subcommand("key", "Makes a pair of keys: NAME.pem to sign with, NAME.pub for others to trust");
  key->add_option("NAME", flags.key, "What the files are called")->required();
  key->callback([&] { run = [&] { return fkdb::MakeKey(flags); }; });

  auto* sign = app.add_subcommand("sign", "Signs the manifest of a folder as it is now");
  sign->add_option("DIR", flags.folder, "The folder")->required();
  sign->add_option("KEY", flags.key, "The private key")->required();
  sign->callback([&] { run = [&] { return fkdb::Sign(flags); }; });

  fkdb::DiffFlags compared;
  auto* diff = fkdb::AddDiffCommand(app, &compared);
  threads(diff);
  diff->callback([&] { run = [&] { return fkdb::RunDiff(compared, flags.threads, flags); }; });

  return fkdb::RunTool(app, argc, argv, [&] { return run(); });
}
