// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/table_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "format/text.h"
#include "writer/convert/gathered_source.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

// What all rows have in common.
struct Shape {
  bool pixel_boxes = true;
  uint32_t num_indices = 0, num_values = 0;
  bool operator==(const Shape&) const = default;
};
Shape ShapeOf(const TableRows& rows) { return {rows.pixel_boxes, rows.num_indices, rows.num_values}; }
std::string Words(const Shape& s) {
  return fmt::format("boxes of {}, {} indices and {} values a row", s.pixel_boxes ? "pixels" : "fractions", s.num_indices, s.num_values);
}

class TableSource : public GatheredSource {
 public:
  TableSource(const LabelledImages& images, const TableSourceOptions& options) : GatheredSource(images, options.memory_bytes, options.threads), kind_(options.kind) {}

  Result<void> Open(const fs::path& root, std::string_view extension, const OpenTable& open) {
    root_ = root;
    std::vector<fs::path> paths;
    std::error_code ec;
    if (fs::is_directory(root, ec)) {
      for (fs::directory_iterator it(root, ec), end; !ec && it != end; it.increment(ec)) {
        if (it->path().extension() == extension) paths.push_back(it->path());
      }
      std::sort(paths.begin(), paths.end());
      if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot list it: {}", root.string(), ec.message()));
      if (paths.empty()) return Fail(ErrorCode::kNotFound, fmt::format("{}: no {} file in it", root.string(), extension));
    } else {
      paths = {root};
    }
    for (const fs::path& path : paths) FKDB_TRY(AddFile(path, open));
    if (!shape_) return Fail(ErrorCode::kCorruption, fmt::format("{}: no rows in it", root.string()));
    ImageLabels shape;
    FKDB_ASSIGN(shape.form, FormOf(*shape_));
    shape.num_values = std::max(shape_->num_indices, shape_->num_values);
    if (shape_->pixel_boxes) shape.pixel_boxes.resize(1);
    return Ready(shape, 0);
  }

  std::string PathOf(uint64_t) const override { return root_.string(); }

 private:
  struct Place {
    size_t file, group;
  };

  tl::unexpected<Error> In(size_t file, const Error& error) const { return Fail(error.code, fmt::format("{}: {}", paths_[file].string(), error.message)); }

  Result<void> AddFile(const fs::path& path, const OpenTable& open) {
    paths_.push_back(path);
    auto file = open(path);
    if (!file) return In(paths_.size() - 1, file.error());
    files_.push_back(std::move(*file));
    const size_t f = files_.size() - 1;
    for (const std::string& column : files_[f]->other_columns()) strays_.Add(fmt::format("{}: column '{}' is not read", path.string(), Printable(column)));
    for (size_t g = 0; g < files_[f]->num_groups(); ++g) {
      const auto keys = files_[f]->ReadKeys(g);
      if (!keys) return In(f, keys.error());
      if (keys->empty()) continue;
      if (!shape_) {
        const auto rows = files_[f]->Read(g);
        if (!rows) return In(f, rows.error());
        shape_ = ShapeOf(*rows);
      }
      Rows rows;
      for (const std::string& key : *keys) {
        const auto& all = data_.keys();
        const auto found = std::lower_bound(all.begin(), all.end(), key);
        const bool known = found != all.end() && *found == key;
        rows.ordinals.push_back(known ? static_cast<uint32_t>(found - all.begin()) : kNobody);
        if (!known && key != last_stray_) {
          strays_.Add(fmt::format("{}: '{}'", path.string(), Printable(key)));
          last_stray_ = key;
        }
      }
      groups_.push_back(std::move(rows));
      places_.push_back({f, g});
    }
    return {};
  }

  Result<LabelForm> FormOf(const Shape& shape) const {
    const auto bad = [&](std::string_view what) { return Fail(ErrorCode::kCorruption, fmt::format("{}: {}: {}", root_.string(), Words(shape), what)); };
    if (shape.num_indices > 0 && shape.num_values == 0) return shape.num_indices == 1 ? Result<LabelForm>(LabelForm::kClass) : bad("classes without values");
    if (shape.num_indices > 0) {
      if (shape.num_indices != shape.num_values) return bad("as many of one as of the other are needed");
      return kind_ == LabelKind::kSmoothing && shape.num_indices == 1 ? LabelForm::kClassValue : LabelForm::kTopK;
    }
    if (shape.num_values == 0) return bad("neither indices nor values");
    return kind_ == LabelKind::kLogits ? LabelForm::kLogits : LabelForm::kAll;
  }

  Result<void> ReadRows(size_t group, const Wants& wants, const Put& put) const override {
    const auto [f, g] = places_[group];
    const auto& ordinals = groups_[group].ordinals;
    bool any = false;
    for (size_t i = 0; i < ordinals.size() && !any; ++i) any = wants(i);
    if (!any) return {};
    const auto rows = files_[f]->Read(g);
    if (!rows) return In(f, rows.error());
    if (ShapeOf(*rows) != *shape_ || rows->size() != ordinals.size()) {
      return In(f, {ErrorCode::kMismatch, fmt::format("{}; the first rows have {}", Words(ShapeOf(*rows)), Words(*shape_))});
    }
    Row row;
    row.half_box = rows->half_boxes;
    row.half_values = rows->half_values;
    std::vector<uint32_t> indices(rows->num_indices);
    PixelBox box;
    for (size_t i = 0; i < rows->size(); ++i) {
      if (!wants(i)) continue;
      if (rows->pixel_boxes) {
        const int32_t* b = &rows->pixels[4 * i];
        if (std::any_of(b, b + 4, [](int32_t n) { return n < 0; })) return In(f, {ErrorCode::kCorruption, fmt::format("row {}: a box with {} in it", i, *std::min_element(b, b + 4))});
        box = {static_cast<uint32_t>(b[0]), static_cast<uint32_t>(b[1]), static_cast<uint32_t>(b[2]), static_cast<uint32_t>(b[3])};
        row.pixel_box = &box;
      } else {
        const float* b = &rows->fractions[4 * i];
        row.fraction_box = {b[0], b[1], b[2], b[3]};
        if (const float most = *std::max_element(b, b + 4); most > 1.5f) {
          return In(f, {ErrorCode::kCorruption, fmt::format("row {}: {} in a box of floats, which are fractions of the image: pixels are whole numbers, of an integer type", i, most)});
        }
      }
      row.flip = rows->flips[i];
      for (size_t k = 0; k < indices.size(); ++k) {
        const int32_t index = rows->indices[i * indices.size() + k];
        if (index < 0) return In(f, {ErrorCode::kCorruption, fmt::format("row {}: class {}", i, index)});
        indices[k] = static_cast<uint32_t>(index);
      }
      row.indices = indices;
      row.values = std::span(rows->values).subspan(i * rows->num_values, rows->num_values);
      put(i, row);
    }
    return {};
  }

  const std::optional<LabelKind> kind_;
  fs::path root_;
  std::vector<fs::path> paths_;
  std::vector<std::unique_ptr<TableFile>> files_;
  std::vector<Place> places_;  // of each group
  std::optional<Shape> shape_;
  std::string last_stray_;
};

}  // namespace

Result<std::unique_ptr<LabelSource>> OpenTables(const fs::path& path, std::string_view extension, const OpenTable& open, const LabelledImages& images,
                                                const TableSourceOptions& options) {
  auto source = std::make_unique<TableSource>(images, options);
  FKDB_TRY(source->Open(path, extension, open));
  return std::unique_ptr<LabelSource>(std::move(source));
}

}  // namespace fkdb
