// SPDX-License-Identifier: Apache-2.0
#include "db/rewrite.h"

#include <fmt/format.h>

#include <algorithm>

#include "db/label_file.h"
#include "db/sha256.h"
#include "format/recode.h"
#include "format/text.h"

namespace fkdb {
namespace {

// An image of the output: where it comes from.
struct Source {
  std::string key;
  uint32_t file;
  uint64_t ordinal;
};

// Appends image after image, each as `record` gives it, from where an earlier run stopped.
template <class RecordOf>
Result<Manifest> WriteAll(const std::filesystem::path& out, Manifest recipe, const std::vector<Source>& sources,
                          const RewriteOptions& options, RecordOf record) {
  std::vector<std::string> keys;
  keys.reserve(sources.size());
  for (const Source& source : sources) keys.push_back(source.key);
  recipe.data_set.num_images = keys.size();
  recipe.data_set.key_list_sha256 = Sha256OfKeys(keys);
  recipe.provenance = options.provenance;
  recipe.num_images = recipe.num_crops = 0;
  recipe.skipped.clear();
  recipe.digest.clear();
  recipe.complete = false;
  FKDB_ASSIGN(LabelFileWriter writer, LabelFileWriter::Open(out, recipe, options.file));
  for (uint64_t i = writer.num_images(); i < sources.size(); ++i) {
    if (options.stop && options.stop->load()) {
      FKDB_TRY(writer.Flush());
      return Fail(ErrorCode::kIncomplete, fmt::format("stopped after {} of {} images; the same command with --resume "
                                                      "continues",
                                                      i, sources.size()));
    }
    FKDB_ASSIGN(std::vector<std::byte> bytes, record(sources[i]));
    FKDB_TRY(writer.Append(std::move(bytes)));
    if (options.progress && i % 256 == 0) options.progress(i, sources.size());
  }
  return writer.Finish(keys);
}

Result<std::vector<std::string>> KeysOf(const LabelFile& file) {
  auto keys = file.names().AllKeys();
  if (!keys) return Fail(keys.error().code, fmt::format("{}: {}", file.path().string(), keys.error().message));
  return keys;
}

// What shards of one label set have in common: everything but which images they hold.
Manifest WithoutImages(Manifest manifest) {
  manifest.data_set.num_images = 0;
  manifest.data_set.key_list_sha256.clear();
  return manifest;
}

}  // namespace

Result<Manifest> MergeLabelSets(std::span<const std::filesystem::path> inputs, const std::filesystem::path& out,
                                const RewriteOptions& options) {
  if (inputs.empty()) return Fail(ErrorCode::kInvalidArgument, "nothing to merge");
  std::vector<LabelFile> files;
  std::vector<Source> sources;
  for (const auto& path : inputs) {
    FKDB_ASSIGN(LabelFile file, LabelFile::Open(path));
    if (!files.empty()) {
      const std::string difference =
          RecipeDifference(WithoutImages(files[0].manifest()), WithoutImages(file.manifest()),
                           {"in the first", "in the second"});
      if (!difference.empty()) {
        return Fail(ErrorCode::kMismatch,
                    fmt::format("{} and {} are not parts of one label set: {}", inputs[0].string(), path.string(),
                                difference));
      }
    }
    FKDB_ASSIGN(std::vector<std::string> keys, KeysOf(file));
    for (uint64_t i = 0; i < keys.size(); ++i) {
      sources.push_back({std::move(keys[i]), static_cast<uint32_t>(files.size()), i});
    }
    files.push_back(std::move(file));
  }
  std::stable_sort(sources.begin(), sources.end(), [](const Source& a, const Source& b) { return a.key < b.key; });
  const auto twice = std::adjacent_find(sources.begin(), sources.end(),
                                        [](const Source& a, const Source& b) { return a.key == b.key; });
  if (twice != sources.end()) {
    return Fail(ErrorCode::kMismatch,
                fmt::format("image '{}' is in both {} and {}", Printable(twice->key), inputs[twice->file].string(),
                            inputs[(twice + 1)->file].string()));
  }
  return WriteAll(out, files[0].manifest(), sources, options,
                  [&](const Source& source) -> Result<std::vector<std::byte>> {
                    FKDB_ASSIGN(const auto bytes, files[source.file].RecordBytes(source.ordinal));
                    return std::vector<std::byte>(bytes.begin(), bytes.end());
                  });
}

Result<Manifest> SubsetLabelSet(const std::filesystem::path& input, const std::filesystem::path& out,
                                const SubsetOptions& options) {
  FKDB_ASSIGN(const LabelFile file, LabelFile::Open(input));
  Manifest recipe = file.manifest();
  const LabelSpec from = recipe.spec;
  if (!options.recode.empty()) {
    FKDB_ASSIGN(recipe.spec, ParseRecode(from, options.recode));
  }
  const LabelSpec to = recipe.spec;
  const uint32_t crops = options.crops > 0 ? options.crops : kMaxCropsPerImage;
  recipe.augmentation.crops = std::min(recipe.augmentation.crops, crops);

  std::vector<Source> sources;
  if (options.images.empty()) {
    FKDB_ASSIGN(std::vector<std::string> keys, KeysOf(file));
    for (uint64_t i = 0; i < keys.size(); ++i) sources.push_back({std::move(keys[i]), 0, i});
  }
  for (const std::string& key : options.images) {
    FKDB_ASSIGN(const uint64_t ordinal, file.Find(key));
    sources.push_back({key, 0, ordinal});
  }
  std::sort(sources.begin(), sources.end(), [](const Source& a, const Source& b) { return a.ordinal < b.ordinal; });
  for (size_t i = 1; i < sources.size(); ++i) {
    if (sources[i].ordinal == sources[i - 1].ordinal) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("image '{}' is named twice", Printable(sources[i].key)));
    }
  }
  return WriteAll(out, recipe, sources, options, [&](const Source& source) -> Result<std::vector<std::byte>> {
    FKDB_ASSIGN(const auto bytes, file.RecordBytes(source.ordinal));
    const auto about = [&](Error error) {
      return Fail(error.code, fmt::format("{}: image '{}': {}", input.string(), Printable(source.key), error.message));
    };
    auto view = RecordView::Open(bytes, from);
    if (!view) return about(std::move(view).error());
    if (from == to && view->num_crops() <= crops) return std::vector<std::byte>(bytes.begin(), bytes.end());
    auto decoded = DecodeValidated(*view);
    if (!decoded) return about(std::move(decoded).error());
    Record record = FirstCrops(from, *std::move(decoded), crops);
    if (from != to) record = RecodeRecord(from, to, std::move(record));
    auto encoded = EncodeRecord(to, record);
    if (!encoded) return about(std::move(encoded).error());
    return encoded;
  });
}

}  // namespace fkdb
