// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/label_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "format/hash.h"
#include "format/text.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

// Ordinals in the order of their label names' hashes: 16 bytes an image, where the names would take 60.
struct Hashed {
  uint64_t hash;
  uint64_t ordinal;
  bool operator<(const Hashed& other) const { return std::pair(hash, ordinal) < std::pair(other.hash, other.ordinal); }
};

std::vector<Hashed> HashNames(std::span<const std::string> keys, const NameOfKey& name_of) {
  std::vector<Hashed> hashed;
  hashed.reserve(keys.size());
  for (uint64_t i = 0; i < keys.size(); ++i) hashed.push_back({Hash64(name_of(keys[i])), i});
  std::sort(hashed.begin(), hashed.end());
  return hashed;
}

// Calls shared(a, b) for ordinals whose names are the same.
template <class Shared>
void ForShared(std::span<const std::string> keys, std::span<const Hashed> hashed, const NameOfKey& name_of, const Shared& shared) {
  for (size_t i = 1; i < hashed.size(); ++i) {
    const uint64_t a = hashed[i - 1].ordinal, b = hashed[i].ordinal;
    if (hashed[i].hash == hashed[i - 1].hash && name_of(keys[a]) == name_of(keys[b])) shared(a, b);
  }
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

std::string LabelNameOf(std::string_view key) {
  const size_t slash = key.rfind('/');
  const size_t name = slash == std::string_view::npos ? 0 : slash + 1;
  return std::string(key.substr(0, std::min(key.find('.', name), key.size())));
}

std::optional<std::string> LastParts(std::string_view path, size_t folders) {
  size_t at = path.size();
  for (size_t parts = 0; parts <= folders; ++parts) {
    if (at == 0) return std::nullopt;
    at = path.rfind('/', at - 1);
    if (at == std::string_view::npos) return parts == folders ? std::optional(std::string(path)) : std::nullopt;
  }
  return std::string(path.substr(at + 1));
}

SharedName FindSharedName(std::span<const std::string> keys, const NameOfKey& name_of) {
  SharedName found;
  ForShared(keys, HashNames(keys, name_of), name_of, [&](uint64_t a, uint64_t b) {
    if (found.first.empty()) found = {keys[a], keys[b]};
  });
  return found;
}

std::string LabelFiles::NameOf(std::string_view key) const {
  std::string name = LabelNameOf(key);
  if (!folders_) return name;
  const std::string path = folder_ + "/" + name;
  return LastParts(path, *folders_).value_or(path);
}

fs::path LabelFiles::Expected(uint64_t ordinal) const { return root_ / (NameOf((*keys_)[ordinal]) + extension_); }

Result<LabelFiles> LabelFiles::Find(const fs::path& root, const fs::path& folder, const LabelledImages& images, std::string extension) {
  std::error_code ec;
  if (!fs::is_directory(root, ec)) return Fail(ErrorCode::kNotFound, fmt::format("{}: no such folder of labels", root.string()));
  const std::vector<std::string>& keys = images.data.keys();
  LabelFiles files;
  files.root_ = root;
  files.keys_ = &keys;
  files.extension_ = std::move(extension);
  fs::path absolute = fs::absolute(folder, ec).lexically_normal();
  if (!absolute.has_filename()) absolute = absolute.parent_path();
  files.folder_ = absolute.string();

  // The first rule under which there are labels of some of the images.
  constexpr uint64_t kTried = 100;
  const uint64_t tried = std::min<uint64_t>(keys.size(), kTried);
  std::vector<std::string> looked;
  bool found = false;
  for (const std::optional<size_t> folders : {std::optional<size_t>(3), std::optional<size_t>(2), std::optional<size_t>(1), std::optional<size_t>()}) {
    files.folders_ = folders;
    for (uint64_t i = 0; i < tried && !found; ++i) found = fs::exists(files.Expected(i * keys.size() / tried), ec);
    if (found) break;
    const std::string name = fmt::format("'{}'", Printable(files.NameOf(keys[0]) + files.extension_));
    if (looked.empty() || looked.back() != name) looked.push_back(name);
  }
  if (!found) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no label file of the images below it: looked for {}; SRC is the folder above such files", root.string(),
                                                  fmt::join(looked, ", ")));
  }

  const auto name_of = [&](std::string_view key) { return files.NameOf(key); };
  const std::vector<Hashed> hashed = HashNames(keys, name_of);
  files.state_.assign(keys.size(), kNone);
  FKDB_TRY(WalkFiles(root, "", 0, [&](const std::string& name) {
    if (!name.ends_with(files.extension_)) return;
    const std::string stem = name.substr(0, name.size() - files.extension_.size());
    const uint64_t hash = Hash64(stem);
    bool known = false;
    for (auto at = std::lower_bound(hashed.begin(), hashed.end(), Hashed{hash, 0}); at != hashed.end() && at->hash == hash; ++at) {
      if (name_of(keys[at->ordinal]) != stem) continue;
      known = true;
      files.state_[at->ordinal] = kOne;
    }
    if (!known) files.strays_.Add(Printable(name));
  }));
  ForShared(keys, hashed, name_of, [&](uint64_t a, uint64_t b) {
    for (const uint64_t ordinal : {a, b}) {
      if (files.state_[ordinal] == kOne) files.state_[ordinal] = kShared;
    }
  });
  for (uint64_t i = 0; i < images.count; ++i) {
    if (files.state_[i] == kNone) files.unlabelled_.Add(Printable(keys[i]));
  }
  return files;
}

Result<fs::path> LabelFiles::PathOf(uint64_t ordinal) const {
  if (state_[ordinal] == kNone) return Fail(ErrorCode::kNotFound, fmt::format("no label file: expected '{}'", Expected(ordinal).string()));
  if (state_[ordinal] == kOne) return Expected(ordinal);
  return Fail(ErrorCode::kMismatch, fmt::format("other images have the same name up to its first dot: whose labels '{}' holds cannot be told",
                                                Expected(ordinal).string()));
}

}  // namespace fkdb
