// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "image/data_set.h"
#include "image/decode.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 32;  // a link that leads back to a folder above it ends here

bool IsImageName(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

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
    } else if (IsImageName(it->path()) && it->is_regular_file(broken)) {
      keys->push_back(key);
    }
  }
  if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot list it: {}", folder.string(), ec.message()));
  return {};
}

class FolderDataSet : public DataSet {
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

  Result<Image> Load(uint64_t ordinal, std::vector<std::byte>* file) const override {
    std::vector<std::byte> own;
    std::vector<std::byte>& bytes = file ? *file : own;
    FKDB_TRY(ReadFile(ordinal, &bytes));
    auto image = DecodeImage(bytes);
    if (!image) return In(ordinal, image.error().code, image.error().message);
    return image;
  }

  Result<void> LoadRegion(uint64_t ordinal, const RegionOf& region, Image* image) const override {
    thread_local std::vector<std::byte> bytes;
    FKDB_TRY(ReadFile(ordinal, &bytes));
    Result<PixelBox> box;
    auto decoded = DecodeRegion(bytes, [&](uint32_t width, uint32_t height) { return box = region(width, height); }, image);
    if (!box) return Fail(box.error());  // the caller's own words
    if (!decoded) return In(ordinal, decoded.error().code, decoded.error().message);
    return {};
  }

 private:
  tl::unexpected<Error> In(uint64_t ordinal, ErrorCode code, const std::string& what) const {
    return Fail(code, fmt::format("image '{}': {}", (root_ / keys_[ordinal]).string(), what));
  }

  Result<void> ReadFile(uint64_t ordinal, std::vector<std::byte>* bytes) const {
    const fs::path path = root_ / keys_[ordinal];
    const auto in = [&](ErrorCode code, const std::string& what) { return In(ordinal, code, what); };
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> in_file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!in_file) {
      return in(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIoError,
                fmt::format("cannot open it: {}", std::strerror(errno)));
    }
    std::error_code ec;
    const uint64_t size = fs::file_size(path, ec);
    if (ec) return in(ErrorCode::kIoError, ec.message());
    bytes->resize(size);
    bytes->resize(std::fread(bytes->data(), 1, size, in_file.get()));
    if (std::ferror(in_file.get())) return in(ErrorCode::kIoError, "cannot read it");
    return {};
  }

  // The first folder of a key is its class; classes are numbered in bytewise order.
  void FindClasses() {
    for (const std::string& key : keys_) {
      if (const size_t slash = key.find('/'); slash != std::string::npos) class_names_.push_back(key.substr(0, slash));
    }
    std::sort(class_names_.begin(), class_names_.end());
    class_names_.erase(std::unique(class_names_.begin(), class_names_.end()), class_names_.end());
    for (const std::string& key : keys_) {
      const size_t slash = key.find('/');
      const auto found = std::lower_bound(class_names_.begin(), class_names_.end(), key.substr(0, slash));
      class_indices_.push_back(slash == std::string::npos ? -1 : static_cast<int32_t>(found - class_names_.begin()));
    }
  }

  fs::path root_;
};

}  // namespace

Result<std::unique_ptr<DataSet>> OpenFolder(const std::filesystem::path& path) { return FolderDataSet::Open(path); }

}  // namespace fkdb
