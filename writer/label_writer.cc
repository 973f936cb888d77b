// SPDX-License-Identifier: Apache-2.0
#include "writer/label_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "db/sha256.h"
#include "format/text.h"
#include "writer/recipe.h"

namespace fkdb {
namespace {

tl::unexpected<Error> Bad(std::string message) { return Fail(ErrorCode::kInvalidArgument, std::move(message)); }

}  // namespace

Result<LabelWriter> LabelWriter::Open(const std::filesystem::path& path, Manifest recipe, std::vector<std::string> keys,
                                      const LabelFileWriterOptions& options) {
  FKDB_ASSIGN(recipe.spec, CheckLabelSpec(recipe.spec));
  const AugmentationInfo& a = recipe.augmentation;
  FKDB_ASSIGN(const CropSampler sampler, CropSampler::Make({a.scale, a.ratio, a.flip_probability}));
  if (a.crops < 1 || a.crops > kMaxCropsPerImage) {
    return Bad(fmt::format("{} crops an image: expected 1 to {}", a.crops, kMaxCropsPerImage));
  }
  FKDB_TRY(CheckLabelsAreOfCrops(recipe.spec));
  FKDB_TRY(CheckRecordSize(recipe.spec, a.crops));
  const auto& classes = recipe.data_set.class_names;
  if (!classes.empty() && classes.size() != recipe.spec.num_classes && recipe.spec.kind != LabelKind::kLogits) {
    return Bad(fmt::format("{} class names for labels of {} classes", classes.size(), recipe.spec.num_classes));
  }
  std::sort(keys.begin(), keys.end());
  if (keys.empty()) return Bad("no keys: expected the key of every image");
  if (keys.front().empty()) return Bad("a key is empty: expected the image's path below the data set's folder");
  if (const auto twice = std::adjacent_find(keys.begin(), keys.end()); twice != keys.end()) {
    return Bad(fmt::format("key '{}' comes twice", Printable(*twice)));
  }
  recipe.data_set.num_images = keys.size();
  recipe.data_set.key_list_sha256 = Sha256OfKeys(keys);
  FKDB_ASSIGN(LabelFileWriter writer, LabelFileWriter::Open(path, recipe, options));
  return LabelWriter(std::move(recipe), std::move(keys), sampler, std::move(writer));
}

LabelWriter::LabelWriter(Manifest recipe, std::vector<std::string> keys, CropSampler sampler, LabelFileWriter writer)
    : recipe_(std::move(recipe)), keys_(std::move(keys)), sampler_(std::move(sampler)), writer_(std::move(writer)) {}

Result<std::vector<SampledCrop>> LabelWriter::Sample(std::string_view key, uint32_t width, uint32_t height) const {
  if (!std::binary_search(keys_.begin(), keys_.end(), key)) {
    return Fail(ErrorCode::kNotFound, fmt::format("image '{}' is not among the keys of this label set", Printable(key)));
  }
  if (width == 0 || height == 0) return Bad(fmt::format("image '{}': {} x {} pixels", Printable(key), width, height));
  std::vector<SampledCrop> crops;
  for (uint32_t i = 0; i < recipe_.augmentation.crops; ++i) {
    crops.push_back(sampler_.Sample(recipe_.augmentation.seed, Hash64(key), i, width, height));
  }
  return crops;
}

Result<void> LabelWriter::CheckNext(std::string_view key) const {
  const uint64_t next = writer_.num_images();
  if (next == keys_.size()) return Bad(fmt::format("image '{}': all {} images are written", Printable(key), next));
  if (key != keys_[next]) {
    return Bad(fmt::format("image '{}' is not the next one: images are written in bytewise key order, expected '{}'", Printable(key),
                           Printable(keys_[next])));
  }
  return {};
}

Result<void> LabelWriter::Append(std::string_view key, Record record, std::span<const float> outputs, size_t num_outputs, OutputKind kind) {
  FKDB_TRY(CheckNext(key));
  const LabelSpec& spec = recipe_.spec;
  const auto bad = [&](ErrorCode code, std::string what) {
    return Fail(code, fmt::format("image '{}': {}", Printable(key), what));
  };
  const uint32_t crops = recipe_.augmentation.crops;
  if (record.pixel_boxes.size() != crops || record.flips.size() != crops) {
    return bad(ErrorCode::kInvalidArgument, fmt::format("{} boxes and {} flips: expected {} of each", record.pixel_boxes.size(),
                                                        record.flips.size(), crops));
  }
  const auto& classes = recipe_.data_set.class_names;
  if (record.class_index != kNoClass && static_cast<size_t>(record.class_index) >= classes.size()) {
    return bad(ErrorCode::kInvalidArgument, fmt::format("class {} of the {} that have names", record.class_index, classes.size()));
  }
  if (num_outputs != spec.num_classes || outputs.size() != crops * num_outputs) {
    return bad(ErrorCode::kInvalidArgument, fmt::format("outputs of {} numbers, {} a crop: expected {} x {}", outputs.size(), num_outputs,
                                                        crops, spec.num_classes));
  }
  record.key_hash = Hash64(key);
  record.indices.resize(size_t{crops} * spec.num_indices());
  record.values.resize(size_t{crops} * spec.num_values());
  for (uint32_t i = 0; i < crops; ++i) {
    if (StoreOutput(spec, kind, outputs.subspan(i * num_outputs, num_outputs), i, &record)) continue;
    const char* expected = kind == OutputKind::kLogits              ? "logits that are finite"
                           : spec.kind == LabelKind::kLogits ? "logits, which is what this label set stores"
                                                              : "probabilities: none negative, sum 1";
    return bad(ErrorCode::kModel, fmt::format("the outputs for crop {} are not {}", i, expected));
  }
  auto encoded = EncodeRecord(spec, record);
  if (!encoded) return bad(encoded.error().code, encoded.error().message);
  return writer_.Append(std::move(*encoded));
}

Result<void> LabelWriter::Skip(std::string_view key, std::string_view reason) {
  FKDB_TRY(CheckNext(key));
  Record record;
  record.key_hash = Hash64(key);
  record.skip_reason = reason.empty() ? "no reason given" : std::string(reason.substr(0, kMaxSkipReasonBytes));
  FKDB_ASSIGN(std::vector<std::byte> encoded, EncodeRecord(recipe_.spec, record));
  return writer_.Append(std::move(encoded));
}

Result<Manifest> LabelWriter::Finish() {
  if (const uint64_t next = writer_.num_images(); next < keys_.size()) {
    FKDB_TRY(writer_.Flush());
    return Fail(ErrorCode::kIncomplete, fmt::format("{} of {} images are written; the next is '{}'. Nothing is lost: open it again to resume, and go on",
                                                    next, keys_.size(), Printable(keys_[next])));
  }
  return writer_.Finish(keys_);
}

}  // namespace fkdb
