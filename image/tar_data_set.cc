// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <numeric>

#include "image/file_data_set.h"
#include "image/tar_index.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kMaxClassNumber = 1u << 24;

// WebDataset's name of a sample: a path up to the first dot of its last part.
std::string_view SampleOf(std::string_view path) {
  const size_t slash = path.rfind('/');
  return path.substr(0, path.find('.', slash == std::string_view::npos ? 0 : slash + 1));
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

class TarDataSet : public FileDataSet {
 public:
  static Result<std::unique_ptr<DataSet>> Open(const fs::path& named, std::vector<fs::path> shards) {
    auto set = std::make_unique<TarDataSet>();
    set->name_ = named.has_filename() ? named.filename().string() : named.parent_path().filename().string();
    set->layout_ = "webdataset";
    set->shards_ = std::move(shards);
    FKDB_TRY(set->Index());
    if (set->keys_.empty()) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("{}: no image in it (expected .jpg, .jpeg or .png files)", named.string()));
    }
    return set;
  }

 private:
  struct Place {
    uint32_t shard;
    uint64_t offset, size;
  };

  std::string PathOf(uint64_t ordinal) const override {
    return fmt::format("{}: {}", shards_[places_[ordinal].shard].string(), keys_[ordinal]);
  }

  Result<void> ReadFile(uint64_t ordinal, std::vector<std::byte>* bytes) const override {
    return ReadPlace(places_[ordinal], bytes);
  }

  Result<void> ReadPlace(const Place& place, std::vector<std::byte>* bytes) const {
    const int fd = ::open(shards_[place.shard].c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      return Fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIoError,
                  fmt::format("cannot open it: {}", std::strerror(errno)));
    }
    bytes->resize(place.size);
    uint64_t done = 0;
    ssize_t got = 1;
    while (done < place.size && got > 0) {
      got = ::pread(fd, bytes->data() + done, place.size - done, static_cast<off_t>(place.offset + done));
      if (got > 0) done += static_cast<uint64_t>(got);
    }
    const int error = errno;
    ::close(fd);
    if (got < 0) return Fail(ErrorCode::kIoError, fmt::format("cannot read it: {}", std::strerror(error)));
    if (done < place.size) return Fail(ErrorCode::kCorruption, "the archive is shorter than when it was opened");
    return {};
  }

  Result<void> Index() {
    std::map<std::string, int32_t, std::less<>> classes;  // of samples that have a .cls
    for (uint32_t shard = 0; shard < shards_.size(); ++shard) {
      FKDB_ASSIGN(const std::vector<TarMember> members, IndexTar(shards_[shard]));
      for (const TarMember& member : members) {
        if (IsImageName(member.path)) {
          keys_.push_back(member.path);
          places_.push_back({shard, member.offset, member.size});
        } else if (member.path.ends_with(".cls")) {
          FKDB_ASSIGN(classes[std::string(SampleOf(member.path))], ReadClass(shard, member));
        }
      }
    }
    FKDB_TRY(Sort());
    if (classes.empty()) {
      FindClasses();
      return {};
    }
    int32_t largest = -1;
    for (const std::string& key : keys_) {
      const auto found = classes.find(SampleOf(key));
      class_indices_.push_back(found == classes.end() ? -1 : found->second);
      largest = std::max(largest, class_indices_.back());
    }
    for (int32_t c = 0; c <= largest; ++c) class_names_.push_back(std::to_string(c));
    return {};
  }

  Result<int32_t> ReadClass(uint32_t shard, const TarMember& member) const {
    std::vector<std::byte> bytes;
    const auto in = [&](ErrorCode code, std::string_view what) {
      return Fail(code, fmt::format("{}: {}: {}", shards_[shard].string(), member.path, what));
    };
    const auto read = ReadPlace({shard, member.offset, std::min<uint64_t>(member.size, 64)}, &bytes);
    if (!read) return in(read.error().code, read.error().message);
    const std::string_view text = Trim({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    uint32_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size() && number < kMaxClassNumber && member.size <= 64) {
      return static_cast<int32_t>(number);
    }
    return in(ErrorCode::kCorruption, "not the number of a class");
  }

  // Into key order. Errors: Corruption (a key that comes twice).
  Result<void> Sort() {
    std::vector<uint64_t> order(keys_.size());
    std::iota(order.begin(), order.end(), uint64_t{0});
    std::sort(order.begin(), order.end(), [&](uint64_t a, uint64_t b) { return keys_[a] < keys_[b]; });
    std::vector<std::string> keys;
    std::vector<Place> places;
    for (const uint64_t i : order) {
      if (!keys.empty() && keys.back() == keys_[i]) {
        return Fail(ErrorCode::kCorruption,
                    fmt::format("image '{}' is in {} and again in {}: an image is known by its path in the archive", keys_[i],
                                shards_[places.back().shard].string(), shards_[places_[i].shard].string()));
      }
      keys.push_back(std::move(keys_[i]));
      places.push_back(places_[i]);
    }
    keys_ = std::move(keys);
    places_ = std::move(places);
    return {};
  }

  std::vector<fs::path> shards_;
  std::vector<Place> places_;  // of each image
};

}  // namespace

std::vector<std::filesystem::path> TarsIn(const std::filesystem::path& folder) {
  std::vector<fs::path> tars;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    std::error_code broken;
    if (it->path().extension() == ".tar" && it->is_regular_file(broken)) tars.push_back(it->path());
  }
  std::sort(tars.begin(), tars.end());
  return tars;
}

Result<std::unique_ptr<DataSet>> OpenTars(const std::filesystem::path& named, std::vector<std::filesystem::path> shards) {
  return TarDataSet::Open(named, std::move(shards));
}

}  // namespace fkdb
