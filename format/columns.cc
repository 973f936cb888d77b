// SPDX-License-Identifier: Apache-2.0
#include "format/columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "format/box_code.h"
#include "format/column_layout.h"
#include "format/packed_crops.h"
#include "format/packed_levels.h"

namespace fkdb {
namespace {

template <class... Args>
tl::unexpected<Error> Corrupt(fmt::format_string<Args...> format, Args&&... args) {
  return Fail(ErrorCode::kCorruption, fmt::format(format, std::forward<Args>(args)...));
}

// Room for `count` more bytes.
uint8_t* Extend(Column* column, size_t count) {
  column->resize(column->size() + count);
  return column->data() + column->size() - count;
}

}  // namespace

size_t ColumnRule::LayersFor(uint32_t crops) const {
  size_t layers = 1;
  while (layers < layer_ends.size() && layer_ends[layers - 1] < crops) ++layers;
  return layers;
}

ColumnRule::Range ColumnRule::CropsOf(size_t l, uint32_t crops) const {
  const uint32_t begin = std::min(crops, l > 0 ? layer_ends[l - 1] : 0);
  return {begin, l + 1 < num_layers() ? std::max(begin, std::min(crops, layer_ends[l])) : crops};
}

size_t NumCropColumns(const LabelSpec& spec) { return CropLayout(spec).all; }

std::string CropColumnName(const LabelSpec& spec, size_t column) {
  const CropLayout layout(spec);
  if (column == 0) return "boxes and flips";
  if (column < layout.rank_at) return fmt::format("boxes, byte {}", column - layout.box_at);
  if (column < layout.rank_at + layout.ranks) return fmt::format("ranks {}", column - layout.rank_at);
  if (column < layout.value_at) return "escaped ranks";
  if (column < layout.value_at + layout.tail) return "tails";
  if (column < layout.op_at) return fmt::format("values {}", column - layout.value_at - layout.tail);
  return "operations";
}

bool HasRepeats(const LabelSpec& spec, size_t column) {
  const CropLayout layout(spec);
  return column >= layout.op_at || (column >= layout.box_at && column < layout.rank_at) || (layout.value_groups > 0 && column >= layout.value_at);
}

std::vector<uint32_t> LayerEnds(uint32_t crops) {
  if (crops < 16) return {std::max(crops, 1u)};
  std::vector<uint32_t> ends;
  for (const uint32_t part : {8u, 4u, 2u, 1u}) ends.push_back((crops + part - 1) / part);
  return ends;
}

struct ColumnWriter::Impl {
  explicit Impl(const ColumnRule& r) : rule(r), spec(r.spec), layout(spec), k(spec.num_indices()) { Clear(); }

  void Clear() {
    heads = {};
    layers.assign(rule.num_layers(), Columns(layout.all));
    bits.assign(rule.num_layers(), BitColumn());
    hashes.clear();
    palettes.assign(3, {});
    reasons.clear();
    images = 0;
    drawn = 0;
  }

  using Range = ColumnRule::Range;

  Result<void> ReadIndices(const RecordView& view);
  void OrderPalette();
  void ReadBoxes(const RecordView& view);
  bool Drawn(const RecordView& view);
  void PutRanks(const Range& range, uint32_t crops, Columns* out);
  void PutExcludedRanks(const Range& range, uint32_t crops, Columns* out);
  void PutCodes(const RecordView& view, const Range& range, Columns* out);
  void PutValues(const RecordView& view, const Range& range, Columns* out) const;
  void PutFractions(const RecordView& view, const Range& range, Columns* out) const;
  Result<void> PutOps(const RecordView& view, const Range& range, Columns* out) const;
  Result<void> PutCrops(const RecordView& view, uint8_t flags);

  const ColumnRule& rule;
  const LabelSpec spec;
  const CropLayout layout;
  const uint32_t k;  // indices a crop

  // The group so far.
  std::vector<HeadFields> heads;
  Column hashes, reasons;
  Columns palettes;
  std::vector<Columns> layers;
  std::vector<BitColumn> bits;
  uint32_t images = 0;
  uint64_t drawn = 0;

  // Of the image at hand: its classes in the order in which they were found, and which of them each index is: (k, crops).
  std::vector<uint32_t> classes, counts, positions, ranks;
  uint32_t palette_size = 0;
  std::vector<uint32_t> place_of_class;  // in `classes`, plus one; 0: none yet
  std::vector<PixelBox> boxes;
  std::vector<uint8_t> flips, smaller;
  std::vector<uint64_t> words;
  std::vector<SampledCrop> sampled;
};

ColumnWriter::ColumnWriter(const ColumnRule& rule) : impl_(std::make_unique<Impl>(rule)) {}
ColumnWriter::~ColumnWriter() = default;
uint32_t ColumnWriter::num_images() const { return impl_->images; }
uint64_t ColumnWriter::num_drawn() const { return impl_->drawn; }

Result<void> ColumnWriter::Impl::ReadIndices(const RecordView& view) {
  const uint32_t crops = view.num_crops();
  classes.clear();
  counts.clear();
  positions.resize(size_t{crops} * k);
  const PackedLayout& packed = view.packed_layout();
  if (spec.packed() && packed.palette_size > 0) {
    const uint8_t* bytes = view.packed_bits().data();
    for (uint32_t i = 0; i < packed.palette_size; ++i) {
      classes.push_back(static_cast<uint32_t>(ReadBits(bytes, packed.palette_at + uint64_t{i} * packed.class_bits, packed.class_bits)));
    }
    counts.assign(size_t{1} << packed.index_bits, 0);  // of whatever an index's bits may say
    const uint32_t size = packed.palette_size;
    const FieldRun fields = {k, packed.index_bits};
    uint32_t* const out = positions.data();
    uint32_t* const count = counts.data();
    for (uint32_t i = 0; i < crops; ++i) {
      bool inside = true;
      fields.Read(bytes, i * packed.crop_bits + packed.indices_at, [&](uint32_t j, uint64_t field) {
        const auto position = static_cast<uint32_t>(field);
        out[size_t{j} * crops + i] = position;
        inside &= position < size;
        ++count[position];
      });
      if (!inside) return Corrupt("crop {}: an index beyond its palette of {} classes", i, size);
    }
    return {};
  }
  place_of_class.resize(spec.num_classes);
  std::vector<uint32_t> indices(k);
  for (uint32_t i = 0; i < crops; ++i) {
    view.CopyIndices(i, indices.data());
    for (uint32_t j = 0; j < k; ++j) {
      if (indices[j] >= spec.num_classes) return Corrupt("crop {}: index {}, expected below {} classes", i, indices[j], spec.num_classes);
      uint32_t& place = place_of_class[indices[j]];
      if (place == 0) {
        classes.push_back(indices[j]);
        counts.push_back(0);
        place = static_cast<uint32_t>(classes.size());
      }
      ++counts[place - 1];
      positions[size_t{j} * crops + i] = place - 1;
    }
  }
  for (const uint32_t class_index : classes) place_of_class[class_index] = 0;
  return {};
}

// The palette of the head: the most frequent first, and of the same frequency the lowest class.
void ColumnWriter::Impl::OrderPalette() {
  // One number each: a count of 16 bits, class and place of 24.
  constexpr uint32_t kMostCounted = 0xffff;
  static_assert(kMaxCropsPerImage <= kMostCounted && kMaxClasses <= 1u << 24);
  words.clear();
  for (uint32_t i = 0; i < classes.size(); ++i) {
    if (counts[i] > 0) words.push_back(uint64_t{kMostCounted - std::min(counts[i], kMostCounted)} << 48 | uint64_t{classes[i]} << 24 | i);
  }
  std::sort(words.begin(), words.end());
  palette_size = static_cast<uint32_t>(words.size());
  ranks.assign(classes.size(), 0);
  for (uint32_t rank = 0; rank < palette_size; ++rank) {
    const auto class_index = static_cast<uint32_t>(words[rank] >> 24 & 0xffffff);
    ranks[words[rank] & 0xffffff] = rank;
    for (size_t byte = 0; byte < 3; ++byte) {
      if (byte == 0 || spec.num_classes > 1u << (8 * byte)) palettes[byte].push_back(static_cast<uint8_t>(class_index >> (8 * byte)));
    }
  }
}

void ColumnWriter::Impl::ReadBoxes(const RecordView& view) {
  const uint32_t crops = view.num_crops();
  boxes.resize(crops);
  flips.resize(crops);
  if (!spec.packed()) {
    for (uint32_t i = 0; i < crops; ++i) {
      boxes[i] = view.pixel_box(i);
      flips[i] = view.flip(i);
    }
    return;
  }
  const PackedLayout& packed = view.packed_layout();
  const uint8_t* bytes = view.packed_bits().data();
  const uint32_t rows = packed.row_bits, columns = packed.column_bits;
  if (const uint32_t all = packed.indices_at; all <= kMaxFieldBits) {
    const PackedLayout layout = packed;  // of its own: what is written below could be anything, for all a compiler knows
    PixelBox* const box = boxes.data();
    uint8_t* const flip = flips.data();
    for (uint32_t i = 0; i < crops; ++i) {
      const uint64_t word = ReadBits(bytes, i * packed.crop_bits, all);
      box[i] = BoxOf(word, layout);
      flip[i] = static_cast<uint8_t>(word >> (all - 1));
    }
    return;
  }
  for (uint32_t i = 0; i < crops; ++i) {
    BitReader reader(bytes, i * packed.crop_bits);
    PixelBox& b = boxes[i];
    b.top = static_cast<uint32_t>(reader.Next(rows));
    b.left = static_cast<uint32_t>(reader.Next(columns));
    b.height = static_cast<uint32_t>(reader.Next(rows)) + 1;
    b.width = static_cast<uint32_t>(reader.Next(columns)) + 1;
    flips[i] = static_cast<uint8_t>(reader.Next(1));
  }
}

bool ColumnWriter::Impl::Drawn(const RecordView& view) {
  if (!rule.sampler) return false;
  const size_t crops = boxes.size();
  sampled.resize(crops);
  constexpr size_t kTry = 16;  // images that were not drawn are seen at once
  for (size_t begin = 0, end = std::min(kTry, crops); begin < crops; begin = end, end = crops) {
    rule.sampler->SampleMany(rule.seed, view.key_hash(), static_cast<uint32_t>(begin), view.width(), view.height(),
                             std::span(sampled).subspan(begin, end - begin));
    for (size_t i = begin; i < end; ++i) {
      if (boxes[i] != sampled[i].box || flips[i] != static_cast<uint8_t>(sampled[i].flip)) return false;
    }
  }
  return true;
}

void ColumnWriter::Impl::PutRanks(const Range& range, uint32_t crops, Columns* out) {
  if (RanksExclude(spec, palette_size)) return PutExcludedRanks(range, crops, out);
  Column& escapes = (*out)[layout.rank_at + layout.ranks];
  for (size_t c = 0; c < layout.ranks; ++c) {
    const size_t last = c + 1 < layout.ranks ? c + 1 : k;
    uint8_t* to = Extend(&(*out)[layout.rank_at + c], range.size() * (last - c));
    for (uint32_t i = range.begin; i < range.end; ++i) {
      for (size_t j = c; j < last; ++j) {
        const uint32_t rank = ranks[positions[j * crops + i]];
        if (rank >= kEscapedRank) std::memcpy(Extend(&escapes, sizeof rank), &rank, sizeof rank);
        *to++ = static_cast<uint8_t>(std::min<uint32_t>(rank, kEscapedRank));
      }
    }
  }
}

// A crop's classes differ: each rank is counted among those that the ones before it left over. Byte by byte, which
// compilers make vectors of.
void ColumnWriter::Impl::PutExcludedRanks(const Range& range, uint32_t crops, Columns* out) {
  const size_t n = range.size();
  uint8_t* column[kMaxSeparate];
  for (size_t c = 0; c < k; ++c) {
    column[c] = Extend(&(*out)[layout.rank_at + c], n);
    const uint32_t* const from = positions.data() + c * crops + range.begin;
    const uint32_t* const rank = ranks.data();
    uint8_t* const to = column[c];
    for (size_t i = 0; i < n; ++i) to[i] = static_cast<uint8_t>(rank[from[i]]);
  }
  smaller.resize(n);
  uint8_t* const __restrict count = smaller.data();
  for (size_t c = k; c-- > 1;) {
    uint8_t* const __restrict rank = column[c];
    std::fill_n(count, n, uint8_t{0});
    for (size_t j = 0; j < c; ++j) {
      const uint8_t* const __restrict before = column[j];
      for (size_t i = 0; i < n; ++i) count[i] += static_cast<uint8_t>(before[i] < rank[i]);
    }
    for (size_t i = 0; i < n; ++i) rank[i] -= count[i];
  }
}

// Packed values: their codes as they are.
void ColumnWriter::Impl::PutCodes(const RecordView& view, const Range& range, Columns* out) {
  const PackedLayout& packed = view.packed_layout();
  const uint8_t* bytes = view.packed_bits().data();
  const size_t crops = range.size();
  if (layout.codes > 0) {
    const uint32_t n = spec.num_values();
    for (uint32_t i = range.begin; i < range.end; ++i) {
      uint64_t bit = i * packed.crop_bits + packed.values_at;
      for (size_t h = 0; h < layout.code_heads; ++h, bit += 8) {
        *Extend(&(*out)[layout.value_at + h], 1) = static_cast<uint8_t>(ReadBits(bytes, bit, 8));
      }
      // Behind them lies the padding; CopyBits writes as much.
      Column& codes = (*out)[layout.value_at + layout.code_heads];
      const size_t size = codes.size();
      codes.resize(size + n + kBitPadding);
      CopyBits(bytes, bit, uint64_t{n} * 8, codes.data() + size);
      codes.resize(size + n);
    }
    return;
  }
  uint8_t* to[1 + kMaxSeparate];
  const size_t columns = layout.tail + layout.ratios;
  const size_t ratios = spec.top_k - 1;
  for (size_t c = 0; c < columns; ++c) {
    const bool shared = c + 1 == columns && layout.ratios > 0;
    to[c] = Extend(&(*out)[layout.value_at + c], crops * (shared ? ratios - layout.ratios + 1 : 1));
  }
  if (const uint64_t all = packed.crop_bits - packed.values_at; all <= kMaxFieldBits && ratios == layout.ratios) {
    // All of a crop from one load, then column after column.
    words.resize(crops);
    uint64_t* const word = words.data();
    for (size_t i = 0; i < crops; ++i) {
      word[i] = ReadBits(bytes, (range.begin + i) * packed.crop_bits + packed.values_at, static_cast<uint32_t>(all));
    }
    for (size_t c = 0, shift = 0; c < columns; ++c) {
      const uint32_t width = c < layout.tail ? kTailBits : kRatioBits;
      const uint64_t mask = (uint64_t{1} << width) - 1;
      uint8_t* const __restrict codes = to[c];
      for (size_t i = 0; i < crops; ++i) codes[i] = static_cast<uint8_t>(word[i] >> shift & mask);
      shift += width;
    }
    return;
  }
  uint8_t** const to_ratios = to + layout.tail;
  for (uint32_t i = range.begin; i < range.end; ++i) {
    BitReader reader(bytes, i * packed.crop_bits + packed.values_at);
    if (layout.tail > 0) *to[0]++ = static_cast<uint8_t>(reader.Next(kTailBits));
    for (size_t j = 0; j < ratios; ++j) *to_ratios[CropLayout::Of(j, layout.ratios)]++ = static_cast<uint8_t>(reader.Next(kRatioBits));
  }
}

void ColumnWriter::Impl::PutValues(const RecordView& view, const Range& range, Columns* out) const {
  const uint32_t n = spec.num_values();
  const auto* bytes = layout.value_bytes == 4 ? reinterpret_cast<const uint8_t*>(view.values_f32().data())
                                              : reinterpret_cast<const uint8_t*>(view.values_16().data());
  for (size_t g = 0; g < layout.value_groups; ++g) {
    const size_t last = g + 1 < layout.value_groups ? g + 1 : n;
    for (size_t byte = 0; byte < layout.value_bytes; ++byte) {
      uint8_t* to = Extend(&(*out)[layout.value_at + g * layout.value_bytes + byte], range.size() * (last - g));
      for (uint32_t i = range.begin; i < range.end; ++i) {
        for (size_t j = g; j < last; ++j) *to++ = bytes[(size_t{i} * n + j) * layout.value_bytes + byte];
      }
    }
  }
}

void ColumnWriter::Impl::PutFractions(const RecordView& view, const Range& range, Columns* out) const {
  const size_t width = layout.box_planes / 4;
  const auto* bytes = width == 4 ? reinterpret_cast<const uint8_t*>(view.boxes_f32().data())
                                 : reinterpret_cast<const uint8_t*>(view.boxes_f16().data());
  for (size_t plane = 0; plane < layout.box_planes; ++plane) {
    uint8_t* to = Extend(&(*out)[layout.box_at + plane], range.size());
    for (uint32_t i = range.begin; i < range.end; ++i) {
      *to++ = spec.packed() ? static_cast<uint8_t>(ReadBits(view.packed_bits().data(), i * view.packed_layout().crop_bits + plane * 8, 8))
                            : bytes[i * layout.box_planes + plane];
    }
  }
}

Result<void> ColumnWriter::Impl::PutOps(const RecordView& view, const Range& range, Columns* out) const {
  for (uint32_t i = range.begin; i < range.end; ++i) {
    FKDB_TRY(view.Ops(i));  // at most kMaxOpsPerCrop, so that their number fits
    const std::span<const uint32_t> words = view.op_words(i);
    for (size_t byte = 0; byte < 2; ++byte) (*out)[layout.op_at + byte].push_back(static_cast<uint8_t>(words.size() >> (8 * byte)));
    for (const uint32_t word : words) {
      for (size_t byte = 0; byte < 4; ++byte) (*out)[layout.op_at + 2 + byte].push_back(static_cast<uint8_t>(word >> (8 * byte)));
    }
  }
  return {};
}

Result<void> ColumnWriter::Impl::PutCrops(const RecordView& view, uint8_t flags) {
  for (size_t l = 0; l < rule.num_layers(); ++l) {
    const Range range = rule.CropsOf(l, view.num_crops());
    if (range.size() == 0) continue;
    Columns* const out = &layers[l];
    if (spec.boxes == BoxEncoding::kPixel && (flags & kDrawnFlag) == 0) {
      for (uint32_t i = range.begin; i < range.end; ++i) {
        if (!PutBox(boxes[i], flips[i] != 0, view.width(), view.height(), (flags & kExpectedFlag) != 0, rule.ratio, &bits[l])) {
          return Corrupt("crop {}: its box is not inside the image of {} x {} pixels", i, view.width(), view.height());
        }
      }
    }
    if (layout.box_planes > 0) {
      for (uint32_t i = range.begin; i < range.end; ++i) bits[l].Put(view.flip(i), 1);
      PutFractions(view, range, out);
    }
    if (k > 0) PutRanks(range, view.num_crops(), out);
    if (layout.tail + layout.ratios + layout.codes > 0) PutCodes(view, range, out);
    if (layout.value_groups > 0) PutValues(view, range, out);
    if (flags & kOpsFlag) FKDB_TRY(PutOps(view, range, out));
  }
  return {};
}

Result<void> ColumnWriter::Add(const RecordView& view) {
  Impl& w = *impl_;
  const uint32_t crops = view.num_crops();
  if (view.width() > kMaxSide || view.height() > kMaxSide) return Corrupt("an image of {} x {} pixels", view.width(), view.height());
  w.classes.clear();
  w.counts.clear();
  if (w.k > 0 && crops > 0) FKDB_TRY(w.ReadIndices(view));
  w.OrderPalette();
  uint8_t flags = 0;
  if (w.spec.boxes == BoxEncoding::kPixel && crops > 0) {
    w.ReadBoxes(view);
    if (w.Drawn(view)) {
      flags |= kDrawnFlag;
      ++w.drawn;
    } else if (std::ranges::all_of(w.boxes, [&](const PixelBox& b) {
                 const WidthRange widths = WidthsOf(b.height, view.width(), true, w.rule.ratio);
                 return widths.low <= b.width && b.width <= widths.high;
               })) {
      flags |= kExpectedFlag;
    }
  }
  for (uint32_t i = 0; i < crops && view.has_ops(); ++i) {
    if (!view.op_words(i).empty()) flags |= kOpsFlag;
  }
  if (crops > 0) FKDB_TRY(w.PutCrops(view, flags));

  const ContentHash hash = view.content_hash();
  w.hashes.insert(w.hashes.end(), hash.begin(), hash.end());
  const std::string_view reason = view.skip_reason();
  w.reasons.insert(w.reasons.end(), reason.begin(), reason.end());
  w.heads.push_back({view.width(), view.height(), static_cast<uint32_t>(view.class_index()), crops, w.palette_size, flags,
                     static_cast<uint32_t>(reason.size())});
  ++w.images;
  return {};
}

void ColumnWriter::Finish(Columns* heads, std::vector<Columns>* layers) {
  Impl& w = *impl_;
  heads->assign(kHeadColumns, {});
  HeadFields::ForEach([&](uint32_t HeadFields::*field, size_t bytes) {
    for (size_t byte = 0; byte < bytes; ++byte) {
      for (const HeadFields& image : w.heads) (*heads)[kHeadFields].push_back(static_cast<uint8_t>(image.*field >> (8 * byte)));
    }
  });
  (*heads)[kHeadHashes] = std::move(w.hashes);
  for (size_t byte = 0; byte < 3; ++byte) (*heads)[kHeadPalette + byte] = std::move(w.palettes[byte]);
  (*heads)[kHeadReasons] = std::move(w.reasons);
  for (size_t l = 0; l < w.layers.size(); ++l) w.layers[l][0] = w.bits[l].Finish();
  *layers = std::move(w.layers);
  w.Clear();
}

}  // namespace fkdb
