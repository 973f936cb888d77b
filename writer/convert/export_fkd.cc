// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/export_fkd.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "format/record.h"
#include "format/text.h"
#include "writer/convert/fkd.h"
#include "writer/convert/label_files.h"
#include "writer/convert/whole_file.h"
#include "writer/ordered_run.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kImagesAPiece = 32;
constexpr size_t kFolders = 2;  // of an image's path that the training code looks at

}  // namespace

Result<ExportSummary> ExportFkd(const LabelSet& set, const fs::path& out, const ExportOptions& options) {
  FKDB_ASSIGN(const std::vector<std::string> keys, set.AllKeys());
  const std::string path = set.path().string();
  std::error_code ec;
  fs::path folder = options.images.empty() ? fs::path(set.manifest().data_set.name) : fs::absolute(options.images, ec).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  // Of image "n01440764/x.JPEG" in "/data/train": "train/n01440764/x.tar".
  const auto name_of = [images = folder.string()](std::string_view key) {
    return LastParts(images + "/" + LabelNameOf(key), kFolders).value_or("") + ".tar";
  };
  for (const std::string& key : keys) {
    const std::string name = name_of(key);
    if (name == ".tar") {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: image '{}': FKD's training code looks for the last three parts of an image's path: "
                                                           "say in which folder the images will lie (--images)", path, Printable(key)));
    }
    if (name.find('.') == name.rfind(".tar")) continue;
    return Fail(ErrorCode::kMismatch, fmt::format("{}: image '{}': there is a dot in a folder of its label file '{}': FKD's training code would look for '{}'",
                                                  path, Printable(key), Printable(name), Printable(name.substr(0, name.find('.')) + ".tar")));
  }
  if (const SharedName shared = FindSharedName(keys, name_of); !shared.first.empty()) {
    return Fail(ErrorCode::kMismatch, fmt::format("{}: images '{}' and '{}' would share the label file '{}': FKD's code names it by the last two folders and "
                                                  "what stands before the first dot; leave one out (fkdb-subset)",
                                                  path, Printable(shared.first), Printable(shared.second), Printable(name_of(shared.first))));
  }

  const auto begun = Clock::now();
  std::atomic<uint64_t> images_done = 0, images_written = 0, crops = 0, skipped = 0, kept = 0, bytes = 0;
  const auto export_image = [&](uint64_t ordinal) -> Result<void> {
    const auto in = [&](const Error& error) {
      return Fail(error.code, fmt::format("{}: image '{}': {}", path, Printable(keys[ordinal]), error.message));
    };
    const fs::path file = out / name_of(keys[ordinal]);
    std::error_code ec;
    const bool there = !options.overwrite && fs::exists(file, ec);
    if (there && !options.resume) {
      return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: it is there already; --resume keeps such files, --overwrite replaces them", file.string()));
    }
    const auto record_bytes = set.RecordBytes(ordinal);
    if (!record_bytes) return in(record_bytes.error());
    const auto view = RecordView::Open(*record_bytes, set.manifest().spec);
    if (!view) return in(view.error());
    if (view->skipped()) {
      ++skipped;
      if (options.overwrite && !options.dry_run) fs::remove(file, ec);  // of another label set
      return {};
    }
    const auto record = DecodeRecord(*view);
    if (!record) return in(record.error());
    const auto made = MakeFkdFile(set.manifest().spec, *record, file.stem().string());
    if (!made) return in(made.error());
    if (there) {
      std::vector<std::byte> old;
      if (const auto read = ReadWholeFile(file, 2 * made->size() + 1, &old); !read || old != *made) {
        return Fail(ErrorCode::kMismatch, fmt::format("{}: it is there already, with other labels; --overwrite replaces it", file.string()));
      }
      ++kept;
      return {};
    }
    if (!options.dry_run) {
      fs::create_directories(file.parent_path(), ec);
      if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot create it: {}", file.parent_path().string(), ec.message()));
      FKDB_TRY(PublishFile(file, *made));
    }
    ++images_written;
    crops += record->num_crops();
    bytes += made->size();
    return {};
  };

  OrderedRun run;
  run.end = (keys.size() + kImagesAPiece - 1) / kImagesAPiece;
  run.threads = options.threads;
  run.stop = options.stop;
  if (options.progress) run.progress = [&] { options.progress(images_done, keys.size()); };
  const auto make_work = [&] {
    return [&](uint64_t piece) -> Result<EncodedRecords> {
      const uint64_t first = piece * kImagesAPiece;
      for (uint64_t i = first; i < std::min<uint64_t>(first + kImagesAPiece, keys.size()); ++i) {
        FKDB_TRY(export_image(i));
        ++images_done;
      }
      return EncodedRecords();
    };
  };
  FKDB_TRY(RunInOrder(run, make_work, [](const EncodedRecords&) { return Result<void>(); }));
  ExportSummary summary;
  summary.images = images_written;
  summary.crops = crops;
  summary.skipped = skipped;
  summary.kept = kept;
  summary.bytes = bytes;
  summary.interrupted = images_done < keys.size();
  summary.seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  return summary;
}

}  // namespace fkdb
