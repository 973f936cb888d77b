// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <span>

#include "image/data_set.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIdxBytes = size_t{4} << 30;

// The file's bytes; gzip is undone where it is found.
Result<std::vector<uint8_t>> ReadMaybeGzip(const fs::path& path) {
  const auto fail = [&](ErrorCode code, std::string what) {
    return Fail(code, fmt::format("{}: {}", path.string(), what));
  };
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) return fail(ErrorCode::kNotFound, "cannot open it");
  gzbuffer(file.get(), 1 << 18);
  std::vector<uint8_t> bytes;
  for (;;) {
    const size_t at = bytes.size();
    bytes.resize(at + (1 << 22));
    const int n = gzread(file.get(), bytes.data() + at, 1 << 22);
    int code = Z_OK;
    const char* message = gzerror(file.get(), &code);
    if (n < 0 || (code != Z_OK && code != Z_STREAM_END)) {
      return fail(ErrorCode::kCorruption, fmt::format("broken gzip file: {}", message));
    }
    bytes.resize(at + static_cast<size_t>(n));
    if (n == 0) return bytes;
    if (bytes.size() > kMaxIdxBytes) return fail(ErrorCode::kResourceExhausted, "more than 4 GiB of pixels");
  }
}

uint32_t BigEndian(const uint8_t* at) {
  return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | at[3];
}

// IDX: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each size in
// big-endian, then the data.
struct Idx {
  std::vector<uint32_t> sizes;
  std::vector<uint8_t> bytes;
  size_t data_at = 0;
};

Result<Idx> ReadIdx(const fs::path& path, size_t dimensions) {
  FKDB_ASSIGN(std::vector<uint8_t> bytes, ReadMaybeGzip(path));
  const auto bad = [&](std::string what) {
    return Fail(ErrorCode::kCorruption, fmt::format("{}: {}", path.string(), what));
  };
  if (bytes.size() < 4 || bytes[0] != 0 || bytes[1] != 0 || bytes[2] != 8 || bytes[3] == 0) {
    return bad("neither an image folder nor an IDX file of bytes");
  }
  if (bytes[3] != dimensions) return bad(fmt::format("{} dimensions, expected {}", bytes[3], dimensions));
  Idx idx;
  idx.data_at = 4 + 4 * dimensions;
  if (bytes.size() < idx.data_at) return bad("its header is cut off");
  uint64_t expected = 1;
  for (size_t d = 0; d < dimensions; ++d) {
    const uint32_t size = BigEndian(bytes.data() + 4 + 4 * d);
    idx.sizes.push_back(size);
    if (size == 0 || expected > kMaxIdxBytes / size) return bad(fmt::format("a side of {}", size));
    expected *= size;
  }
  if (bytes.size() - idx.data_at != expected) {
    return bad(fmt::format("{} bytes of data, expected {}", bytes.size() - idx.data_at, expected));
  }
  idx.bytes = std::move(bytes);
  return idx;
}

class IdxDataSet : public DataSet {
 public:
  static Result<std::unique_ptr<DataSet>> Open(const fs::path& path) {
    auto set = std::make_unique<IdxDataSet>();
    FKDB_ASSIGN(set->images_, ReadIdx(path, 3));
    const uint32_t count = set->images_.sizes[0];
    set->name_ = path.filename().string();
    set->layout_ = "idx";
    set->channels_ = 1;
    // As many digits as the last number has, so that key order is number order.
    const size_t digits = std::to_string(count - 1).size();
    for (uint32_t i = 0; i < count; ++i) set->keys_.push_back(fmt::format("{:0{}}", i, digits));

    set->class_indices_.assign(count, -1);
    const fs::path labels = LabelsPath(path);
    std::error_code ec;
    if (labels.empty() || !fs::exists(labels, ec)) return set;
    FKDB_ASSIGN(const Idx idx, ReadIdx(labels, 1));
    if (idx.sizes[0] != count) {
      return Fail(ErrorCode::kCorruption,
                  fmt::format("{}: {} labels for {} images", labels.string(), idx.sizes[0], count));
    }
    const auto begin = idx.bytes.begin() + static_cast<ptrdiff_t>(idx.data_at);
    set->class_indices_.assign(begin, idx.bytes.end());
    const uint8_t largest = *std::max_element(begin, idx.bytes.end());
    for (int c = 0; c <= largest; ++c) set->class_names_.push_back(std::to_string(c));
    return set;
  }

  Result<Image> Load(uint64_t ordinal, std::vector<std::byte>* file) const override {
    Image image;
    image.height = images_.sizes[1];
    image.width = images_.sizes[2];
    image.channels = 1;
    const size_t size = size_t{image.height} * image.width;
    const uint8_t* begin = images_.bytes.data() + images_.data_at + ordinal * size;
    image.pixels.assign(begin, begin + size);
    if (file) {
      const auto bytes = std::as_bytes(std::span(begin, size));
      file->assign(bytes.begin(), bytes.end());
    }
    return image;
  }

 private:
  // train-images-idx3-ubyte.gz -> train-labels-idx1-ubyte.gz; empty if the name has no such form.
  static fs::path LabelsPath(const fs::path& images) {
    std::string name = images.filename().string();
    const size_t at = name.find("images-idx3");
    if (at == std::string::npos) return {};
    return images.parent_path() / name.replace(at, 11, "labels-idx1");
  }

  Idx images_;
};

}  // namespace

Result<std::unique_ptr<DataSet>> OpenIdx(const std::filesystem::path& path) { return IdxDataSet::Open(path); }

}  // namespace fkdb
