// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/batch_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <optional>

#include "format/hash.h"
#include "format/quantize.h"
#include "format/text.h"
#include "writer/convert/folder_order.h"
#include "writer/convert/box_fractions.h"
#include "writer/convert/gathered_source.h"
#include "writer/convert/image_order.h"
#include "writer/convert/label_batch_value.h"
#include "writer/convert/mixing.h"
#include "writer/convert/torch_file.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

// The files or folders PREFIX N SUFFIX of a folder, by their number.
Result<std::map<uint64_t, fs::path>> ListNumbered(const fs::path& folder, std::string_view prefix, std::string_view suffix) {
  std::map<uint64_t, fs::path> found;
  std::error_code ec;
  fs::directory_iterator it(folder, ec), end;
  for (; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() < prefix.size() + suffix.size()) continue;
    const std::string_view digits = std::string_view(name).substr(prefix.size(), name.size() - prefix.size() - suffix.size());
    if (const auto number = ParseNumber(digits)) found.emplace(*number, it->path());
  }
  if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot list it: {}", folder.string(), ec.message()));
  return found;
}

// One batch: where it is.
struct Part {
  fs::path path;
  int64_t item = -1;   // of the list in the file; -1: the file is the batch
  size_t first = 0;    // its first row of the group
  size_t size = 0;
};

// A group of rows is a file: a batch, or the batches of an epoch.
class BatchSource : public GatheredSource {
 public:
  BatchSource(BatchSystem system, const LabelledImages& images, const BatchFilesOptions& options)
      : GatheredSource(images, options.memory_bytes, options.threads), system_(system), options_(options) {}

  Result<void> Open(const fs::path& root) {
    root_ = root;
    if (std::error_code ec; !fs::is_directory(root, ec)) return Fail(ErrorCode::kNotFound, fmt::format("{}: no such folder of labels", root.string()));
    FKDB_TRY(system_ == BatchSystem::kSre2l ? OpenSre2l() : system_ == BatchSystem::kLpqld ? OpenLpqld() : OpenHald());
    if (parts_.empty()) return Fail(ErrorCode::kNotFound, fmt::format("{}: no batches in it", root.string()));
    const FolderOrder folder(data_.keys());
    for (Rows& rows : groups_) {
      for (uint32_t& id : rows.ordinals) id = static_cast<uint32_t>(folder.ordinal(id));
    }
    const Part& first = parts_[0][0];
    FKDB_ASSIGN(const TorchFile file, TorchFile::Read(first.path));
    FKDB_ASSIGN(const BatchValue batch, BatchOf(file, first));
    sparse_ = batch.classes.has_value();
    ImageLabels shape;
    shape.form = system_ == BatchSystem::kHald ? LabelForm::kAll : sparse_ ? LabelForm::kTopKRenorm : LabelForm::kLogits;
    shape.num_values = width_ = static_cast<uint32_t>(std::min<uint64_t>(batch.outputs.shape()[1], kMaxClasses));
    const uint64_t listed = batch.ops.empty() ? 0 : batch.ops[0].size();
    FKDB_TRY(Ready(shape, sizeof(CropOp) * (batch.partners.empty() ? listed : 2 + 2 * listed)));
    return MeasureAll();
  }

  std::string PathOf(uint64_t) const override { return root_.string(); }

 private:
  tl::unexpected<Error> In(const Part& part, const Error& error) const {
    return Fail(error.code, fmt::format("{}{}: {}", part.path.string(), part.item < 0 ? "" : fmt::format(", batch {}", part.item), error.message));
  }

  Result<BatchValue> BatchOf(const TorchFile& file, const Part& part) const {
    const PickleValue* value = &file.root();
    if (part.item >= 0) {
      const auto items = value->items();
      if (!value->is_sequence() || static_cast<uint64_t>(part.item) >= items.size()) return In(part, {ErrorCode::kCorruption, value->What() + ", expected a list of batches"});
      value = items[static_cast<size_t>(part.item)];
    }
    auto batch = ParseBatch(*value);
    if (!batch) return In(part, batch.error());
    if (batch->size() != part.size) return In(part, {ErrorCode::kMismatch, fmt::format("{} crops, {} images by the order", batch->size(), part.size)});
    return batch;
  }

  void AddGroup(std::vector<Part> parts, std::vector<uint32_t> ids) {
    parts_.push_back(std::move(parts));
    groups_.push_back({std::move(ids), {}});
  }

  // Batches that follow each other in `ids`, a group for each file.
  Result<void> AddEpoch(const std::vector<Part>& batches, const std::vector<uint32_t>& ids) {
    std::vector<Part> group;
    size_t begin = 0, at = 0;
    for (size_t b = 0; b < batches.size(); ++b) {
      Part part = batches[b];
      part.first = at - begin;
      if (part.size > ids.size() - at) return In(part, {ErrorCode::kMismatch, fmt::format("{} crops, the order has only {} images left for it", part.size, ids.size() - at)});
      at += part.size;
      group.push_back(part);
      if (b + 1 < batches.size() && batches[b + 1].path == part.path) continue;
      AddGroup(std::move(group), {ids.begin() + static_cast<ptrdiff_t>(begin), ids.begin() + static_cast<ptrdiff_t>(at)});
      group.clear();
      begin = at;
    }
    if (at == ids.size()) return {};
    return Fail(ErrorCode::kMismatch, fmt::format("{}: its batches have {} crops, the order {} images: is a batch missing?",
                                                  batches.back().path.parent_path().string(), at, ids.size()));
  }

  Result<uint64_t> SizeOf(const fs::path& path) const {
    FKDB_ASSIGN(const TorchFile file, TorchFile::Read(path));
    const auto batch = ParseBatch(file.root());
    if (!batch) return Fail(batch.error().code, fmt::format("{}: {}", path.string(), batch.error().message));
    return batch->size();
  }

  // An epoch is all images; another number of them means other images.
  Result<const std::vector<uint32_t>*> EpochOf(const ImageOrder& order, uint64_t epoch, const fs::path& file, const fs::path& labels) const {
    const auto ids = order.find(epoch);
    if (ids != order.end() && ids->second.size() != data_.size()) {
      return Fail(ErrorCode::kMismatch, fmt::format("{}: epoch {} has {} images, and there are {}: they must be the ones that were labelled", file.string(), epoch,
                                                    ids->second.size(), data_.size()));
    }
    if (ids != order.end()) return &ids->second;
    return Fail(ErrorCode::kMismatch, fmt::format("{}: no epoch {} in it, and labels of it in {}", file.string(), epoch, labels.string()));
  }

  Result<void> OpenSre2l() {
    if (options_.order.empty()) {
      return Fail(ErrorCode::kInvalidArgument, "these labels do not say which images a batch is of: --order names a file with the image numbers of each epoch");
    }
    FKDB_ASSIGN(const ImageOrder order, ReadImageOrder(options_.order, data_.size()));
    FKDB_ASSIGN(const auto epochs, ListNumbered(root_, "epoch_", ""));
    for (const auto& [epoch, ids] : order) {
      if (!epochs.contains(epoch)) strays_.Add(fmt::format("{}: epoch {}, of which there are no batches", options_.order.string(), epoch));
    }
    for (const auto& [epoch, folder] : epochs) {
      FKDB_ASSIGN(const auto* const ids, EpochOf(order, epoch, options_.order, folder));
      FKDB_ASSIGN(const auto files, ListNumbered(folder, "batch_", ".tar"));
      if (files.empty()) return Fail(ErrorCode::kNotFound, fmt::format("{}: no batch_N.tar in it", folder.string()));
      // All batches but the last are of one size.
      FKDB_ASSIGN(const uint64_t size, SizeOf(files.begin()->second));
      FKDB_ASSIGN(const uint64_t last, SizeOf(files.rbegin()->second));
      std::vector<Part> batches;
      for (const auto& [number, path] : files) batches.push_back({path, -1, 0, size});
      batches.back().size = last;
      FKDB_TRY(AddEpoch(batches, *ids));
    }
    return {};
  }

  Result<void> OpenLpqld() {
    const fs::path index = root_ / "sampler_indices_batch.json";
    FKDB_ASSIGN(ImageOrder order, ReadImageOrder(index, data_.size()));
    FKDB_ASSIGN(const auto files, ListNumbered(root_, "batch_", ".tar"));
    for (const auto& [number, path] : files) {
      if (!order.contains(number)) strays_.Add(path.filename().string());
    }
    for (auto& [number, ids] : order) {
      const auto file = files.find(number);
      if (file == files.end()) return Fail(ErrorCode::kMismatch, fmt::format("{}: batch {} in it, and no batch_{}.tar", index.string(), number, number));
      const size_t size = ids.size();
      AddGroup({{file->second, -1, 0, size}}, std::move(ids));
    }
    return {};
  }

  Result<void> OpenHald() {
    const fs::path index = root_ / "sampler_indices_dict.pt";
    FKDB_ASSIGN(const ImageOrder order, ReadImageOrder(index, data_.size()));
    FKDB_ASSIGN(const auto files, ListNumbered(root_, "epoch_", ".tar"));
    for (const auto& [epoch, path] : files) {
      FKDB_ASSIGN(const auto* const ids, EpochOf(order, epoch, index, path));
      FKDB_ASSIGN(const TorchFile file, TorchFile::Read(path));
      std::vector<Part> batches;
      for (const PickleValue* item : file.root().items()) {
        const auto batch = ParseBatch(*item);
        if (!batch) return Fail(batch.error().code, fmt::format("{}, batch {}: {}", path.string(), batches.size(), batch.error().message));
        batches.push_back({path, static_cast<int64_t>(batches.size()), 0, batch->size()});
      }
      if (batches.empty()) return Fail(ErrorCode::kCorruption, fmt::format("{}: {}, expected a list of batches", path.string(), file.root().What()));
      FKDB_TRY(AddEpoch(batches, *ids));
    }
    return {};
  }

  Result<void> ReadRows(size_t group, const Wants& wants, const Put& put) const override {
    FKDB_ASSIGN(const TorchFile file, TorchFile::Read(parts_[group][0].path));
    for (const Part& part : parts_[group]) FKDB_TRY(ReadPart(file, part, groups_[group].ordinals, wants, put));
    return {};
  }

  Result<void> ReadPart(const TorchFile& file, const Part& part, std::span<const uint32_t> ordinals, const Wants& wants, const Put& put) const {
    FKDB_ASSIGN(const BatchValue batch, BatchOf(file, part));
    if (batch.outputs.shape()[1] != width_ || batch.classes.has_value() != sparse_) {
      return In(part, {ErrorCode::kMismatch, fmt::format("outputs of {} numbers a crop{}, the first batch has {}{}", batch.outputs.shape()[1],
                                                         batch.classes ? " and their classes" : "", width_, sparse_ ? " and their classes" : "")});
    }
    Row row;
    row.half_box = batch.half_boxes;
    row.half_values = batch.outputs.dtype() == DType::kF16 && !sparse_;
    std::vector<uint32_t> classes(sparse_ ? width_ : 0);
    for (size_t i = 0; i < part.size; ++i) {
      if (!wants(part.first + i)) continue;
      row.fraction_box = batch.boxes[i];
      row.flip = batch.flips[i];
      row.ops = batch.ops.empty() ? std::vector<CropOp>() : batch.ops[i];
      if (!batch.partners.empty()) {
        const uint32_t partner = batch.partners[i];
        if (auto mixed = Mix(batch, partner, ordinals[part.first + partner], &row.ops); !mixed) return In(part, mixed.error());
      }
      std::vector<float> values = batch.outputs.Rows(i, 1).Floats();
      if (sparse_) {
        const auto numbers = batch.classes->Rows(i, 1).Integers();
        for (size_t k = 0; k < width_; ++k) {
          const int64_t c = numbers ? (*numbers)[k] : -1;
          if (c < 0 || c >= kMaxClasses) return In(part, {ErrorCode::kCorruption, fmt::format("batch: class {}", c)});
          classes[k] = static_cast<uint32_t>(c);
        }
        if (!Softmax(values, options_.temperature, values)) return In(part, {ErrorCode::kCorruption, "batch: a logit that is not finite"});
      }
      row.values = values;
      row.indices = classes;
      put(part.first + i, row);
    }
    return {};
  }

  Result<void> Mix(const BatchValue& batch, uint32_t partner, uint32_t ordinal, std::vector<CropOp>* ops) const {
    const ImageSize& size = sizes_[ordinal];
    if (size.width == 0) {
      return Fail(ErrorCode::kMismatch, fmt::format("image '{}' is mixed into others and cannot be read: what it shows there is not known", Printable(data_.keys()[ordinal])));
    }
    if (!IsInside(batch.boxes[partner])) return Fail(ErrorCode::kCorruption, fmt::format("batch: crop {}: its box is not inside the image", partner));
    ops->push_back(PartnerCrop(ToPixels(batch.boxes[partner], size.width, size.height), batch.flips[partner]));
    if (!batch.ops.empty()) ops->insert(ops->end(), batch.ops[partner].begin(), batch.ops[partner].end());
    const uint64_t hash = Hash64(data_.keys()[ordinal]);
    ops->push_back(batch.corners ? Cutmix(hash, batch.lambda, *batch.corners) : CropOp{OpKind::kMixup, hash, {static_cast<float>(batch.lambda)}});
    return {};
  }

  // The sizes of all images: a partner may be any of them.
  Result<void> MeasureAll() {
    sizes_.resize(data_.size());
    std::atomic<uint64_t> next = 0;
    return OnThreads([&]() -> Result<void> {
      std::vector<std::byte> file;
      for (uint64_t i = next++; i < sizes_.size(); i = next++) {
        if (const auto size = data_.Measure(i, &file)) sizes_[i] = *size;  // otherwise 0: refused when its turn comes
      }
      return {};
    });
  }

  const BatchSystem system_;
  const BatchFilesOptions options_;
  fs::path root_;
  std::vector<std::vector<Part>> parts_;  // of each group
  std::vector<ImageSize> sizes_;          // of each image; 0 x 0: it cannot be read
  uint32_t width_ = 0;                    // C or K
  bool sparse_ = false;
};

}  // namespace

Result<std::unique_ptr<LabelSource>> OpenBatchFiles(BatchSystem system, const fs::path& root, const LabelledImages& images, const BatchFilesOptions& options) {
  auto source = std::make_unique<BatchSource>(system, images, options);
  FKDB_TRY(source->Open(root));
  return std::unique_ptr<LabelSource>(std::move(source));
}

}  // namespace fkdb
