// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/convert_job.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <utility>

#include "writer/convert/convert_plan.h"
#include "writer/convert/record_maker.h"
#include "writer/ordered_run.h"

namespace fkdb {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kImagesAPiece = 32;

}  // namespace

Result<ConvertSummary> ConvertLabels(LabelSource& source, const DataSet& data, const std::filesystem::path& out,
                                     const ConvertOptions& options) {
  if (const NameList& missing = source.unlabelled(); missing.count > 0 && !options.skip_bad && !options.dry_run) {
    const NameList& strays = source.strays();
    return Fail(ErrorCode::kMismatch, fmt::format("{} of {} images have no labels: '{}'{}{}; --skip-bad converts the others", missing.count, data.size(),
                                                  fmt::join(missing.first, "', '"), missing.count > missing.first.size() ? ", .." : "",
                                                  strays.count ? fmt::format("; and {} labels have no image: {}", strays.count, strays.first[0]) : ""));
  }
  FKDB_ASSIGN(const Manifest recipe, PlanConversion(source, data, options));
  std::optional<LabelFileWriter> writer;
  if (!options.dry_run) {
    // What is wrong with all labels is wrong with the first: it is found before there is an output.
    RecordMaker first(source, data, recipe, options);
    for (uint64_t i = 0; i < std::min({kImagesAPiece, data.size(), source.window()}); ++i) FKDB_TRY(first.Make(i));
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
