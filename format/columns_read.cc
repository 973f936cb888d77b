// SPDX-License-Identifier: Apache-2.0
// Columns back to records. Whatever the bytes, nothing is read outside them: lengths that follow from the heads are
// compared once, when a layer is opened; those that do not are checked on the way.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "format/box_code.h"
#include "format/column_layout.h"
#include "format/columns.h"
#include "format/field_writer.h"
#include "format/packed_levels.h"
#include "format/stored_record.h"

namespace fkdb {
namespace {

template <class... Args>
tl::unexpected<Error> Corrupt(fmt::format_string<Args...> format, Args&&... args) {
  return Fail(ErrorCode::kCorruption, fmt::format(format, std::forward<Args>(args)...));
}

using Head = HeadFields;

struct Layer {
  Columns columns;
  std::vector<size_t> at;  // of each column
  BitColumnReader bits;
};

}  // namespace

struct ColumnReader::Impl {
  Impl(const ColumnRule& r, uint32_t n) : rule(r), spec(r.spec), layout(spec), k(spec.num_indices()), images(n) {}

  Result<void> ReadHeads(Columns columns);
  Result<void> CheckHead(const Head& head) const;
  bool ValidAsBuilt(const Head& head) const;
  Result<void> CheckLayer(size_t l, const Columns& columns) const;

  Result<void> ReadPalette(const Head& head);
  Result<void> ReadBoxes(const Head& head, uint64_t key_hash);
  Result<void> PassBoxes(const Head& head, size_t l, bool keep);
  Result<void> ReadRanks(const Head& head);
  Result<void> ReadEscapedRanks(const Head& head, size_t l);
  Result<void> ReadExcludedRanks(const Head& head, size_t l);
  Result<void> ReadOps(const Head& head, StoredRecord* record);
  void ReadFlips(const Head& head);
  void PackNarrowCrops(const PackedLayout& packed, FieldWriter* out);
  void PackCrops(const Head& head, StoredRecord* record);
  void StoreArrays(const Head& head, StoredRecord* record);
  void Advance(const Head& head);

  const ColumnRule& rule;
  const LabelSpec spec;
  const CropLayout layout;
  const uint32_t k;
  const uint32_t images;

  std::vector<Head> heads;
  Columns head_columns;
  std::vector<Layer> layers;
  uint32_t limit = 0;  // crops of each image that are wanted

  // The next image.
  uint32_t image = 0;
  size_t palette_at = 0, reason_at = 0;
  uint32_t kept = 0;  // crops of it

  std::vector<uint32_t> classes;   // by rank
  std::vector<uint8_t> used;       // by rank
  std::vector<uint8_t> sorted, rank;
  std::vector<uint32_t> ranks;     // (k, kept)
  std::vector<uint32_t> position;  // by rank: in the record's palette
  std::vector<uint32_t> palette;   // ranks in the order of their classes
  std::vector<uint64_t> by_class;  // the same, their classes above them
  std::vector<SampledCrop> crops;
  std::vector<uint64_t> index_words, value_words;
};

ColumnReader::ColumnReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ColumnReader::~ColumnReader() = default;
ColumnReader::ColumnReader(ColumnReader&&) noexcept = default;
ColumnReader& ColumnReader::operator=(ColumnReader&&) noexcept = default;
uint32_t ColumnReader::num_images() const { return impl_->images; }

ImageHead ColumnReader::head(uint32_t image) const {
  const Head& h = impl_->heads[image];
  return {h.width, h.height, h.crops, static_cast<int32_t>(h.class_index), (h.flags & kDrawnFlag) != 0};
}

Result<void> ColumnReader::Impl::CheckHead(const Head& h) const {
  if (h.crops == 0 ? h.reason == 0 || h.reason > kMaxSkipReasonBytes : h.reason > 0) {
    return Corrupt("{} crops and a reason of {} bytes", h.crops, h.reason);
  }
  if (static_cast<int32_t>(h.class_index) < kNoClass) return Corrupt("class {}", static_cast<int32_t>(h.class_index));
  const uint32_t allowed = spec.boxes == BoxEncoding::kPixel ? kAllFlags : kOpsFlag;
  if ((h.flags & ~allowed) != 0 || (h.crops == 0 && h.flags != 0)) return Corrupt("flags {}", h.flags);
  if (h.palette > spec.num_classes || h.palette > uint64_t{h.crops} * k || (h.palette == 0) != (uint64_t{h.crops} * k == 0)) {
    return Corrupt("a palette of {} classes for {} crops", h.palette, h.crops);
  }
  if (h.crops == 0) return {};
  if (h.flags & kDrawnFlag && !rule.sampler) return Corrupt("boxes that were drawn, without a recipe for it");
  if (h.width == 0 || h.height == 0 || h.width > kMaxSide || h.height > kMaxSide) {
    return Corrupt("{} crops of an image of {} x {} pixels", h.crops, h.width, h.height);
  }
  if (spec.is_map() && h.crops != spec.num_cells()) return Corrupt("{} cells, expected {} x {}", h.crops, spec.grid_height, spec.grid_width);
  if (RecordBytesBound(spec, h.crops) > kMaxRecordBytes) return Corrupt("{} crops, too many for a record", h.crops);
  return {};
}

// Whether what was checked on the way leaves nothing to Validate: boxes of box_code.h and drawn ones lie inside the image, ranks that
// exclude each other differ, and whatever the bits of packed values, they are probabilities.
bool ColumnReader::Impl::ValidAsBuilt(const Head& head) const {
  return spec.packed() && spec.boxes == BoxEncoding::kPixel && spec.kind != LabelKind::kLogits && (k <= 1 || RanksExclude(spec, head.palette)) &&
         (head.flags & kOpsFlag) == 0;
}

Result<void> ColumnReader::Impl::ReadHeads(Columns columns) {
  if (columns.size() != kHeadColumns) return Corrupt("{} head columns, expected {}", columns.size(), kHeadColumns);
  const auto expect = [&](size_t column, uint64_t bytes) -> Result<void> {
    if (columns[column].size() == bytes) return {};
    return Corrupt("head column {}: {} bytes, expected {}", column, columns[column].size(), bytes);
  };
  FKDB_TRY(expect(kHeadFields, uint64_t{images} * kHeadFieldBytes));
  FKDB_TRY(expect(kHeadHashes, uint64_t{images} * sizeof(ContentHash)));
  heads.resize(images);
  const uint8_t* from = columns[kHeadFields].data();
  Head::ForEach([&](uint32_t Head::*field, size_t bytes) {
    for (size_t byte = 0; byte < bytes; ++byte) {
      for (Head& head : heads) head.*field |= uint32_t{*from++} << (8 * byte);
    }
  });
  uint64_t palettes = 0, reasons = 0;
  for (uint32_t i = 0; i < images; ++i) {
    if (auto good = CheckHead(heads[i]); !good) return Corrupt("image {} of the group: {}", i, good.error().message);
    palettes += heads[i].palette;
    reasons += heads[i].reason;
  }
  for (size_t byte = 0; byte < 3; ++byte) FKDB_TRY(expect(kHeadPalette + byte, byte == 0 || spec.num_classes > 1u << (8 * byte) ? palettes : 0));
  FKDB_TRY(expect(kHeadReasons, reasons));
  head_columns = std::move(columns);
  return {};
}

Result<ColumnReader> ColumnReader::OpenHeads(const ColumnRule& rule, uint32_t images, Columns heads) {
  auto impl = std::make_unique<Impl>(rule, images);
  FKDB_TRY(impl->ReadHeads(std::move(heads)));
  return ColumnReader(std::move(impl));
}

Result<void> ColumnReader::Impl::CheckLayer(size_t l, const Columns& columns) const {
  if (columns.size() != layout.all) return Corrupt("layer {}: {} columns, expected {}", l, columns.size(), layout.all);
  uint64_t all = 0, with_ops = 0;
  for (const Head& head : heads) {
    const uint64_t here = rule.CropsOf(l, head.crops).size();
    all += here;
    if (head.flags & kOpsFlag) with_ops += here;
  }
  const auto expect = [&](size_t column, uint64_t bytes) -> Result<void> {
    if (columns[column].size() == bytes) return {};
    return Corrupt("layer {}: {}: {} bytes, expected {}", l, CropColumnName(spec, column), columns[column].size(), bytes);
  };
  if (spec.boxes != BoxEncoding::kPixel) FKDB_TRY(expect(0, layout.box_planes > 0 ? (all + 7) / 8 : 0));
  for (size_t plane = 0; plane < layout.box_planes; ++plane) FKDB_TRY(expect(layout.box_at + plane, all));
  // Columns of one number a crop, but for the last of `columns`, which has all that are left of n.
  const auto numbers = [&](size_t first, size_t count, size_t n, size_t bytes) -> Result<void> {
    for (size_t c = 0; c < count * bytes; ++c) FKDB_TRY(expect(first + c, all * (c / bytes + 1 < count ? 1 : n - count + 1)));
    return {};
  };
  FKDB_TRY(numbers(layout.rank_at, layout.ranks, k, 1));
  size_t at = layout.value_at;
  FKDB_TRY(numbers(at, layout.tail, 1, 1));
  FKDB_TRY(numbers(at += layout.tail, layout.ratios, layout.ratios > 0 ? spec.top_k - 1 : 0, 1));
  FKDB_TRY(numbers(at += layout.ratios, layout.code_heads, layout.code_heads, 1));
  FKDB_TRY(numbers(at += layout.code_heads, layout.codes, spec.num_values(), 1));
  FKDB_TRY(numbers(at += layout.codes, layout.value_groups, spec.num_values(), layout.value_bytes));
  for (size_t plane = 0; plane < 2; ++plane) FKDB_TRY(expect(layout.op_at + plane, with_ops));
  for (size_t plane = 3; plane < 6; ++plane) FKDB_TRY(expect(layout.op_at + plane, columns[layout.op_at + 2].size()));
  return {};
}

Result<void> ColumnReader::OpenLayers(std::vector<Columns> columns, uint32_t crops) {
  Impl& r = *impl_;
  if (columns.size() != r.rule.LayersFor(crops)) return Corrupt("{} layers, expected {}", columns.size(), r.rule.LayersFor(crops));
  if (r.spec.is_map() && columns.size() != r.rule.num_layers()) return Fail(ErrorCode::kInvalidArgument, "a part of a label map's cells");
  r.limit = crops;
  for (size_t l = 0; l < columns.size(); ++l) {
    FKDB_TRY(r.CheckLayer(l, columns[l]));
    Layer layer = {std::move(columns[l]), std::vector<size_t>(r.layout.all), {}};
    const size_t bits = layer.columns[0].size();
    layer.columns[0].resize(bits + BitColumnReader::kPadding);
    layer.bits = BitColumnReader(layer.columns[0].data(), bits);
    r.layers.push_back(std::move(layer));
  }
  return {};
}

Result<void> ColumnReader::Impl::ReadPalette(const Head& head) {
  classes.resize(head.palette);
  for (uint32_t rank = 0; rank < head.palette; ++rank) {
    uint32_t class_index = 0;
    for (size_t byte = 0; byte < 3; ++byte) {
      const Column& column = head_columns[kHeadPalette + byte];
      if (!column.empty()) class_index |= uint32_t{column[palette_at + rank]} << (8 * byte);
    }
    if (class_index >= spec.num_classes) return Corrupt("class {} in its palette, expected below {} classes", class_index, spec.num_classes);
    classes[rank] = class_index;
  }
  return {};
}

Result<void> ColumnReader::Impl::ReadEscapedRanks(const Head& head, size_t l) {
  Layer& layer = layers[l];
  const auto [begin, end] = rule.CropsOf(l, head.crops);
  const Column& escapes = layer.columns[layout.rank_at + layout.ranks];
  size_t& escape_at = layer.at[layout.rank_at + layout.ranks];
  for (size_t c = 0; c < layout.ranks; ++c) {
    const size_t last = c + 1 < layout.ranks ? c + 1 : k;
    const uint8_t* from = layer.columns[layout.rank_at + c].data() + layer.at[layout.rank_at + c];
    for (uint32_t i = begin; i < end; ++i) {
      for (size_t j = c; j < last; ++j) {
        uint32_t rank = *from++;
        if (rank == kEscapedRank) {
          if (escapes.size() - escape_at < sizeof rank) return Corrupt("layer {}: escaped ranks end early", l);
          std::memcpy(&rank, escapes.data() + escape_at, sizeof rank);
          escape_at += sizeof rank;
          if (rank < kEscapedRank) return Corrupt("layer {}: an escaped rank of {}", l, rank);
        }
        if (rank >= head.palette) return Corrupt("crop {}: rank {} in a palette of {} classes", i, rank, head.palette);
        if (i >= kept) continue;
        used[rank] = 1;
        ranks[j * kept + i] = rank;
      }
    }
  }
  return {};
}

Result<void> ColumnReader::Impl::ReadExcludedRanks(const Head& head, size_t l) {
  const Layer& layer = layers[l];
  const auto [begin, end] = rule.CropsOf(l, kept);
  const size_t n = end - begin;
  // The crops' ranks so far, ascending: sorted[j * n + i] of crop i. Byte by byte, which compilers make vectors of.
  sorted.resize(n * k);
  rank.resize(n);
  uint8_t* const __restrict now = rank.data();
  uint8_t* const all = sorted.data();
  for (size_t c = 0; c < k; ++c) {
    if (n > 0) std::memcpy(now, layer.columns[layout.rank_at + c].data() + layer.at[layout.rank_at + c], n);
    uint8_t most = 0;
    for (size_t i = 0; i < n; ++i) most = std::max(most, now[i]);
    // Each of the c ranks before adds one at most: none wraps around, or comes twice.
    if (n > 0 && most + c >= head.palette) return Corrupt("rank {} in a palette of {} classes", most + c, head.palette);
    for (size_t j = 0; j < c; ++j) {
      const uint8_t* const __restrict before = all + j * n;
      for (size_t i = 0; i < n; ++i) now[i] += static_cast<uint8_t>(before[i] <= now[i]);
    }
    uint32_t* const __restrict to = ranks.data() + c * kept + begin;
    uint8_t* const marks = used.data();
    for (size_t i = 0; i < n; ++i) to[i] = now[i];
    for (size_t i = 0; i < n; ++i) marks[now[i]] = 1;
    for (size_t j = 0; j < c; ++j) {
      uint8_t* const __restrict before = all + j * n;
      for (size_t i = 0; i < n; ++i) {
        const uint8_t low = std::min(before[i], now[i]), high = std::max(before[i], now[i]);
        before[i] = low;
        now[i] = high;
      }
    }
    if (n > 0) std::memcpy(all + c * n, now, n);
  }
  return {};
}

// Ranks of the kept crops, which of them occur, and what their places in the record's own palette are.
Result<void> ColumnReader::Impl::ReadRanks(const Head& head) {
  ranks.resize(size_t{kept} * k);
  used.assign(head.palette, 0);
  for (size_t l = 0; l < layers.size(); ++l) {
    FKDB_TRY(RanksExclude(spec, head.palette) ? ReadExcludedRanks(head, l) : ReadEscapedRanks(head, l));
  }
  by_class.clear();
  for (uint32_t rank = 0; rank < head.palette; ++rank) {
    if (used[rank]) by_class.push_back(uint64_t{classes[rank]} << 32 | rank);
  }
  if (kept == head.crops && by_class.size() != head.palette) return Corrupt("a class in its palette occurs in no crop");
  std::sort(by_class.begin(), by_class.end());
  position.resize(head.palette);
  palette.clear();
  for (const uint64_t class_and_rank : by_class) {
    const auto class_index = static_cast<uint32_t>(class_and_rank >> 32), rank = static_cast<uint32_t>(class_and_rank);
    if (!palette.empty() && class_index == classes[palette.back()]) return Corrupt("class {} comes twice in its palette", class_index);
    position[rank] = static_cast<uint32_t>(palette.size());
    palette.push_back(rank);
  }
  return {};
}

// Coded boxes of one layer.
Result<void> ColumnReader::Impl::PassBoxes(const Head& head, size_t l, bool keep) {
  const auto [begin, end] = rule.CropsOf(l, head.crops);
  for (uint32_t i = begin; i < end; ++i) {
    SampledCrop crop;
    if (!NextBox(&layers[l].bits, head.width, head.height, (head.flags & kExpectedFlag) != 0, rule.ratio, &crop.box, &crop.flip)) {
      return Corrupt("crop {}: its box is none of an image of {} x {} pixels", i, head.width, head.height);
    }
    if (keep && i < kept) crops[i] = crop;
  }
  return {};
}

Result<void> ColumnReader::Impl::ReadBoxes(const Head& head, uint64_t key_hash) {
  crops.resize(kept);
  if (head.flags & kDrawnFlag) {
    rule.sampler->SampleMany(rule.seed, key_hash, 0, head.width, head.height, crops);
    return {};
  }
  for (size_t l = 0; l < layers.size(); ++l) FKDB_TRY(PassBoxes(head, l, true));
  return {};
}

// Flips beside fractions.
void ColumnReader::Impl::ReadFlips(const Head& head) {
  crops.resize(kept);
  for (size_t l = 0; l < layers.size(); ++l) {
    for (auto [i, end] = rule.CropsOf(l, head.crops); i < end; ++i) {
      const bool flip = layers[l].bits.Next(1) != 0;
      if (i < kept) crops[i].flip = flip;
    }
  }
}

Result<void> ColumnReader::Impl::ReadOps(const Head& head, StoredRecord* record) {
  for (size_t l = 0; l < layers.size(); ++l) {
    Layer& layer = layers[l];
    for (auto [i, end] = rule.CropsOf(l, head.crops); i < end; ++i) {
      const size_t count = layer.columns[layout.op_at][layer.at[layout.op_at]++] | size_t{layer.columns[layout.op_at + 1][layer.at[layout.op_at + 1]++]} << 8;
      size_t& at = layer.at[layout.op_at + 2];
      if (layer.columns[layout.op_at + 2].size() - at < count) return Corrupt("layer {}: operations end early", l);
      for (size_t w = 0; w < count && record != nullptr && i < kept; ++w) {
        uint32_t word = 0;
        for (size_t byte = 0; byte < 4; ++byte) word |= uint32_t{layer.columns[layout.op_at + 2 + byte][at + w]} << (8 * byte);
        record->op_words.push_back(word);
      }
      at += count;
      if (record != nullptr && i < kept) record->op_ends.push_back(static_cast<uint32_t>(record->op_words.size()));
    }
  }
  if (record != nullptr && record->op_words.empty()) record->op_ends.clear();
  return {};
}

// Crops of three fields that are written at once: box and flip, indices, values; each collected column by column.
void ColumnReader::Impl::PackNarrowCrops(const PackedLayout& packed, FieldWriter* out) {
  const uint32_t rows = packed.row_bits, columns = packed.column_bits, index_bits = packed.index_bits;
  const auto value_bits = static_cast<uint32_t>(packed.crop_bits - packed.values_at);
  index_words.assign(kept, 0);
  value_words.assign(kept, 0);
  for (size_t c = 0; c < k; ++c) {
    const uint32_t* const from = ranks.data() + c * kept;
    const uint32_t* const place = position.data();
    uint64_t* const word = index_words.data();
    for (size_t i = 0; i < kept; ++i) word[i] |= uint64_t{place[from[i]]} << (c * index_bits);
  }
  for (size_t l = 0; l < layers.size(); ++l) {
    const auto [begin, end] = rule.CropsOf(l, kept);
    const size_t n = end - begin;
    for (size_t c = 0, shift = 0; c < layout.tail + layout.ratios; ++c) {
      const uint32_t width = c < layout.tail ? kTailBits : kRatioBits;
      const uint64_t mask = (uint64_t{1} << width) - 1;
      const uint8_t* const __restrict from = layers[l].columns[layout.value_at + c].data() + layers[l].at[layout.value_at + c];
      uint64_t* const __restrict word = value_words.data() + begin;
      for (size_t i = 0; i < n; ++i) word[i] |= (from[i] & mask) << shift;
      shift += width;
    }
  }
  FieldWriter to = *out;  // of its own: what it writes could be anything, for all a compiler knows
  const SampledCrop* const crop = crops.data();
  const uint64_t* const indices = index_words.data();
  const uint64_t* const values = value_words.data();
  for (size_t i = 0; i < kept; ++i) {
    const PixelBox& b = crop[i].box;
    const uint64_t box = b.top | uint64_t{b.left} << rows | uint64_t{b.height - 1} << (rows + columns) | uint64_t{b.width - 1} << (2 * rows + columns) |
                         uint64_t{crop[i].flip} << (2 * (rows + columns));
    to.Put(box, 2 * (rows + columns) + 1);
    to.Put(indices[i], k * index_bits);
    to.Put(values[i], value_bits);
  }
  *out = to;
}

void ColumnReader::Impl::PackCrops(const Head& head, StoredRecord* record) {
  const auto size = static_cast<uint32_t>(palette.size());
  const bool with_palette = size > 0 && PaletteIsWorthIt(spec, head.width, head.height, kept, size);
  const PackedLayout packed = LayOutPacked(spec, head.width, head.height, kept, with_palette ? size : 0);
  record->palette_size = packed.palette_size;
  record->packed.resize(packed.bytes());
  for (uint32_t rank = 0; rank < position.size() && !with_palette; ++rank) position[rank] = classes[rank];
  FieldWriter out(record->packed.data());
  const uint32_t rows = packed.row_bits, columns = packed.column_bits, index_bits = packed.index_bits;
  const size_t ratios = layout.ratios > 0 ? spec.top_k - 1 : 0;
  const uint32_t box_bits = 2 * (rows + columns) + 1, value_bits = static_cast<uint32_t>(packed.crop_bits - packed.values_at);
  const bool narrow = spec.boxes == BoxEncoding::kPixel && layout.codes == 0 && ratios == layout.ratios && box_bits <= kMaxFieldBits &&
                      k * index_bits <= kMaxFieldBits && value_bits <= kMaxFieldBits;
  if (narrow) PackNarrowCrops(packed, &out);
  for (size_t l = 0; l < layers.size() && !narrow; ++l) {
    const Layer& layer = layers[l];
    const auto [begin, end] = rule.CropsOf(l, kept);
    const auto from = [&](size_t column) { return layer.columns[column].data() + layer.at[column]; };
    const uint8_t* boxes[16] = {};
    for (size_t plane = 0; plane < layout.box_planes; ++plane) boxes[plane] = from(layout.box_at + plane);
    const uint8_t* tails = layout.tail > 0 ? from(layout.value_at) : nullptr;
    const uint8_t* to_ratios[kMaxSeparate] = {};
    for (size_t c = 0; c < layout.ratios; ++c) to_ratios[c] = from(layout.value_at + layout.tail + c);
    const uint8_t* codes = layout.codes > 0 ? from(layout.value_at + layout.code_heads) : nullptr;
    for (uint32_t i = begin; i < end; ++i) {
      if (layout.box_planes > 0) {
        for (size_t plane = 0; plane < layout.box_planes; ++plane) out.Put(boxes[plane][i - begin], 8);
      } else {
        const PixelBox& b = crops[i].box;
        out.Put(b.top, rows);
        out.Put(b.left, columns);
        out.Put(b.height - 1, rows);
        out.Put(b.width - 1, columns);
      }
      // Small fields wait for each other.
      uint64_t word = crops[i].flip ? 1 : 0;
      uint32_t bits = 1;
      const auto put = [&](uint64_t value, uint32_t count) {
        if (bits + count > kMaxFieldBits) {
          out.Put(word, bits);
          word = bits = 0;
        }
        word |= value << bits;
        bits += count;
      };
      for (uint32_t j = 0; j < k; ++j) put(position[ranks[size_t{j} * kept + i]], index_bits);
      if (tails != nullptr) put(*tails++ & ((1u << kTailBits) - 1), kTailBits);
      for (size_t j = 0; j < ratios; ++j) put(*to_ratios[CropLayout::Of(j, layout.ratios)]++ & ((1u << kRatioBits) - 1), kRatioBits);
      for (size_t h = 0; h < layout.code_heads; ++h) put(from(layout.value_at + h)[i - begin], 8);
      out.Put(word, bits);
      for (size_t c = 0; codes != nullptr && c < spec.num_values(); ++c) out.Put(*codes++, 8);
    }
  }
  for (uint32_t i = 0; i < packed.palette_size; ++i) out.Put(classes[palette[i]], packed.class_bits);
  std::fill(record->packed.end() - kBitPadding, record->packed.end(), uint8_t{0});
}

void ColumnReader::Impl::StoreArrays(const Head& head, StoredRecord* record) {
  const auto indices = [&]<class T>(std::vector<T>* out) {
    out->resize(size_t{kept} * k);
    for (size_t j = 0; j < k; ++j) {
      for (size_t i = 0; i < kept; ++i) (*out)[i * k + j] = static_cast<T>(classes[ranks[j * kept + i]]);
    }
  };
  spec.wide_indices() ? indices(&record->indices_u32) : indices(&record->indices_u16);
  record->flips.resize((kept + 7) / 8);
  const bool has_flips = !spec.is_map();
  for (uint32_t i = 0; i < kept && has_flips; ++i) record->flips[i >> 3] |= static_cast<uint8_t>((crops[i].flip ? 1 : 0) << (i & 7));
  if (spec.boxes == BoxEncoding::kPixel) {
    const auto flat = [&]<class T>(std::vector<T>* out) {
      out->reserve(size_t{kept} * 4);
      for (const SampledCrop& c : crops) {
        for (const uint32_t number : {c.box.top, c.box.left, c.box.height, c.box.width}) out->push_back(static_cast<T>(number));
      }
    };
    head.width > 65535 || head.height > 65535 ? flat(&record->boxes_u32) : flat(&record->boxes_u16);
  }
  const uint32_t n = spec.num_values();
  record->boxes_f32.resize(layout.box_planes == 16 ? size_t{kept} * 4 : 0);
  record->boxes_f16.resize(layout.box_planes == 8 ? size_t{kept} * 4 : 0);
  record->values_f32.resize(layout.value_bytes == 4 ? size_t{kept} * n : 0);
  record->values_16.resize(layout.value_bytes == 2 ? size_t{kept} * n : 0);
  auto* boxes = layout.box_planes == 16 ? reinterpret_cast<uint8_t*>(record->boxes_f32.data()) : reinterpret_cast<uint8_t*>(record->boxes_f16.data());
  auto* values = layout.value_bytes == 4 ? reinterpret_cast<uint8_t*>(record->values_f32.data()) : reinterpret_cast<uint8_t*>(record->values_16.data());
  for (size_t l = 0; l < layers.size(); ++l) {
    const Layer& layer = layers[l];
    const auto [begin, end] = rule.CropsOf(l, kept);
    const auto from = [&](size_t column) { return layer.columns[column].data() + layer.at[column]; };
    for (size_t plane = 0; plane < layout.box_planes; ++plane) {
      for (uint32_t i = begin; i < end; ++i) boxes[i * layout.box_planes + plane] = from(layout.box_at + plane)[i - begin];
    }
    for (size_t g = 0; g < layout.value_groups; ++g) {
      const size_t last = g + 1 < layout.value_groups ? g + 1 : n;
      for (size_t byte = 0; byte < layout.value_bytes; ++byte) {
        const uint8_t* at = from(layout.value_at + g * layout.value_bytes + byte);
        for (uint32_t i = begin; i < end; ++i) {
          for (size_t j = g; j < last; ++j) values[(size_t{i} * n + j) * layout.value_bytes + byte] = *at++;
        }
      }
    }
  }
}

// Behind the image, in the columns whose lengths follow from the heads.
void ColumnReader::Impl::Advance(const Head& head) {
  for (size_t l = 0; l < layers.size(); ++l) {
    Layer& layer = layers[l];
    const size_t here = rule.CropsOf(l, head.crops).size();
    const auto numbers = [&](size_t first, size_t count, size_t n, size_t bytes) {
      for (size_t c = 0; c < count * bytes; ++c) layer.at[first + c] += here * (c / bytes + 1 < count ? 1 : n - count + 1);
    };
    numbers(layout.box_at, layout.box_planes, layout.box_planes, 1);
    numbers(layout.rank_at, layout.ranks, k, 1);
    size_t at = layout.value_at;
    numbers(at, layout.tail, 1, 1);
    numbers(at += layout.tail, layout.ratios, layout.ratios > 0 ? spec.top_k - 1 : 0, 1);
    numbers(at += layout.ratios, layout.code_heads, layout.code_heads, 1);
    numbers(at += layout.code_heads, layout.codes, spec.num_values(), 1);
    numbers(at += layout.codes, layout.value_groups, spec.num_values(), layout.value_bytes);
  }
  palette_at += head.palette;
  reason_at += head.reason;
  ++image;
}

Result<std::vector<std::byte>> ColumnReader::Next(uint64_t key_hash) {
  Impl& r = *impl_;
  if (r.image == r.images) return Fail(ErrorCode::kInvalidArgument, "no image is left in the group");
  const Head& head = r.heads[r.image];
  r.kept = std::min(head.crops, r.limit);
  StoredRecord record;
  record.key_hash = key_hash;
  record.width = head.width;
  record.height = head.height;
  record.num_crops = r.kept;
  record.class_index = static_cast<int32_t>(head.class_index);
  std::memcpy(record.content_hash.data(), r.head_columns[kHeadHashes].data() + size_t{r.image} * sizeof record.content_hash, sizeof record.content_hash);
  record.skip_reason = std::string_view(reinterpret_cast<const char*>(r.head_columns[kHeadReasons].data()) + r.reason_at, head.reason);
  if (r.kept > 0) {
    FKDB_TRY(r.ReadPalette(head));
    if (r.spec.boxes == BoxEncoding::kPixel) {
      FKDB_TRY(r.ReadBoxes(head, key_hash));
    } else if (!r.spec.is_map()) {
      r.ReadFlips(head);
    }
    FKDB_TRY(r.ReadRanks(head));
    r.spec.packed() ? r.PackCrops(head, &record) : r.StoreArrays(head, &record);
    if (head.flags & kOpsFlag) FKDB_TRY(r.ReadOps(head, &record));
  }
  std::vector<std::byte> bytes = BuildRecord(r.spec, record);
  if (!r.ValidAsBuilt(head)) {
    FKDB_ASSIGN(const RecordView view, RecordView::Open(bytes, r.spec));
    FKDB_TRY(view.Validate());
  }
  r.Advance(head);
  return bytes;
}

Result<void> ColumnReader::Skip() {
  Impl& r = *impl_;
  if (r.image == r.images) return Fail(ErrorCode::kInvalidArgument, "no image is left in the group");
  const Head& head = r.heads[r.image];
  r.kept = 0;
  if (r.spec.boxes == BoxEncoding::kPixel && (head.flags & kDrawnFlag) == 0) {
    for (size_t l = 0; l < r.layers.size(); ++l) FKDB_TRY(r.PassBoxes(head, l, false));
  } else if (r.layout.box_planes > 0) {
    r.ReadFlips(head);
  }
  for (size_t l = 0; l < r.layers.size(); ++l) {
    Layer& layer = r.layers[l];
    const uint32_t here = r.rule.CropsOf(l, head.crops).size();
    for (size_t c = 0; c < r.layout.ranks; ++c) {
      const size_t column = r.layout.rank_at + c, size = here * (c + 1 < r.layout.ranks ? 1 : r.k - r.layout.ranks + 1);
      const uint8_t* from = layer.columns[column].data() + layer.at[column];
      if (RanksExclude(r.spec, head.palette)) continue;
      layer.at[r.layout.rank_at + r.layout.ranks] += sizeof(uint32_t) * static_cast<size_t>(std::count(from, from + size, kEscapedRank));
    }
    if (layer.at[r.layout.rank_at + r.layout.ranks] > layer.columns[r.layout.rank_at + r.layout.ranks].size() && r.layout.ranks > 0) {
      return Corrupt("layer {}: escaped ranks end early", l);
    }
  }
  if (head.flags & kOpsFlag) FKDB_TRY(r.ReadOps(head, nullptr));
  r.Advance(head);
  return {};
}

Result<void> ColumnReader::Finish() {
  const Impl& r = *impl_;
  if (r.image != r.images) return Fail(ErrorCode::kInvalidArgument, "images are left in the group");
  for (size_t l = 0; l < r.layers.size(); ++l) {
    const Layer& layer = r.layers[l];
    if (!layer.bits.AtEnd()) return Corrupt("layer {}: bytes are left behind boxes and flips", l);
    for (size_t c = 1; c < r.layout.op_at + 3; ++c) {
      if (layer.at[c] != layer.columns[c].size()) return Corrupt("layer {}: bytes are left behind {}", l, CropColumnName(r.spec, c));
    }
  }
  return {};
}

}  // namespace fkdb
