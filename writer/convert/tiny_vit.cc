// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/tiny_vit.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <cstring>
#include <fstream>
#include <map>

#include "format/half.h"
#include "format/text.h"
#include "writer/convert/folder_order.h"
#include "writer/convert/image_order.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
namespace ipc = boost::interprocess;

constexpr uint32_t kNoRecord = UINT32_MAX;

tl::unexpected<Error> In(const fs::path& path, ErrorCode code, std::string_view what) { return Fail(code, fmt::format("{}: {}", path.string(), what)); }

// One rank's records of one epoch.
struct Values {
  fs::path path;
  ipc::mapped_region map;
  uint32_t first = 0;  // record of the epoch
};

struct Epoch {
  std::vector<Values> values;
  std::vector<uint32_t> records;  // of each image; kNoRecord
};

class TinyVitSource : public LabelSource {
 public:
  explicit TinyVitSource(const LabelledImages& images) : data_(images.data), count_(images.count) {}

  Result<void> Open(const fs::path& root) {
    root_ = root;
    FKDB_ASSIGN(const auto folders, ListEpochs());
    const FolderOrder order(data_.keys());
    for (const auto& [epoch, folder] : folders) FKDB_TRY(AddEpoch(folder, order));
    std::vector<uint32_t> counts(data_.size());
    for (const Epoch& epoch : epochs_) {
      for (uint64_t i = 0; i < counts.size(); ++i) counts[i] += epoch.records[i] != kNoRecord;
    }
    for (uint64_t i = 0; i < count_; ++i) {
      if (counts[i] == 0) unlabelled_.Add(Printable(data_.keys()[i]));
    }
    most_crops_ = *std::max_element(counts.begin(), counts.begin() + static_cast<ptrdiff_t>(count_));
    return {};
  }

  std::string PathOf(uint64_t) const override { return root_.string(); }
  std::optional<uint32_t> most_crops() const override { return most_crops_; }

  Result<ImageLabels> Load(uint64_t ordinal) const override {
    ImageLabels labels;
    labels.form = LabelForm::kTopK;
    labels.num_values = k_;
    labels.half_values = true;
    for (const Epoch& epoch : epochs_) {
      const uint32_t record = epoch.records[ordinal];
      if (record == kNoRecord) continue;
      const auto next = std::upper_bound(epoch.values.begin(), epoch.values.end(), record, [](uint32_t r, const Values& v) { return r < v.first; });
      const Values& values = *(next - 1);
      const auto* at = static_cast<const std::byte*>(values.map.get_address()) + (record - values.first) * record_bytes();
      uint32_t seed = 0;
      std::memcpy(&seed, at, sizeof seed);
      labels.fraction_boxes.push_back({0, 0, 1, 1});
      labels.flips.push_back(0);
      labels.ops.push_back({{OpKind::kReplay, 0, {static_cast<float>(seed >> 16), static_cast<float>(seed & 0xffff)}}});
      for (uint32_t i = 0; i < k_; ++i) {
        int16_t index = 0;
        uint16_t half = 0;
        std::memcpy(&index, at + 4 + 2 * i, sizeof index);
        std::memcpy(&half, at + 4 + 2 * (k_ + i), sizeof half);
        if (index < 0) return In(values.path, ErrorCode::kCorruption, fmt::format("record {}: class {}", record - values.first, index));
        labels.indices.push_back(static_cast<uint32_t>(index));
        labels.values.push_back(FloatFromHalf(half));
      }
    }
    if (labels.flips.empty()) return In(root_, ErrorCode::kNotFound, "no epoch has it");
    return labels;
  }

 private:
  uint64_t record_bytes() const { return 4 + 4 * uint64_t{k_}; }

  // The folders `logits_topK_epochE` by E; sets k_.
  Result<std::map<uint64_t, fs::path>> ListEpochs() {
    std::map<uint64_t, fs::path> folders;
    std::error_code ec;
    fs::directory_iterator it(root_, ec), end;
    for (; !ec && it != end; it.increment(ec)) {
      const std::string name = it->path().filename().string();
      constexpr std::string_view kPrefix = "logits_top", kMiddle = "_epoch";
      const size_t middle = name.find(kMiddle);
      if (!name.starts_with(kPrefix) || middle == std::string::npos) continue;
      const auto k = ParseNumber(std::string_view(name).substr(kPrefix.size(), middle - kPrefix.size()));
      const auto epoch = ParseNumber(std::string_view(name).substr(middle + kMiddle.size()));
      if (!k || !epoch || *k == 0 || *k > UINT16_MAX) continue;
      if (k_ != 0 && *k != k_) return In(root_, ErrorCode::kMismatch, fmt::format("epochs of K = {} and of K = {}", k_, *k));
      k_ = static_cast<uint32_t>(*k);
      folders.emplace(*epoch, it->path());
    }
    if (ec) return In(root_, ErrorCode::kIoError, "cannot list it: " + ec.message());
    if (folders.empty()) return In(root_, ErrorCode::kNotFound, "no folder 'logits_topK_epochE' in it");
    return folders;
  }

  Result<void> AddEpoch(const fs::path& folder, const FolderOrder& order) {
    Epoch epoch;
    epoch.records.assign(data_.size(), kNoRecord);
    std::map<uint64_t, fs::path> ranks;
    std::error_code ec;
    fs::directory_iterator it(folder, ec), end;
    for (; !ec && it != end; it.increment(ec)) {
      const std::string name = it->path().filename().string();
      constexpr std::string_view kPrefix = "rank", kSuffix = "-values.bin";
      if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
      if (const auto rank = ParseNumber(std::string_view(name).substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size()))) ranks.emplace(*rank, it->path());
    }
    if (ec) return In(folder, ErrorCode::kIoError, "cannot list it: " + ec.message());
    uint64_t first = 0;
    for (const auto& [rank, path] : ranks) {
      const fs::path keys = folder / fmt::format("rank{}-keys.txt", rank);
      std::ifstream lines(keys);
      if (!lines) return In(keys, ErrorCode::kNotFound, "no such file");
      uint64_t count = 0;
      for (std::string key; std::getline(lines, key); ++count) {
        if (key.ends_with('\r')) key.pop_back();
        if (first + count >= kNoRecord) return In(folder, ErrorCode::kResourceExhausted, "too many records");
        if (const auto ordinal = OrdinalOf(key, order)) {
          if (epoch.records[*ordinal] == kNoRecord) epoch.records[*ordinal] = static_cast<uint32_t>(first + count);
        } else if (ParseNumber(key)) {
          return In(keys, ErrorCode::kMismatch, fmt::format("image {} of {}: they must be the images that were labelled, all of them", Printable(key), data_.size()));
        } else {
          strays_.Add(fmt::format("{}: '{}'", keys.string(), Printable(key)));
        }
      }
      const uint64_t bytes = fs::file_size(path, ec);
      if (ec || bytes != count * record_bytes()) {
        return In(path, ErrorCode::kCorruption, fmt::format("{} bytes: expected {} records of {}, one for each line of {}", ec ? 0 : bytes, count, record_bytes(),
                                                            keys.filename().string()));
      }
      if (count == 0) continue;
      try {
        const ipc::file_mapping file(path.c_str(), ipc::read_only);
        epoch.values.push_back({path, ipc::mapped_region(file, ipc::read_only), static_cast<uint32_t>(first)});
      } catch (const ipc::interprocess_exception& e) {
        return In(path, ErrorCode::kIoError, fmt::format("cannot map it: {}", e.what()));
      }
      first += count;
    }
    if (epoch.values.empty()) return In(folder, ErrorCode::kNotFound, "no 'rankR-values.bin' in it, or an empty one");
    epochs_.push_back(std::move(epoch));
    return {};
  }

  std::optional<uint64_t> OrdinalOf(const std::string& key, const FolderOrder& order) const {
    const auto& keys = data_.keys();
    const auto found = std::lower_bound(keys.begin(), keys.end(), key);
    if (found != keys.end() && *found == key) return static_cast<uint64_t>(found - keys.begin());
    const auto number = ParseNumber(key);
    return number && *number < keys.size() ? std::optional(order.ordinal(*number)) : std::nullopt;
  }

  const DataSet& data_;
  const uint64_t count_;
  fs::path root_;
  uint32_t k_ = 0;
  uint32_t most_crops_ = 0;
  std::vector<Epoch> epochs_;
};

}  // namespace

Result<std::unique_ptr<LabelSource>> OpenTinyVit(const fs::path& root, const LabelledImages& images) {
  auto source = std::make_unique<TinyVitSource>(images);
  FKDB_TRY(source->Open(root));
  return std::unique_ptr<LabelSource>(std::move(source));
}

}  // namespace fkdb
