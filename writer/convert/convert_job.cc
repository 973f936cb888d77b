// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/convert_job.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "db/sha256.h"
#include "format/recode.h"
#include "format/record.h"
#include "format/text.h"
#include "writer/convert/box_fractions.h"
#include "writer/ordered_run.h"
#include "writer/recipe.h"

namespace fkdb {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kImagesAPiece = 32;
constexpr uint64_t kProbed = 32;

tl::unexpected<Error> Bad(std::string message) { return Fail(ErrorCode::kInvalidArgument, std::move(message)); }

// What labels of this form can be.
std::vector<LabelKind> KindsOf(LabelForm form) {
  switch (form) {
    case LabelForm::kClass:
      return {LabelKind::kHard};
    case LabelForm::kClassValue:
      return {LabelKind::kSmoothing};
    case LabelForm::kTopK:
      return {LabelKind::kMarginalSmoothing, LabelKind::kMarginalRenorm};
    case LabelForm::kTopKRenorm:
      return {LabelKind::kMarginalRenorm};
    case LabelForm::kAll:
      return {LabelKind::kFull};
    case LabelForm::kLabelMap:
      return {LabelKind::kLabelMap};
    case LabelForm::kLogits:
      break;
  }
  return {LabelKind::kLogits};
}

// Which of them it is.
Result<LabelKind> KindOf(LabelForm form, uint32_t k, std::optional<LabelKind> wanted) {
  const std::vector<LabelKind> kinds = KindsOf(form);
  if (wanted && std::find(kinds.begin(), kinds.end(), *wanted) != kinds.end()) return *wanted;
  std::vector<std::string_view> names;
  for (const LabelKind kind : kinds) names.push_back(Name(kind));
  if (wanted) return Bad(fmt::format("--label {}: these labels hold {}, which makes {}", Name(*wanted), Name(form), fmt::join(names, " or ")));
  if (kinds.size() == 1) return kinds[0];
  return Bad(fmt::format("the labels ({}, K = {}) are {}, and the files do not say which: say --label", Name(form), k, fmt::join(names, " or ")));
}

// What a few of the images tell about all of them.
struct Probe {
  ImageLabels first;
  uint64_t first_ordinal = 0;
  uint32_t crops = 0;        // most of an image
  bool half_values = true;   // of all
  bool half_boxes = true;
  uint32_t images = 0, images_of_pixels = 0;  // all boxes of an image are of whole pixels
};

// Whether every box is one of whole pixels.
bool AllPixels(const ImageLabels& labels, const ImageSize& size) {
  return std::all_of(labels.fraction_boxes.begin(), labels.fraction_boxes.end(), [&](const FractionBox& box) {
    return ExactPixels(box, size.width, size.height, labels.half_boxes).has_value();
  });
}

Result<Probe> ProbeLabels(LabelSource& source, const DataSet& data) {
  const uint64_t images = std::min(source.window(), data.size());
  FKDB_TRY(source.Prepare(0, images));
  std::optional<Probe> probe;
  Error last{ErrorCode::kNotFound, "no image has labels"};
  const auto look = [&](uint64_t ordinal) {
    auto labels = source.Load(ordinal);
    if (!labels) {
      last = labels.error();
      return;
    }
    std::vector<std::byte> file;
    const auto size = data.Measure(ordinal, &file);
    if (!size) {
      last = size.error();
      return;
    }
    if (!probe) probe = Probe{*labels, ordinal};
    probe->crops = std::max(probe->crops, labels->num_crops());
    probe->half_values &= labels->half_values;
    probe->half_boxes &= labels->half_boxes;
    ++probe->images;
    probe->images_of_pixels += AllPixels(*labels, *size);
  };
  const uint64_t tries = std::min(kProbed, images);
  for (uint64_t i = 0; i < tries; ++i) look(i * images / tries);
  for (uint64_t i = 0; i < images && !probe; ++i) look(i);  // most have none
  if (!probe) return Fail(std::move(last));
  probe->crops = source.most_crops().value_or(probe->crops);
  return *std::move(probe);
}

Result<Manifest> PlanConversion(LabelSource& source, const DataSet& data, const ConvertOptions& options) {
  FKDB_ASSIGN(const Probe probe, ProbeLabels(source, data));
  Manifest recipe;
  LabelSpec& spec = recipe.spec;
  FKDB_ASSIGN(spec.kind, KindOf(probe.first.form, probe.first.num_values, options.kind));
  spec.num_classes = options.num_classes;
  const bool all = spec.kind == LabelKind::kFull || spec.kind == LabelKind::kLogits;
  if (spec.num_classes == 0 && all) spec.num_classes = probe.first.num_values;
  if (spec.num_classes == 0 && options.use_classes) spec.num_classes = static_cast<uint32_t>(data.class_names().size());
  if (spec.num_classes == 0) return Bad("how many classes the labels are of is not known: say --num-classes");
  spec.top_k = all ? 0 : probe.first.num_values;
  if (options.top_k && *options.top_k != spec.top_k) {
    return Bad(fmt::format("--top-k {}: the labels have {} classes a crop ({})", *options.top_k, spec.top_k, source.PathOf(probe.first_ordinal)));
  }
  spec.values = options.values.value_or(probe.half_values ? ValueEncoding::kF16 : ValueEncoding::kF32);
  const BoxEncoding fractions = probe.half_boxes ? BoxEncoding::kFractionF16 : BoxEncoding::kFractionF32;
  // Where few images differ, they are what is wrong: resized since they were labelled, perhaps.
  spec.boxes = options.boxes.value_or(2 * probe.images_of_pixels > probe.images ? BoxEncoding::kPixel : fractions);
  spec.temperature = spec.kind == LabelKind::kLogits || spec.is_map() ? 1 : options.temperature;
  if (spec.is_map()) {
    if (options.crops || options.boxes) return Bad("--crops and --boxes are for crops: a label map has the cells of a grid");
    spec.boxes = BoxEncoding::kGrid;
    spec.grid_height = probe.first.grid_height;
    spec.grid_width = probe.first.grid_width;
  }
  FKDB_ASSIGN(spec, CheckLabelSpec(spec));
  recipe.augmentation = options.augmentation;
  recipe.augmentation.crops = options.crops.value_or(probe.crops);
  if (recipe.augmentation.crops < 1) return Bad("0 crops an image: expected 1 or more");
  FKDB_TRY(CheckRecordSize(spec, recipe.augmentation.crops));
  if (data.layout() != "idx") recipe.augmentation.wide_samples = kHighByte;

  const size_t classes = options.use_classes ? data.class_names().size() : 0;
  if (classes > 0 && classes != spec.num_classes && spec.kind != LabelKind::kLogits) {
    return Bad(fmt::format("labels of {} classes, data set '{}' has {}; if its folders are not the labels' classes, say --no-classes",
                           spec.num_classes, data.name(), classes));
  }
  recipe.data_set.name = data.name();
  recipe.data_set.layout = data.layout();
  recipe.data_set.num_images = data.size();
  recipe.data_set.channels = data.channels();
  recipe.data_set.key_list_sha256 = Sha256OfKeys(data.keys());
  if (options.use_classes) recipe.data_set.class_names = data.class_names();
  recipe.teachers = options.teachers;
  recipe.imported_from = options.format;
  recipe.provenance = options.provenance;
  return recipe;
}

// One image after the other into records; one a thread.
class RecordMaker {
 public:
  RecordMaker(const LabelSource& source, const DataSet& data, const Manifest& recipe, const ConvertOptions& options)
      : source_(source), data_(data), recipe_(recipe), options_(options) {}

  // Errors: without skip_bad, those of the first bad image.
  Result<std::vector<std::byte>> Make(uint64_t ordinal) {
    Record record;
    record.key_hash = Hash64(data_.keys()[ordinal]);
    record.class_index = recipe_.data_set.class_names.empty() ? kNoClass : data_.class_index(ordinal);
    Result<std::vector<std::byte>> encoded;
    if (const auto filled = Fill(ordinal, &record); !filled) {
      encoded = Fail(filled.error());
    } else {
      encoded = EncodeRecord(recipe_.spec, record);
    }
    if (encoded) {
      tally.crops += record.num_crops();
    } else {
      const std::string key = Printable(data_.keys()[ordinal]);
      tally.refused.Add(fmt::format("{}: {}", key, encoded.error().message));
      Error error = {encoded.error().code, fmt::format("image '{}': {}; --skip-bad converts the others", key, encoded.error().message)};
      if (!options_.skip_bad && !options_.dry_run) return Fail(std::move(error));
      if (!tally.first_refusal) tally.first_refusal = std::move(error);
      Record skipped;
      skipped.key_hash = record.key_hash;
      skipped.class_index = record.class_index;
      skipped.skip_reason = encoded.error().message.substr(0, kMaxSkipReasonBytes);
      FKDB_ASSIGN(encoded, EncodeRecord(recipe_.spec, skipped));
    }
    ++tally.images;
    tally.record_bytes += encoded->size();
    return encoded;
  }

  ConvertSummary tally;

 private:
  Result<void> Fill(uint64_t ordinal, Record* record) {
    FKDB_ASSIGN(ImageLabels labels, source_.Load(ordinal));
    FKDB_ASSIGN(const ImageSize size, data_.Measure(ordinal, &file_));
    record->width = size.width;
    record->height = size.height;
    record->content_hash = HashContent(file_);
    const LabelSpec& spec = recipe_.spec;
    const auto in = [&](ErrorCode code, std::string what) { return Fail(code, fmt::format("{}: {}", source_.PathOf(ordinal), what)); };

    const uint32_t most = recipe_.augmentation.crops;
    if (options_.crops ? labels.num_crops() < most : labels.num_crops() > most) {
      return in(ErrorCode::kMismatch, options_.crops ? fmt::format("{} crops, {} asked for; --crops takes fewer of every image", labels.num_crops(), most)
                                                     : fmt::format("{} crops, the first images have {}; --crops says how many to take", labels.num_crops(), most));
    }
    const uint32_t crops = std::min(most, labels.num_crops());
    tally.short_images += crops < most;
    const std::vector<LabelKind> kinds = KindsOf(labels.form);
    if (std::find(kinds.begin(), kinds.end(), spec.kind) == kinds.end() || labels.num_values != std::max(spec.num_values(), spec.num_indices())) {
      return in(ErrorCode::kMismatch, fmt::format("{}, K = {}: expected labels of kind {}, K = {}, as the others'", Name(labels.form),
                                                  labels.num_values, Name(spec.kind), std::max(spec.num_values(), spec.num_indices())));
    }
    if (labels.grid_height != spec.grid_height || labels.grid_width != spec.grid_width) {
      return in(ErrorCode::kMismatch, fmt::format("{} x {} cells, expected {} x {}, as the others'", labels.grid_height, labels.grid_width, spec.grid_height, spec.grid_width));
    }
    tally.dropped_crops += labels.num_crops() - crops;
    labels.flips.resize(crops);
    record->flips = std::move(labels.flips);
    if (!labels.ops.empty()) labels.ops.resize(crops);
    record->ops = std::move(labels.ops);
    labels.indices.resize(size_t{crops} * spec.num_indices());
    labels.values.resize(size_t{crops} * spec.num_values());
    for (const uint32_t index : labels.indices) {
      if (index >= spec.num_classes) return in(ErrorCode::kMismatch, fmt::format("class {}, expected below {}; --num-classes says how many there are", index, spec.num_classes));
    }
    if (labels.form == LabelForm::kTopK || labels.form == LabelForm::kTopKRenorm) Sort(spec.top_k, &labels);
    record->indices = std::move(labels.indices);
    record->values = std::move(labels.values);
    if (const auto filled = FillBoxes(size, labels, crops, record); !filled) return in(filled.error().code, filled.error().message);
    return {};
  }

  // Largest first; equal ones as they were.
  void Sort(size_t k, ImageLabels* labels) {
    std::vector<std::pair<float, uint32_t>> pairs(k);
    for (size_t at = 0; at < labels->values.size(); at += k) {
      const auto values = std::span(labels->values).subspan(at, k);
      if (std::is_sorted(values.begin(), values.end(), std::greater<>())) continue;
      ++tally.sorted_crops;
      for (size_t i = 0; i < k; ++i) pairs[i] = {values[i], labels->indices[at + i]};
      std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
      for (size_t i = 0; i < k; ++i) std::tie(values[i], labels->indices[at + i]) = pairs[i];
    }
  }

  Result<void> FillBoxes(const ImageSize& size, const ImageLabels& labels, uint32_t crops, Record* record) {
    if (recipe_.spec.is_map()) return {};
    const bool pixel = recipe_.spec.boxes == BoxEncoding::kPixel;
    tally.boxes += crops;
    if (!labels.pixel_boxes.empty()) {
      for (uint32_t i = 0; i < crops; ++i) {
        const PixelBox& box = labels.pixel_boxes[i];
        if (pixel) {
          record->pixel_boxes.push_back(box);
        } else {
          record->fraction_boxes.push_back(ToFractions(box, size.width, size.height, false));
        }
      }
      return {};
    }
    for (uint32_t i = 0; i < crops; ++i) {
      const FractionBox& box = labels.fraction_boxes[i];
      if (!pixel) {
        record->fraction_boxes.push_back(box);
        continue;
      }
      const auto exact = ExactPixels(box, size.width, size.height, labels.half_boxes);
      if (!exact) {
        const bool inside = box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0 && box.top + box.height <= 1.01f && box.left + box.width <= 1.01f;
        const std::string what = fmt::format("crop {}: box [{}, {}, {}, {}]", i, box.top, box.left, box.height, box.width);
        if (!inside) return Fail(ErrorCode::kCorruption, what + " is not inside the image");
        if (options_.boxes != BoxEncoding::kPixel) {
          return Fail(ErrorCode::kMismatch,
                      fmt::format("{} is not one of whole pixels in an image of {} x {}. Is it the image that was labelled? If so: --boxes pixel takes the "
                                  "pixels that training code shows for it, --boxes {} keeps fractions",
                                  what, size.width, size.height, Name(labels.half_boxes ? BoxEncoding::kFractionF16 : BoxEncoding::kFractionF32)));
        }
        ++tally.rounded_boxes;
      }
      record->pixel_boxes.push_back(exact.value_or(ToPixels(box, size.width, size.height)));
    }
    return {};
  }

  const LabelSource& source_;
  const DataSet& data_;
  const Manifest& recipe_;
  const ConvertOptions& options_;
  std::vector<std::byte> file_;
};

}  // namespace

std::string_view Name(LabelForm form) {
  switch (form) {
    case LabelForm::kClass:
      return "a class a crop";
    case LabelForm::kClassValue:
      return "a class and its probability a crop";
    case LabelForm::kTopK:
      return "K classes and their probabilities a crop";
    case LabelForm::kTopKRenorm:
      return "K classes and their share of each other a crop";
    case LabelForm::kAll:
      return "the probabilities of all classes";
    case LabelForm::kLabelMap:
      return "a label map";
    case LabelForm::kLogits:
      break;
  }
  return "logits";
}

Result<ConvertSummary> ConvertLabels(LabelSource& source, const DataSet& data, const std::filesystem::path& out,
                                     const ConvertOptions& options) {
  if (const NameList& missing = source.unlabelled(); missing.count > 0 && !options.skip_bad && !options.dry_run) {
    return Fail(ErrorCode::kMismatch, fmt::format("{} of {} images have no labels: '{}'{}; --skip-bad converts the others", missing.count, data.size(),
                                                  fmt::join(missing.first, "', '"), missing.count > missing.first.size() ? ", .." : ""));
  }
  FKDB_ASSIGN(const Manifest recipe, PlanConversion(source, data, options));
  std::optional<LabelFileWriter> writer;
  if (!options.dry_run) {
    FKDB_ASSIGN(writer, LabelFileWriter::Open(out, recipe, options.file));
  }
  const uint64_t begin = writer ? writer->num_images() : 0;
  const auto begun = Clock::now();
  std::atomic<uint64_t> images_read = 0;

  // Refusals are told in the order of the images: by piece.
  std::mutex mutex;
  std::map<uint64_t, ConvertSummary> tallies;
  OrderedRun run;
  run.threads = options.threads;
  run.stop = options.stop;
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - begun).count(); };
  if (options.progress) {
    run.progress = [&] { options.progress({begin + images_read, data.size(), images_read, seconds()}); };
  }
  uint64_t first = begin, end = begin;  // the images of this window
  const auto make_work = [&] {
    return [&](uint64_t piece) -> Result<EncodedRecords> {
      RecordMaker maker(source, data, recipe, options);
      EncodedRecords records;
      const uint64_t at = first + piece * kImagesAPiece;
      for (uint64_t i = at; i < std::min(at + kImagesAPiece, end); ++i) {
        FKDB_ASSIGN(std::vector<std::byte> record, maker.Make(i));
        if (!options.dry_run) records.push_back(std::move(record));
        images_read.fetch_add(1, std::memory_order_relaxed);
      }
      const std::lock_guard lock(mutex);
      tallies.emplace(piece, std::move(maker.tally));
      return records;
    };
  };
  ConvertSummary summary;
  const auto take = [&](EncodedRecords records) -> Result<void> {
    for (auto& record : records) FKDB_TRY(writer->Append(std::move(record)));
    const std::lock_guard lock(mutex);
    const ConvertSummary& more = tallies.begin()->second;  // pieces come in order
    summary.images += more.images;
    summary.crops += more.crops;
    summary.record_bytes += more.record_bytes;
    summary.boxes += more.boxes;
    summary.rounded_boxes += more.rounded_boxes;
    summary.sorted_crops += more.sorted_crops;
    summary.dropped_crops += more.dropped_crops;
    summary.short_images += more.short_images;
    for (const std::string& name : more.refused.first) summary.refused.Add(name);
    summary.refused.count += more.refused.count - more.refused.first.size();
    if (!summary.first_refusal) summary.first_refusal = more.first_refusal;
    tallies.erase(tallies.begin());
    return {};
  };
  Result<void> outcome;
  for (; first < data.size() && outcome && !(options.stop && options.stop->load()); first = end) {
    end = first + std::min(source.window(), data.size() - first);
    run.end = (end - first + kImagesAPiece - 1) / kImagesAPiece;
    outcome = source.Prepare(first, end);
    if (outcome) outcome = RunInOrder(run, make_work, take);
  }
  if (!outcome) {
    if (writer) static_cast<void>(writer->Flush());  // keep what was converted before the failure
    return Fail(outcome.error());
  }
  summary.manifest = recipe;
  summary.strays = source.strays();
  summary.seconds = seconds();
  summary.images_written = begin + summary.images;
  summary.interrupted = summary.images_written < data.size();
  if (!writer) return summary;
  if (summary.interrupted) {
    FKDB_TRY(writer->Flush());
    return summary;
  }
  FKDB_ASSIGN(summary.manifest, writer->Finish(data.keys()));
  return summary;
}

}  // namespace fkdb
