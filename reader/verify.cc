// SPDX-License-Identifier: Apache-2.0
#include "reader/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "db/digest.h"
#include "format/text.h"
#include "reader/reader.h"

namespace fkdb {
namespace {

void AddError(VerifyReport* report, Error error) {
  if (report->error_count++ == 0) report->code = error.code;
  if (report->errors.size() < kMaxListedErrors) report->errors.push_back(std::move(error.message));
}

// What one image came to: its digest, or why it has none.
struct ImageOutcome {
  Sha256::Hash digest{};
  Record image;  // its size and file alone
  uint32_t crops = 0;
  bool skipped = false;
  Error error;
  bool ok = false;
};

ImageOutcome CheckImage(const Reader& reader, uint64_t ordinal, const std::string& key) {
  ImageOutcome outcome;
  const auto fail = [&](Error error) {
    outcome.error = std::move(error);
    return outcome;
  };
  const auto view = reader.Get(ordinal);
  if (!view) return fail(view.error());
  const auto record = DecodeRecord(*view);
  if (!record) return fail(reader.About(ordinal, record.error()));
  if (record->key_hash != Hash64(key)) {
    return fail(reader.About(ordinal, {ErrorCode::kCorruption, "its record belongs to another key"}));
  }
  const auto& class_names = reader.manifest().data_set.class_names;
  if (record->class_index != kNoClass && static_cast<size_t>(record->class_index) >= class_names.size()) {
    return fail(reader.About(ordinal, {ErrorCode::kCorruption, fmt::format("class {} of {}", record->class_index,
                                                                           class_names.size())}));
  }
  outcome.digest = ImageDigest(key, *record);
  outcome.image.width = record->width;
  outcome.image.height = record->height;
  outcome.image.content_hash = record->content_hash;
  outcome.crops = record->num_crops();
  outcome.skipped = view->skipped();
  outcome.ok = true;
  return outcome;
}

}  // namespace

VerifyReport Verify(const std::filesystem::path& path, int threads,
                    const std::function<void(uint64_t, uint64_t)>& progress, const std::atomic<bool>* stop) {
  VerifyReport report;
  const auto reader = Reader::Open(path);
  if (!reader) {
    AddError(&report, reader.error());
    return report;
  }
  const auto keys = reader->label_set().AllKeys();
  if (!keys) {
    AddError(&report, keys.error());
    return report;
  }
  const Manifest& manifest = reader->manifest();
  const auto wrong = [&](std::string what) {
    AddError(&report, {ErrorCode::kCorruption, fmt::format("{}: {}", path.string(), what)});
  };

  LogicalDigest digest(manifest.spec, manifest.data_set.class_names);
  ContentsDigest contents;
  std::vector<uint64_t> skipped;
  // Slices in order: the images of a slice on all threads, then their digests joined here.
  constexpr uint64_t kSlice = 4096;
  std::vector<ImageOutcome> outcomes(std::min(kSlice, reader->num_images()));
  for (uint64_t first = 0; first < reader->num_images(); first += kSlice) {
    const uint64_t count = std::min(kSlice, reader->num_images() - first);
    std::atomic<uint64_t> next = 0;
    const auto work = [&] {
      for (uint64_t i; (i = next++) < count;) outcomes[i] = CheckImage(*reader, first + i, (*keys)[first + i]);
    };
    std::vector<std::jthread> helpers;
    for (int t = 1; t < threads; ++t) helpers.emplace_back(work);
    work();
    helpers.clear();
    for (uint64_t i = 0; i < count; ++i) {
      ImageOutcome& outcome = outcomes[i];
      if (!outcome.ok) {
        AddError(&report, std::move(outcome.error));
        continue;
      }
      ++report.images;
      report.crops += outcome.crops;
      if (outcome.skipped) skipped.push_back(first + i);
      digest.Add(outcome.digest);
      contents.Add(outcome.image);
    }
    if (progress) progress(first + count, reader->num_images());
    if (stop && *stop) {
      AddError(&report, {ErrorCode::kIncomplete, fmt::format("{}: stopped after {} of {} images", path.string(), first + count,
                                                             reader->num_images())});
      return report;
    }
  }

  if (report.error_count == 0) {
    report.digest = digest.Finish();
    if (report.crops != manifest.num_crops) {
      wrong(fmt::format("{} crops, the manifest says {}", report.crops, manifest.num_crops));
    }
    if (skipped != manifest.skipped) {
      wrong(fmt::format("{} images were skipped, the manifest lists {}", skipped.size(), manifest.skipped.size()));
    }
    if (Sha256OfKeys(*keys) != manifest.data_set.key_list_sha256 || manifest.data_set.num_images != keys->size()) {
      wrong("the keys are not those the manifest was made for");
    }
    if (const std::string found = contents.Finish(); !manifest.contents_sha256.empty() && found != manifest.contents_sha256) {
      wrong(fmt::format("sizes and files of the images hash to {}, the manifest says {}", found, manifest.contents_sha256));
    }
    if (report.digest != manifest.digest) {
      wrong(fmt::format("digest {}, the manifest says {}", report.digest, manifest.digest));
    }
  }
  report.ok = report.error_count == 0;
  return report;
}

void CompareDigests(const VerifyReport& a, const VerifyReport& b, VerifyReport* report) {
  if (a.ok && b.ok && a.digest == b.digest) return;
  AddError(report, {ErrorCode::kCorruption,
                    fmt::format("the two label sets differ: {} images, {} crops, {} against {} images, {} crops, {}",
                                a.images, a.crops, a.digest, b.images, b.crops, b.digest)});
  report->ok = false;
}

}  // namespace fkdb
