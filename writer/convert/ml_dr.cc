// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/ml_dr.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>

#include "format/hash.h"
#include "format/text.h"
#include "writer/convert/folder_order.h"
#include "writer/convert/image_order.h"
#include "writer/convert/mixing.h"
#include "writer/convert/torch_file.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kExtension = ".pth.tar";

tl::unexpected<Error> Bad(std::string what) { return Fail(ErrorCode::kCorruption, std::move(what)); }

// What of the augmentation takes parameters, in their order.
struct Steps {
  bool flip = false, rand_augment = false, erase = false, mixup = false, cutmix = false;
  bool mixing() const { return mixup || cutmix; }
};

Result<Steps> ParseConfig(const PickleValue& root) {
  const PickleValue* reinforce = root.Find("reinforce");
  const PickleValue* augmentation = reinforce ? reinforce->Find("image_augmentation") : nullptr;
  if (!augmentation) return Bad("no 'reinforce', 'image_augmentation' in it");
  const auto has = [&](std::string_view name) {
    const PickleValue* step = augmentation->Find(name);
    const PickleValue* enable = step ? step->Find("enable") : nullptr;
    return step && (!enable || enable->integer());
  };
  for (const std::string_view name : {"resize", "center_crop", "random_crop"}) {
    if (has(name)) return Fail(ErrorCode::kUnsupported, fmt::format("its crops are of images after '{}', not of the images themselves", name));
  }
  if (!has("random_resized_crop")) return Fail(ErrorCode::kUnsupported, "no 'random_resized_crop' in it: there are no boxes to store");
  if (const PickleValue* compress = reinforce->Find("compress"); compress && !compress->integer()) {
    return Fail(ErrorCode::kUnsupported, "'compress' is off: only compressed parameters are read");
  }
  Steps steps;
  steps.flip = has("random_horizontal_flip");
  steps.rand_augment = has("rand_augment");
  steps.erase = has("random_erase");
  steps.mixup = has("mixup");
  steps.cutmix = has("cutmix");
  return steps;
}

// `count` numbers of a list or tuple.
template <size_t count>
Result<std::array<double, count>> Numbers(const PickleValue& value, std::string_view what) {
  std::array<double, count> numbers;
  const auto items = value.items();
  bool good = value.is_sequence() && items.size() == count;
  for (size_t i = 0; i < count && good; ++i) {
    good = items[i]->is_number();
    if (good) numbers[i] = items[i]->real();
    good = good && std::isfinite(numbers[i]);
  }
  if (!good) return Bad(fmt::format("{}: {}, expected {} numbers", what, value.What(), count));
  return numbers;
}

// An operation of torchvision's RandAugment. None for Identity.
Result<std::optional<CropOp>> RandAugmentOp(const PickleValue& value) {
  FKDB_ASSIGN(const auto numbers, Numbers<2>(value, "rand_augment"));
  const auto m = static_cast<float>(numbers[1]);
  const float slant = static_cast<float>(std::atan(numbers[1]) * 180 / std::numbers::pi);
  const std::array<std::optional<CropOp>, 14> ops = {
      std::nullopt,
      CropOp{OpKind::kShearX, 0, {slant}},
      CropOp{OpKind::kShearY, 0, {slant}},
      CropOp{OpKind::kTranslateX, 0, {std::trunc(m)}},
      CropOp{OpKind::kTranslateY, 0, {std::trunc(m)}},
      CropOp{OpKind::kRotate, 0, {m}},
      CropOp{OpKind::kBrightness, 0, {1 + m}},
      CropOp{OpKind::kSaturation, 0, {1 + m}},
      CropOp{OpKind::kContrast, 0, {1 + m}},
      CropOp{OpKind::kSharpness, 0, {1 + m}},
      CropOp{OpKind::kPosterize, 0, {std::trunc(m)}},
      CropOp{OpKind::kSolarize, 0, {m}},
      CropOp{OpKind::kAutoContrast},
      CropOp{OpKind::kEqualize},
  };
  if (!(numbers[0] >= 0 && numbers[0] < static_cast<double>(ops.size()))) return Bad(fmt::format("rand_augment: operation {}", numbers[0]));
  return ops[static_cast<size_t>(numbers[0])];
}

// One image's part of a crop's parameters.
struct View {
  PixelBox box;
  bool flip = false;
  std::vector<CropOp> ops;
};

class MlDrSource : public LabelSource {
 public:
  MlDrSource(fs::path root, const LabelledImages& images, Steps steps)
      : root_(std::move(root)), data_(images.data), count_(images.count), order_(images.data.keys()), steps_(steps) {}

  std::string PathOf(uint64_t ordinal) const override { return FileOf(ordinal).string(); }

  Result<ImageLabels> Load(uint64_t ordinal) const override {
    FKDB_ASSIGN(const TorchFile file, TorchFile::Read(FileOf(ordinal)));
    auto labels = Parse(file.root(), order_.number(ordinal));
    if (!labels) return Fail(labels.error().code, fmt::format("{}: {}", PathOf(ordinal), labels.error().message));
    return labels;
  }

  Result<void> List() {
    std::vector<bool> found(data_.size());
    std::error_code ec;
    fs::directory_iterator it(root_, ec), end;
    for (; !ec && it != end; it.increment(ec)) {
      const std::string name = it->path().filename().string();
      if (!name.ends_with(kExtension) || name == "config.pth.tar") continue;
      const auto number = ParseNumber(std::string_view(name).substr(0, name.size() - kExtension.size()));
      if (!number) {
        strays_.Add(Printable(name));
      } else if (*number < data_.size()) {
        found[*number] = true;
      } else {
        return Fail(ErrorCode::kMismatch, fmt::format("{}: '{}' in it, and {} images: labels are numbered by the images that were labelled, all of them: are some missing?",
                                                      root_.string(), name, data_.size()));
      }
    }
    if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot list it: {}", root_.string(), ec.message()));
    for (uint64_t i = 0; i < count_; ++i) {
      if (!found[order_.number(i)]) unlabelled_.Add(Printable(data_.keys()[i]));
    }
    return {};
  }

 private:
  fs::path FileOf(uint64_t ordinal) const { return root_ / (std::to_string(order_.number(ordinal)) + std::string(kExtension)); }

  Result<ImageLabels> Parse(const PickleValue& root, uint64_t number) const {
    const auto parts = root.items();
    if (!root.is_sequence() || parts.size() != 2 || parts[0]->type() != PickleValue::Type::kInt || !parts[1]->is_sequence()) {
      return Bad(fmt::format("expected a number and a list of crops; got {}", root.What()));
    }
    if (static_cast<uint64_t>(parts[0]->integer()) != number) {
      return Fail(ErrorCode::kMismatch, fmt::format("it says that it is of image {}, its name says {}", parts[0]->integer(), number));
    }
    ImageLabels labels;
    labels.form = LabelForm::kTopK;
    const auto crops = parts[1]->items();
    if (crops.empty() || crops.size() > kMaxCropsPerImage) return Bad(fmt::format("{} crops: expected 1 to {}", crops.size(), kMaxCropsPerImage));
    for (size_t i = 0; i < crops.size(); ++i) {
      if (auto added = AddCrop(*crops[i], &labels); !added) {
        return Fail(added.error().code, fmt::format("crop {}: {}", i, added.error().message));
      }
    }
    if (std::all_of(labels.ops.begin(), labels.ops.end(), [](const auto& ops) { return ops.empty(); })) labels.ops.clear();
    return labels;
  }

  Result<void> AddCrop(const PickleValue& crop, ImageLabels* labels) const {
    const PickleValue *params = crop.Find("params"), *prob = crop.Find("prob");
    if (!params || !prob || !params->is_sequence()) return Bad(fmt::format("{}, expected lists 'params' and 'prob'", crop.What()));
    FKDB_TRY(AddLabel(*prob, labels));

    auto items = params->items();
    const size_t expected = 1 + steps_.mixing() + steps_.flip + steps_.rand_augment + steps_.erase + steps_.mixup + steps_.cutmix;
    if (items.size() != expected) return Bad(fmt::format("params: {}, expected {} by config.pth.tar", params->What(), expected));
    const PickleValue* partner = nullptr;
    if (steps_.mixing()) {
      if (!items[0]->is_none()) partner = items[0];
      items = items.subspan(1);
    }
    const size_t of_a_view = 1 + steps_.flip + steps_.rand_augment + steps_.erase;
    const auto own = items.first(of_a_view), mixing = items.subspan(of_a_view);
    FKDB_ASSIGN(View view, ParseView(own, partner ? 0 : -1));
    labels->pixel_boxes.push_back(view.box);
    labels->flips.push_back(view.flip);
    if (partner) {
      FKDB_ASSIGN(const View other, ParseView(own, 1));
      FKDB_TRY(Mix(*partner, other, mixing, &view.ops));
    }
    labels->ops.push_back(std::move(view.ops));
    return {};
  }

  static Result<void> AddLabel(const PickleValue& prob, ImageLabels* labels) {
    const auto parts = prob.items();
    if (!prob.is_sequence() || parts.size() != 2 || !parts[0]->is_sequence() || parts[0]->items().size() != parts[1]->items().size()) {
      return Bad(fmt::format("prob: {}, expected K probabilities and K classes", prob.What()));
    }
    const auto k = static_cast<uint32_t>(parts[0]->items().size());
    if (labels->num_values == 0) labels->num_values = k;
    // The same list may stand for many crops: small files must not make large labels.
    constexpr size_t kMost = 16 << 20;
    if (labels->values.size() + k > kMost) return Fail(ErrorCode::kResourceExhausted, fmt::format("prob: more than {} probabilities of one image", kMost));
    if (k == 0 || labels->num_values != k) return Bad(fmt::format("prob: K = {}, the first crop has {}", k, labels->num_values));
    for (uint32_t i = 0; i < k; ++i) {
      const PickleValue &p = *parts[0]->items()[i], &c = *parts[1]->items()[i];
      if (!p.is_number() || c.type() != PickleValue::Type::kInt || c.integer() < 0 || c.integer() >= kMaxClasses) {
        return Bad(fmt::format("prob: {} and {}, expected a probability and a class", p.What(), c.What()));
      }
      labels->values.push_back(static_cast<float>(p.real()));
      labels->indices.push_back(static_cast<uint32_t>(c.integer()));
    }
    return {};
  }

  // items: crop, flip, rand-augment, erase; of a pair the one at `side`, which is -1 where there are no pairs.
  Result<View> ParseView(std::span<const PickleValue* const> items, int side) const {
    for (const PickleValue* item : items) {
      if (side >= 0 && (!item->is_sequence() || item->items().size() != 2)) return Bad(fmt::format("params: {}, expected a pair for the image and its partner", item->What()));
    }
    size_t at = 0;
    const auto next = [&]() -> const PickleValue& {
      const PickleValue* item = items[at++];
      return side < 0 ? *item : *item->items()[static_cast<size_t>(side)];
    };
    View view;
    FKDB_ASSIGN(const auto box, Numbers<4>(next(), "params: crop"));
    for (const double side_length : box) {
      if (!(side_length >= 0 && side_length < 0x1p31 && side_length == std::trunc(side_length))) return Bad(fmt::format("params: crop: {} is no number of pixels", side_length));
    }
    view.box = {static_cast<uint32_t>(box[0]), static_cast<uint32_t>(box[1]), static_cast<uint32_t>(box[2]), static_cast<uint32_t>(box[3])};
    if (steps_.flip) {
      const PickleValue& flip = next();
      if (!flip.is_number()) return Bad(fmt::format("params: flip: {}", flip.What()));
      view.flip = flip.real() != 0;
    }
    if (steps_.rand_augment) {
      const PickleValue& list = next();
      if ((!list.is_none() && !list.is_sequence()) || list.items().size() > kMaxOpsPerCrop / 2) return Bad(fmt::format("params: rand_augment: {}", list.What()));
      for (const PickleValue* item : list.items()) {
        FKDB_ASSIGN(const std::optional<CropOp> op, RandAugmentOp(*item));
        if (op) view.ops.push_back(*op);
      }
    }
    if (steps_.erase) {
      if (const PickleValue& value = next(); !value.is_none()) {
        FKDB_ASSIGN(const auto e, Numbers<4>(value, "params: random_erase"));
        if (e[0] >= 0) view.ops.push_back({OpKind::kErase, 0, {static_cast<float>(e[0]), static_cast<float>(e[1]), static_cast<float>(e[2]), static_cast<float>(e[3])}});
      }
    }
    return view;
  }

  Result<void> Mix(const PickleValue& partner, const View& other, std::span<const PickleValue* const> mixing, std::vector<CropOp>* ops) const {
    if (partner.type() != PickleValue::Type::kInt || static_cast<uint64_t>(partner.integer()) >= data_.size()) {
      return Fail(ErrorCode::kMismatch, fmt::format("params: partner: {}, of {} images", partner.What(), data_.size()));
    }
    const uint64_t hash = Hash64(data_.keys()[order_.ordinal(static_cast<uint64_t>(partner.integer()))]);
    ops->push_back(PartnerCrop(other.box, other.flip));
    ops->insert(ops->end(), other.ops.begin(), other.ops.end());
    size_t at = 0;
    if (steps_.mixup) {
      if (const PickleValue& value = *mixing[at++]; !value.is_none()) {
        if (!value.is_number()) return Bad(fmt::format("params: mixup: {}", value.What()));
        ops->push_back({OpKind::kMixup, hash, {static_cast<float>(value.real())}});
      }
    }
    if (steps_.cutmix) {
      if (const PickleValue& value = *mixing[at++]; !value.is_none()) {
        FKDB_ASSIGN(const auto c, Numbers<5>(value, "params: cutmix"));
        ops->push_back(Cutmix(hash, c[0], {c[1], c[2], c[3], c[4]}));
      }
    }
    return {};
  }

  fs::path root_;
  const DataSet& data_;
  const uint64_t count_;
  FolderOrder order_;
  Steps steps_;
};

}  // namespace

Result<std::unique_ptr<LabelSource>> OpenMlDr(const fs::path& root, const LabelledImages& images) {
  const fs::path config = root / "config.pth.tar";
  if (std::error_code ec; !fs::exists(config, ec)) return Fail(ErrorCode::kNotFound, fmt::format("{}: no 'config.pth.tar' in it, which says what the labels' parameters are", root.string()));
  FKDB_ASSIGN(const TorchFile file, TorchFile::Read(config));
  const auto steps = ParseConfig(file.root());
  if (!steps) return Fail(steps.error().code, fmt::format("{}: {}", config.string(), steps.error().message));
  auto source = std::make_unique<MlDrSource>(root, images, *steps);
  FKDB_TRY(source->List());
  return std::unique_ptr<LabelSource>(std::move(source));
}

}  // namespace fkdb
