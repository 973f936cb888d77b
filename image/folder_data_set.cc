// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "image/file_data_set.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 32;  // a link that leads back to a folder above it ends here

Result<void> ListImages(const fs::path& folder, const std::string& prefix, int depth, std::vector<std::string>* keys) {
  if (depth > kMaxDepth) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: more than {} folders deep (does a link lead back?)", folder.string(), kMaxDepth));
  }
  std::error_code ec;
  fs::directory_iterator it(folder, ec), end;
  for (; !ec && it != end; it.increment(ec)) {
    const std::string key = prefix + it->path().filename().string();
    std::error_code broken;  // a link to nothing is not an image
    if (it->is_directory(broken)) {
      FKDB_TRY(ListImages(it->path(), key + "/", depth + 1, keys));
    } else if (IsImageName(key) && it->is_regular_file(broken)) {
      keys->push_back(key);
    }
  }
  if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot list it: {}", folder.string(), ec.message()));
  return {};
}

class FolderDataSet : public FileDataSet {
 public:
  static Result<std::unique_ptr<DataSet>> Open(const fs::path& root) {
    auto set = std::make_unique<FolderDataSet>();
    set->root_ = root;
    fs::path named = root;
    if (!named.has_filename()) named = named.parent_path();
    set->name_ = named.filename().string();
    set->layout_ = "folder";
    FKDB_TRY(ListImages(root, "", 0, &set->keys_));
    if (set->keys_.empty()) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("{}: no image in it (expected .jpg, .jpeg or .png files)", root.string()));
    }
    std::sort(set->keys_.begin(), set->keys_.end());
    set->FindClasses();
    return set;
  }

 private:
  std::string PathOf(uint64_t ordinal) const override { return (root_ / keys_[ordinal]).string(); }

  Result<void> ReadFile(uint64_t ordinal, std::vector<std::byte>* bytes) const override {
    const fs::path path = root_ / keys_[ordinal];
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) {
      return Fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIoError,
                  fmt::format("cannot open it: {}", std::strerror(errno)));
    }
    std::error_code ec;
    const uint64_t size = fs::file_size(path, ec);
    if (ec) return Fail(ErrorCode::kIoError, ec.message());
    bytes->resize(size);
    bytes->resize(std::fread(bytes->data(), 1, size, file.get()));
    if (std::ferror(file.get())) return Fail(ErrorCode::kIoError, "cannot read it");
    return {};
  }

  fs::path root_;
};

}  // namespace

Result<std::unique_ptr<DataSet>> OpenFolder(const std::filesystem::path& path) { return FolderDataSet::Open(path); }

}  // namespace fkdb
