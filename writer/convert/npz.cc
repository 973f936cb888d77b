// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/npz.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "format/half.h"
#include "format/text.h"
#include "writer/convert/array.h"
#include "writer/convert/file_source.h"
#include "writer/convert/whole_file.h"
#include "writer/convert/zip_file.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxFileBytes = 64ull << 30;
constexpr uint64_t kMaxInflation = 100;  // of one column against the whole file; deflate could make 1032 of 1
constexpr uint64_t kInflationRoom = 16 << 20;
constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::array<std::string_view, 5> kColumns = {"key", "box", "flip", "indices", "values"};

tl::unexpected<Error> Bad(std::string what) { return Fail(ErrorCode::kCorruption, std::move(what)); }
std::string_view AsText(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// One .npy file: its header, a Python dict of three, and the rest.
struct Npy {
  std::string type;  // "<f4", "<U12", "|S3"
  bool column_major = false;
  std::vector<uint64_t> shape;
  std::span<const std::byte> data;
};

// What stands behind 'name': in the header, up to the next comma outside brackets.
Result<std::string_view> FieldOf(std::string_view header, std::string_view name) {
  const size_t at = header.find(fmt::format("'{}':", name));
  if (at == std::string_view::npos) return Bad(fmt::format("its header has no '{}'", name));
  std::string_view rest = header.substr(at + name.size() + 3);
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  const size_t end = rest.starts_with('(') ? rest.find(')') : rest.find_first_of(",}");
  if (end == std::string_view::npos) return Bad(fmt::format("its header's '{}' does not end", name));
  return rest.substr(0, end);
}

Result<Npy> ParseNpy(std::span<const std::byte> bytes) {
  const std::string_view text = AsText(bytes);
  if (text.size() < 12 || !text.starts_with(kMagic)) return Bad("no .npy file");
  const bool long_header = text[6] >= 2;
  uint32_t length = 0;
  std::memcpy(&length, text.data() + 8, long_header ? 4 : 2);
  const size_t begin = long_header ? 12 : 10;
  if (length > text.size() - begin) return Bad("its header is cut off");
  const std::string_view header = text.substr(begin, length);
  Npy npy;
  npy.data = bytes.subspan(begin + length);
  FKDB_ASSIGN(std::string_view type, FieldOf(header, "descr"));
  if (type.size() < 4 || type.front() != '\'' || type.back() != '\'') return Bad("its type is not one of numbers or text");
  npy.type = type.substr(1, type.size() - 2);
  FKDB_ASSIGN(const std::string_view order, FieldOf(header, "fortran_order"));
  npy.column_major = order == "True";
  FKDB_ASSIGN(std::string_view shape, FieldOf(header, "shape"));
  if (shape.find_first_not_of("(0123456789, L") != std::string_view::npos) return Bad("its shape is none");
  while (!shape.empty()) {
    const size_t digit = shape.find_first_of("0123456789");
    if (digit == std::string_view::npos) break;
    shape.remove_prefix(digit);
    uint64_t n = 0;
    const auto [end, ec] = std::from_chars(shape.data(), shape.data() + shape.size(), n);
    if (ec != std::errc()) return Bad("its shape is none");
    npy.shape.push_back(n);
    shape.remove_prefix(static_cast<size_t>(end - shape.data()));
  }
  return npy;
}

Result<Array> ToArray(const Npy& npy) {
  if (npy.type.front() == '>') return Fail(ErrorCode::kUnsupported, "numbers in big-endian order: save them in little-endian");
  FKDB_ASSIGN(const DType dtype, ParseDType(std::string_view(npy.type).substr(1)));
  return Array::Dense(dtype, npy.shape, npy.column_major, npy.data);
}

void AppendUtf8(uint32_t c, std::string* text) {
  if (c < 0x80) {
    *text += static_cast<char>(c);
  } else if (c < 0x800) {
    *text += {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
  } else if (c < 0x10000) {
    *text += {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3f)), static_cast<char>(0x80 | (c & 0x3f))};
  } else {
    *text += {static_cast<char>(0xf0 | (c >> 18 & 7)), static_cast<char>(0x80 | (c >> 12 & 0x3f)), static_cast<char>(0x80 | (c >> 6 & 0x3f)),
              static_cast<char>(0x80 | (c & 0x3f))};
  }
}

// 'U': 4 bytes a character, 'S': bytes; both filled up with zeros.
Result<std::vector<std::string>> ToTexts(const Npy& npy) {
  uint64_t width = 0;
  const bool wide = npy.type.size() > 2 && npy.type[1] == 'U';
  if (npy.type.size() > 2 && (wide || npy.type[1] == 'S')) std::from_chars(npy.type.data() + 2, npy.type.data() + npy.type.size(), width);
  if (npy.type.starts_with("|O")) return Fail(ErrorCode::kUnsupported, "its keys are Python objects: save them as text, numpy.array(keys, dtype=str)");
  if (width == 0 || width > (1 << 20) || npy.type[0] == '>' || npy.shape.size() != 1) return Bad(fmt::format("its keys are '{}' of {} dimensions: expected text, one a row", Printable(npy.type), npy.shape.size()));
  const uint64_t bytes = width * (wide ? 4 : 1);
  if (npy.shape[0] > npy.data.size() / bytes || npy.shape[0] * bytes != npy.data.size()) return Bad(fmt::format("{} keys of {} bytes in {} bytes", npy.shape[0], bytes, npy.data.size()));
  std::vector<std::string> texts(npy.shape[0]);
  for (uint64_t i = 0; i < texts.size(); ++i) {
    const std::byte* at = npy.data.data() + i * bytes;
    for (uint64_t c = 0; c < width; ++c) {
      uint32_t code = 0;
      std::memcpy(&code, at + c * (wide ? 4 : 1), wide ? 4 : 1);
      if (wide) {
        AppendUtf8(code, &texts[i]);
      } else {
        texts[i] += static_cast<char>(code);
      }
    }
    texts[i].resize(texts[i].find_last_not_of('\0') + 1);
  }
  return texts;
}

class NpzFile : public TableFile {
 public:
  static Result<std::unique_ptr<TableFile>> Open(std::vector<std::byte> bytes) {
    auto file = std::make_unique<NpzFile>();
    file->bytes_ = std::move(bytes);
    FKDB_ASSIGN(const ZipFile zip, ZipFile::Open(file->bytes_));
    for (const std::string& name : zip.names()) {
      const std::string column = name.substr(0, name.rfind(".npy"));
      (std::find(kColumns.begin(), kColumns.end(), column) == kColumns.end() ? file->others_ : file->columns_).push_back(column);
    }
    return std::unique_ptr<TableFile>(std::move(file));
  }

  size_t num_groups() const override { return 1; }
  std::vector<std::string> other_columns() const override { return others_; }

  Result<std::vector<std::string>> ReadKeys(size_t) const override {
    return ReadColumn("key", [](const Npy& npy) { return ToTexts(npy); });
  }

  Result<TableRows> Read(size_t group) const override {
    TableRows rows;
    FKDB_ASSIGN(rows.keys, ReadKeys(group));
    const uint64_t size = rows.keys.size();
    const auto is_table = [size](const Array& a) { return a.shape().size() == 2 && a.shape()[0] == size && a.shape()[1] > 0 && a.shape()[1] <= UINT32_MAX; };
    const auto wrong = [size](const Array& a, std::string_view expected) { return Bad(fmt::format("{} {}, expected {} of {} rows", Name(a.dtype()), a.Shape(), expected, size)); };
    const auto box = [&](const Npy& npy) -> Result<bool> {
      FKDB_ASSIGN(const Array a, ToArray(npy));
      if (!a.Is({size, 4})) return wrong(a, "4 numbers a row");
      rows.pixel_boxes = !IsFloat(a.dtype());
      rows.half_boxes = a.dtype() == DType::kF16;
      if (!rows.pixel_boxes) {
        rows.fractions = a.Floats();
        return true;
      }
      FKDB_ASSIGN(const auto numbers, a.Integers());
      FKDB_TRY(Narrow(numbers, &rows.pixels));
      return true;
    };
    const auto flip = [&](const Npy& npy) -> Result<bool> {
      FKDB_ASSIGN(const Array a, ToArray(npy));
      if (!a.Is({size})) return wrong(a, "a bool a row");
      for (const float f : a.Floats()) {
        if (f != 0 && f != 1) return Bad(fmt::format("{}: expected 0 or 1", f));
        rows.flips.push_back(f == 1);
      }
      return true;
    };
    const auto indices = [&](const Npy& npy) -> Result<bool> {
      FKDB_ASSIGN(const Array a, ToArray(npy));
      const bool one = a.Is({size});
      if (!one && !is_table(a)) return wrong(a, "K classes a row");
      rows.num_indices = one ? 1 : static_cast<uint32_t>(a.shape()[1]);
      FKDB_ASSIGN(const auto classes, ClassesOf(a));
      rows.indices.assign(classes.begin(), classes.end());
      return true;
    };
    const auto values = [&](const Npy& npy) -> Result<bool> {
      FKDB_ASSIGN(const Array a, ToArray(npy));
      const bool one = a.Is({size});
      if ((!one && !is_table(a)) || !IsFloat(a.dtype())) return wrong(a, "K or C floats a row");
      rows.num_values = one ? 1 : static_cast<uint32_t>(a.shape()[1]);
      rows.half_values = a.dtype() == DType::kF16;
      rows.values = a.Floats();
      return true;
    };
    FKDB_TRY(ReadColumn("box", box));
    FKDB_TRY(ReadColumn("flip", flip));
    if (Has("indices")) FKDB_TRY(ReadColumn("indices", indices));
    if (Has("values")) FKDB_TRY(ReadColumn("values", values));
    return rows;
  }

 private:
  bool Has(std::string_view column) const { return std::find(columns_.begin(), columns_.end(), column) != columns_.end(); }

  static Result<void> Narrow(std::span<const int64_t> numbers, std::vector<int32_t>* out) {
    out->reserve(numbers.size());
    for (const int64_t n : numbers) {
      if (n < 0 || n > INT32_MAX) return Bad(fmt::format("{}: expected 0 to {}", n, INT32_MAX));
      out->push_back(static_cast<int32_t>(n));
    }
    return {};
  }

  // use(column), whose bytes live as long as the call.
  template <class Use>
  auto ReadColumn(std::string_view name, const Use& use) const -> decltype(use(Npy())) {
    if (!Has(name)) return Bad(fmt::format("no array '{}' in it", name));
    const auto in = [&](const Error& error) { return Fail(error.code, fmt::format("array '{}': {}", name, error.message)); };
    const auto zip = ZipFile::Open(bytes_);
    if (!zip) return in(zip.error());
    const auto member = zip->Read(std::string(name) + ".npy", std::min(kMaxFileBytes, bytes_.size() * kMaxInflation + kInflationRoom));
    if (!member) return in(member.error());
    const auto npy = ParseNpy(*member);
    if (!npy) return in(npy.error());
    auto used = use(*npy);
    if (!used) return in(used.error());
    return used;
  }

  std::vector<std::byte> bytes_;
  std::vector<std::string> columns_, others_;
};

template <class T>
void AppendTo(std::vector<T>* all, const std::vector<T>& more) {
  all->insert(all->end(), more.begin(), more.end());
}

class NpzWriter : public TableWriter {
 public:
  NpzWriter(fs::path path, uint64_t memory_bytes) : path_(std::move(path)), memory_bytes_(memory_bytes) {}

  Result<void> Append(TableRows rows) override {
    for (const std::string& key : rows.keys) key_bytes_ = std::max(key_bytes_, key.size());
    if (all_.size() == 0) {
      all_ = std::move(rows);
    } else {
      AppendTo(&all_.keys, rows.keys);
      AppendTo(&all_.pixels, rows.pixels);
      AppendTo(&all_.fractions, rows.fractions);
      AppendTo(&all_.flips, rows.flips);
      AppendTo(&all_.indices, rows.indices);
      AppendTo(&all_.values, rows.values);
    }
    const uint64_t bytes = all_.size() * (sizeof(std::string) + 2 * key_bytes_ + 17 + 8 * uint64_t{all_.num_indices} + 8 * uint64_t{all_.num_values});
    if (bytes <= memory_bytes_) return {};
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("{}: an .npz is made in memory, and this one needs more than {:.1f} GiB (--memory): write parquet, or take a part (fkdb-subset)", path_.string(),
                            static_cast<double>(memory_bytes_) / 0x1p30));
  }

  Result<void> Finish() override {
    const uint64_t rows = all_.size();
    const bool utf8 = std::all_of(all_.keys.begin(), all_.keys.end(), IsUtf8);
    AddKeys(utf8);
    if (all_.pixel_boxes) {
      Add("box", "<i4", {rows, 4}, std::as_bytes(std::span(all_.pixels)));
    } else {
      AddFloats("box", all_.half_boxes, {rows, 4}, all_.fractions);
    }
    Add("flip", "|b1", {rows}, std::as_bytes(std::span(all_.flips)));
    if (all_.num_indices > 0) Add("indices", "<i4", {rows, all_.num_indices}, std::as_bytes(std::span(all_.indices)));
    if (all_.num_values > 0) AddFloats("values", all_.half_values, {rows, all_.num_values}, all_.values);
    std::vector<ZipMember> members;
    for (const auto& [name, bytes] : members_) members.push_back({name + ".npy", std::as_bytes(std::span(bytes))});
    FKDB_ASSIGN(const std::vector<std::byte> zip, MakeZip(members));
    return PublishFile(path_, zip);
  }

 private:
  void Add(const std::string& name, const std::string& type, const std::vector<uint64_t>& shape, std::span<const std::byte> data) {
    std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", type, fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
    constexpr size_t kBefore = 10, kAlignment = 64;
    header.append(kAlignment - 1 - (kBefore + header.size()) % kAlignment, ' ');
    header += '\n';
    const auto length = static_cast<uint16_t>(header.size());
    std::string npy(kMagic);
    npy += {'\x01', '\0', static_cast<char>(length & 0xff), static_cast<char>(length >> 8)};
    npy += header;
    npy += AsText(data);
    members_.emplace_back(name, std::move(npy));
  }

  void AddFloats(const std::string& name, bool half, const std::vector<uint64_t>& shape, const std::vector<float>& values) {
    if (!half) return Add(name, "<f4", shape, std::as_bytes(std::span(values)));
    std::vector<uint16_t> halves;
    for (const float v : values) halves.push_back(HalfFromFloat(v));
    Add(name, "<f2", shape, std::as_bytes(std::span(halves)));
  }

  // Text where it is text, bytes where it is not.
  void AddKeys(bool utf8) {
    std::string bytes;
    if (!utf8) {
      for (const std::string& key : all_.keys) bytes += key + std::string(key_bytes_ - key.size(), '\0');
      return Add("key", fmt::format("|S{}", std::max<size_t>(1, key_bytes_)), {all_.size()}, std::as_bytes(std::span(bytes)));
    }
    std::vector<std::u32string> texts;
    size_t width = 1;
    for (const std::string& key : all_.keys) {
      std::u32string text;
      for (size_t i = 0; i < key.size();) {
        const auto c = static_cast<uint8_t>(key[i]);
        const int more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        char32_t code = more == 0 ? c : c & (0x3fu >> more);
        for (int m = 1; m <= more; ++m) code = code << 6 | (static_cast<uint8_t>(key[i + static_cast<size_t>(m)]) & 0x3fu);
        text += code;
        i += 1 + static_cast<size_t>(more);
      }
      width = std::max(width, text.size());
      texts.push_back(std::move(text));
    }
    for (std::u32string& text : texts) {
      text.resize(width);
      bytes += AsText(std::as_bytes(std::span(text)));
    }
    Add("key", fmt::format("<U{}", width), {all_.size()}, std::as_bytes(std::span(bytes)));
  }

  const fs::path path_;
  const uint64_t memory_bytes_;
  TableRows all_;
  size_t key_bytes_ = 0;
  std::vector<std::pair<std::string, std::string>> members_;
};

}  // namespace

Result<std::unique_ptr<TableFile>> OpenNpz(const fs::path& path) {
  std::vector<std::byte> bytes;
  FKDB_TRY(ReadWholeFile(path, kMaxFileBytes, &bytes));
  return ParseNpz(std::move(bytes));
}

Result<std::unique_ptr<TableFile>> ParseNpz(std::vector<std::byte> bytes) { return NpzFile::Open(std::move(bytes)); }

std::unique_ptr<TableWriter> MakeNpzWriter(const fs::path& path, uint64_t memory_bytes) { return std::make_unique<NpzWriter>(path, memory_bytes); }

}  // namespace fkdb
