// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/label_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "format/hash.h"
#include "format/text.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr uint8_t kNone = 0, kShared = 255;

// Ordinals in the order of their label names' hashes: 16 bytes an image, where the names would take 60.
struct Hashed {
  uint64_t hash;
  uint64_t ordinal;
  bool operator<(const Hashed& other) const { return hash != other.hash ? hash < other.hash : ordinal < other.ordinal; }
};

std::vector<Hashed> HashNames(std::span<const std::string> keys) {
  std::vector<Hashed> hashed;
  hashed.reserve(keys.size());
  for (uint64_t i = 0; i < keys.size(); ++i) hashed.push_back({Hash64(LabelNameOf(keys[i], "")), i});
  std::sort(hashed.begin(), hashed.end());
  return hashed;
}

// Calls file(relative name) for every file below `folder`.
template <class Take>
Result<void> WalkFiles(const fs::path& folder, const std::string& prefix, int depth, const Take& file) {
  constexpr int kMaxDepth = 32;
  if (depth > kMaxDepth) return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: more than {} folders deep", folder.string(), kMaxDepth));
  std::error_code ec;
  fs::directory_iterator it(folder, ec), end;
  for (; !ec && it != end; it.increment(ec)) {
    std::error_code broken;
    const std::string name = prefix + it->path().filename().string();
    if (it->is_directory(broken)) {
      FKDB_TRY(WalkFiles(it->path(), name + "/", depth + 1, file));
    } else {
      file(name);
    }
  }
  if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot list it: {}", folder.string(), ec.message()));
  return {};
}

}  // namespace

std::string LabelNameOf(std::string_view key, std::string_view extension) {
  const size_t slash = key.rfind('/');
  const size_t name = slash == std::string_view::npos ? 0 : slash + 1;
  return std::string(key.substr(0, std::min(key.find('.', name), key.size()))) + std::string(extension);
}

SharedName FindSharedName(std::span<const std::string> keys, std::string_view extension) {
  const std::vector<Hashed> hashed = HashNames(keys);
  for (size_t i = 1; i < hashed.size(); ++i) {
    const std::string &a = keys[hashed[i - 1].ordinal], &b = keys[hashed[i].ordinal];
    if (hashed[i].hash == hashed[i - 1].hash && LabelNameOf(a, extension) == LabelNameOf(b, extension)) return {a, b};
  }
  return {};
}

std::string LabelFiles::RelativeName(uint64_t ordinal, std::string_view extension) const {
  return prefix_ + LabelNameOf((*keys_)[ordinal], extension);
}

fs::path LabelFiles::Expected(uint64_t ordinal) const { return root_ / RelativeName(ordinal, extensions_[0]); }

Result<LabelFiles> LabelFiles::Find(const fs::path& root, const fs::path& images, const std::vector<std::string>& keys,
                                    std::vector<std::string> extensions) {
  if (std::error_code ec; !fs::is_directory(root, ec)) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no such folder of labels", root.string()));
  }
  LabelFiles files;
  files.root_ = root;
  files.keys_ = &keys;
  files.extensions_ = std::move(extensions);

  // The last folders of the images' path, "imagenet/train/", "train/", "": the first under which there are labels
  // of some of the images.
  std::error_code ec;
  fs::path folder = fs::absolute(images, ec).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  std::vector<std::string> prefixes = {""};
  for (int i = 0; i < 3 && folder.has_filename(); ++i, folder = folder.parent_path()) {
    prefixes.insert(prefixes.begin(), folder.filename().string() + "/" + prefixes.front());
  }
  constexpr uint64_t kTried = 100;
  const auto has_labels = [&](const std::string& prefix) {
    files.prefix_ = prefix;
    for (uint64_t i = 0; i < std::min<uint64_t>(keys.size(), kTried); ++i) {
      for (const std::string& extension : files.extensions_) {
        if (fs::exists(root / files.RelativeName(i * keys.size() / std::min<uint64_t>(keys.size(), kTried), extension), ec)) return true;
      }
    }
    return false;
  };
  if (std::none_of(prefixes.begin(), prefixes.end(), has_labels)) {
    std::vector<std::string> looked;
    for (const std::string& prefix : prefixes) {
      files.prefix_ = prefix;
      looked.push_back(fmt::format("'{}'", Printable(files.RelativeName(0, files.extensions_[0]))));
    }
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no label file of the images in it: looked for {}", root.string(), fmt::join(looked, ", ")));
  }

  const std::vector<Hashed> hashed = HashNames(keys);
  files.state_.assign(keys.size(), kNone);
  FKDB_TRY(WalkFiles(root, "", 0, [&](const std::string& name) {
    for (size_t e = 0; e < files.extensions_.size(); ++e) {
      const std::string& extension = files.extensions_[e];
      if (!name.ends_with(extension)) continue;
      if (name.starts_with(files.prefix_)) {
        const std::string stem = name.substr(files.prefix_.size(), name.size() - files.prefix_.size() - extension.size());
        const uint64_t hash = Hash64(stem);
        auto at = std::lower_bound(hashed.begin(), hashed.end(), Hashed{hash, 0});
        bool found = false;
        for (; at != hashed.end() && at->hash == hash; ++at) {
          if (LabelNameOf(keys[at->ordinal], "") != stem) continue;
          found = true;
          files.state_[at->ordinal] = static_cast<uint8_t>(1 + e);
        }
        if (found) return;
      }
      files.strays_.Add(name);
      return;
    }
  }));
  for (size_t i = 1; i < hashed.size(); ++i) {
    const auto [hash, ordinal] = hashed[i];
    const uint64_t before = hashed[i - 1].ordinal;
    if (hash != hashed[i - 1].hash || LabelNameOf(keys[before], "") != LabelNameOf(keys[ordinal], "")) continue;
    for (const uint64_t o : {before, ordinal}) {
      if (files.state_[o] != kNone) files.state_[o] = kShared;
    }
  }
  for (uint64_t i = 0; i < keys.size(); ++i) {
    if (files.state_[i] == kNone) files.unlabelled_.Add(Printable(keys[i]));
  }
  return files;
}

Result<fs::path> LabelFiles::PathOf(uint64_t ordinal) const {
  const uint8_t state = state_[ordinal];
  if (state == kNone) return Fail(ErrorCode::kNotFound, fmt::format("no label file: expected '{}'", Expected(ordinal).string()));
  if (state == kShared) {
    return Fail(ErrorCode::kMismatch, fmt::format("other images have the same name up to its first dot: whose labels '{}' holds cannot be told",
                                                  Expected(ordinal).string()));
  }
  return root_ / RelativeName(ordinal, extensions_[state - 1]);
}

}  // namespace fkdb
