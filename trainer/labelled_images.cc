// SPDX-License-Identifier: Apache-2.0
#include "trainer/labelled_images.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>

#include "format/hash.h"
#include "format/text.h"

namespace fkdb {

std::string ImageDifferences::Text(uint64_t labelled) const {
  std::string text;
  const auto add = [&](const std::vector<std::string>& keys, const std::string& what) {
    if (!keys.empty()) text += fmt::format("{}{} {}, first '{}'", text.empty() ? "" : "; ", keys.size(), what, Printable(keys[0]));
  };
  add(missing, fmt::format("of {} labelled images are missing", labelled));
  add(resized, "have another size than when they were labelled");
  add(changed, "changed since they were labelled");
  if (unlabelled > 0) text += fmt::format("{}{} images have no labels", text.empty() ? "" : "; ", unlabelled);
  return text;
}

Result<std::unique_ptr<LabelledImages>> LabelledImages::Of(const Reader& labels, const DataSet& images) {
  FKDB_ASSIGN(std::vector<std::string> keys, labels.label_set().AllKeys());
  std::unique_ptr<LabelledImages> both(new LabelledImages(labels, images));
  both->name_ = images.name();
  both->layout_ = images.layout();
  both->channels_ = images.channels();
  both->class_names_ = images.class_names();
  uint64_t common = 0;
  for (size_t at = 0; const std::string& key : keys) {
    at = static_cast<size_t>(std::lower_bound(images.keys().begin() + static_cast<ptrdiff_t>(at), images.keys().end(), key) - images.keys().begin());
    const bool there = at < images.size() && images.keys()[at] == key;
    both->places_.push_back(there ? at : kMissing);
    both->class_indices_.push_back(there ? images.class_index(at) : -1);
    if (!there) both->differences_.missing.push_back(key);
    common += there;
  }
  if (common == 0) {
    return Fail(ErrorCode::kMismatch, fmt::format("{} does not match the images of '{}': none of its {} images is there, first '{}'", labels.label_set().path().string(),
                                                  Printable(images.name()), keys.size(), keys.empty() ? "" : Printable(keys[0])));
  }
  both->differences_.unlabelled = images.size() - common;
  both->keys_ = std::move(keys);
  return both;
}

Result<void> LabelledImages::Compare(const CompareWork& work) {
  enum : uint8_t { kSame, kResized, kChanged };
  std::vector<uint8_t> found(size(), kSame);
  std::atomic<uint64_t> next = 0, done = 0;
  std::atomic<bool> halt = false;
  std::mutex mutex;
  std::optional<Error> error;
  const auto compare = [&](uint64_t i, std::vector<std::byte>* file) -> Result<void> {
    FKDB_ASSIGN(const RecordView record, labels_.Get(i));
    FKDB_ASSIGN(const ImageSize now, images_.Measure(places_[i], file));
    const bool sized = record.width() > 0 && record.height() > 0;
    if (sized && (record.width() != now.width || record.height() != now.height)) {
      found[i] = kResized;
    } else if (record.content_hash() != ContentHash{} && record.content_hash() != HashContent(*file)) {
      found[i] = kChanged;
    }
    return {};
  };
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < std::max(work.threads, 1); ++t) {
      threads.emplace_back([&] {
        std::vector<std::byte> file;
        for (uint64_t i = next++; i < size() && !halt; i = next++) {
          if (has(i)) {
            if (auto compared = compare(i, &file); !compared) {
              const std::lock_guard lock(mutex);
              if (!error) error = compared.error();
              halt = true;
            }
          }
          ++done;
        }
      });
    }
    while (done < size() && !halt) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (work.stop && work.stop->load()) halt = true;
      if (work.progress) work.progress(done, size());
    }
  }
  if (error) return Fail(*error);
  if (halt) return Fail(ErrorCode::kIncomplete, "stopped before all images were compared with the label set");
  for (uint64_t i = 0; i < size(); ++i) {
    if (found[i] == kSame) continue;
    (found[i] == kResized ? differences_.resized : differences_.changed).push_back(keys_[i]);
    places_[i] = kMissing;
    class_indices_[i] = -1;
  }
  return {};
}

Result<uint64_t> LabelledImages::PlaceOf(uint64_t ordinal) const {
  if (has(ordinal)) return places_[ordinal];
  return Fail(ErrorCode::kNotFound, fmt::format("image '{}': the label set has it, and the data set '{}' does not", Printable(keys_[ordinal]), Printable(name_)));
}

Result<Image> LabelledImages::Load(uint64_t ordinal, std::vector<std::byte>* file) const {
  FKDB_ASSIGN(const uint64_t place, PlaceOf(ordinal));
  return images_.Load(place, file);
}

Result<ImageSize> LabelledImages::Measure(uint64_t ordinal, std::vector<std::byte>* file) const {
  FKDB_ASSIGN(const uint64_t place, PlaceOf(ordinal));
  return images_.Measure(place, file);
}

Result<void> LabelledImages::LoadRegion(uint64_t ordinal, const RegionOf& region, Image* image) const {
  FKDB_ASSIGN(const uint64_t place, PlaceOf(ordinal));
  return images_.LoadRegion(place, region, image);
}

}  // namespace fkdb
