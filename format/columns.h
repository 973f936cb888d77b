// SPDX-License-Identifier: Apache-2.0
// The records of consecutive images as columns of bytes, and back, without a loss and without a float: the form
// in which label sets travel (db/share/SHARE_FORMAT.md is its contract). What lies together compresses together,
// and whoever wants the first crops of each image reads the first layers alone.
//
//   heads      one a group: what each image is, and its palette: the classes that occur in it, the most frequent first
//   layer l    crops [ends[l - 1], ends[l]) of every image, the last layer all the rest: boxes, ranks in the palette, values
//
// Boxes and flips that fkdb drew itself (FORMAT.md section "Drawing") are not stored at all; the writer has
// drawn and compared every one of them. Others are coded in as few bits as the image's size leaves open.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/crop_sampler.h"
#include "format/label_spec.h"
#include "format/record.h"
#include "format/result.h"

namespace fkdb {

using Column = std::vector<uint8_t>;
using Columns = std::vector<Column>;

// What a group's columns depend on besides the records.
struct ColumnRule {
  LabelSpec spec;
  std::optional<CropSampler> sampler;  // none: no image's boxes are taken as drawn
  uint64_t seed = 0;
  std::array<double, 2> ratio = {3. / 4, 4. / 3};  // of the recipe: where widths are expected
  std::vector<uint32_t> layer_ends;                // ascending, at least one

  size_t num_layers() const { return layer_ends.size(); }
  // The first layers that hold crops [0, crops).
  size_t LayersFor(uint32_t crops) const;
  // What layer l has of an image of so many crops.
  struct Range {
    uint32_t begin, end;
    uint32_t size() const { return end - begin; }
  };
  Range CropsOf(size_t l, uint32_t crops) const;
};

constexpr size_t kHeadColumns = 6;
size_t NumCropColumns(const LabelSpec& spec);  // of a layer
// What the column is, for statistics: "boxes", "ranks 0", ..
std::string CropColumnName(const LabelSpec& spec, size_t column);

bool HasRepeats(const LabelSpec& spec, size_t column);  // its bytes come again as they are, more than by chance

// The ends of the layers for M crops an image: an eighth, a quarter, a half, all; one layer of less than 16.
std::vector<uint32_t> LayerEnds(uint32_t crops);

// Collects a group. One thread.
class ColumnWriter {
 public:
  explicit ColumnWriter(const ColumnRule& rule);  // borrowed
  ~ColumnWriter();

  // The next image. Errors: Corruption (a record that does not validate; the group is then not to be used).
  Result<void> Add(const RecordView& record);
  uint32_t num_images() const;
  uint64_t num_drawn() const;  // images whose boxes were drawn
  // The columns of everything added: kHeadColumns, and NumCropColumns of each layer. Starts anew.
  void Finish(Columns* heads, std::vector<Columns>* layers);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What a group says of one image.
struct ImageHead {
  uint32_t width, height, num_crops;
  int32_t class_index;
  bool drawn;
};

// Reads a group that was written by anybody. One thread.
class ColumnReader {
 public:
  // Errors: Corruption (columns that are not those of so many images).
  static Result<ColumnReader> OpenHeads(const ColumnRule& rule, uint32_t images, Columns heads);  // rule borrowed
  // The layers that LayersFor(crops) asks for; Next gives the first `crops` of each image.
  Result<void> OpenLayers(std::vector<Columns> layers, uint32_t crops);
  ~ColumnReader();
  ColumnReader(ColumnReader&&) noexcept;
  ColumnReader& operator=(ColumnReader&&) noexcept;

  uint32_t num_images() const;
  ImageHead head(uint32_t image) const;  // image < num_images()

  // The next image's record, the bytes that EncodeRecord gives: it passes RecordView::Open and Validate. Errors: Corruption.
  Result<std::vector<std::byte>> Next(uint64_t key_hash);
  // Passes over it, with the checks that this needs.
  Result<void> Skip();
  // After the last image: that nothing is left. Errors: Corruption.
  Result<void> Finish();

 private:
  struct Impl;
  explicit ColumnReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fkdb
