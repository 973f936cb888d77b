// SPDX-License-Identifier: Apache-2.0
#include "tools/parquet_table.h"

#include <arrow/api.h>
#include <arrow/compute/api.h>
#include <arrow/io/file.h>
#include <arrow/util/float16.h>
#include <fmt/format.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/writer.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <set>
#include <unistd.h>

#include "format/half.h"
#include "format/text.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using arrow::Type;

constexpr std::array<std::string_view, 5> kColumns = {"key", "box", "flip", "indices", "values"};

tl::unexpected<Error> Bad(std::string what) { return Fail(ErrorCode::kCorruption, std::move(what)); }

template <class T>
Result<T> FromArrow(arrow::Result<T> result) {
  if (result.ok()) return std::move(result).ValueUnsafe();
  const arrow::Status& status = result.status();
  return Fail(status.IsIOError() ? ErrorCode::kIoError : status.IsOutOfMemory() ? ErrorCode::kResourceExhausted : ErrorCode::kCorruption, status.message());
}
Result<void> FromArrow(const arrow::Status& status) {
  if (status.ok()) return {};
  return Fail(status.IsIOError() ? ErrorCode::kIoError : status.IsOutOfMemory() ? ErrorCode::kResourceExhausted : ErrorCode::kCorruption, status.message());
}

// The numbers of a column, which is a number or a list of so many in each row.
struct Numbers {
  uint32_t a_row = 1;
  std::shared_ptr<arrow::Array> flat;
};

Result<Numbers> Flatten(std::string_view name, const std::shared_ptr<arrow::ChunkedArray>& column) {
  FKDB_ASSIGN(const auto whole, FromArrow(arrow::Concatenate(column->chunks())));
  if (whole->null_count() > 0) return Bad(fmt::format("column '{}': {} rows have none", name, whole->null_count()));
  Numbers numbers;
  const auto take_lists = [&](const auto& lists) -> Result<void> {
    const int64_t rows = lists.length();
    const int64_t size = rows > 0 ? lists.value_length(0) : 0;
    for (int64_t i = 0; i < rows; ++i) {
      if (lists.value_length(i) != size) return Bad(fmt::format("column '{}': {} numbers in row {}, {} in the first", name, lists.value_length(i), i, size));
    }
    numbers.a_row = static_cast<uint32_t>(size);
    FKDB_ASSIGN(numbers.flat, FromArrow(lists.Flatten()));
    return {};
  };
  switch (whole->type_id()) {
    case Type::LIST:
      FKDB_TRY(take_lists(static_cast<const arrow::ListArray&>(*whole)));
      break;
    case Type::LARGE_LIST:
      FKDB_TRY(take_lists(static_cast<const arrow::LargeListArray&>(*whole)));
      break;
    case Type::FIXED_SIZE_LIST:
      FKDB_TRY(take_lists(static_cast<const arrow::FixedSizeListArray&>(*whole)));
      break;
    default:
      numbers.flat = whole;
  }
  if (numbers.flat->null_count() > 0) return Bad(fmt::format("column '{}': {} numbers are missing", name, numbers.flat->null_count()));
  return numbers;
}

bool IsFloats(const Numbers& numbers) { return arrow::is_floating(numbers.flat->type_id()); }
bool IsHalf(const Numbers& numbers) { return numbers.flat->type_id() == Type::HALF_FLOAT; }

Result<std::shared_ptr<arrow::Array>> Cast(std::string_view name, const Numbers& numbers, const std::shared_ptr<arrow::DataType>& type) {
  if (numbers.flat->type()->Equals(type)) return numbers.flat;
  auto cast = FromArrow(arrow::compute::Cast(*numbers.flat, type));
  if (!cast) return Bad(fmt::format("column '{}': {}", name, cast.error().message));
  return cast;
}

Result<void> ToFloats(std::string_view name, const Numbers& numbers, std::vector<float>* out) {
  if (IsHalf(numbers)) {
    const auto& halves = static_cast<const arrow::HalfFloatArray&>(*numbers.flat);
    for (int64_t i = 0; i < halves.length(); ++i) out->push_back(FloatFromHalf(halves.raw_values()[i]));
    return {};
  }
  FKDB_ASSIGN(const auto cast, Cast(name, numbers, arrow::float32()));
  const auto& floats = static_cast<const arrow::FloatArray&>(*cast);
  out->assign(floats.raw_values(), floats.raw_values() + floats.length());
  return {};
}

Result<void> ToIntegers(std::string_view name, const Numbers& numbers, std::vector<int32_t>* out) {
  FKDB_ASSIGN(const auto cast, Cast(name, numbers, arrow::int32()));
  const auto& integers = static_cast<const arrow::Int32Array&>(*cast);
  out->assign(integers.raw_values(), integers.raw_values() + integers.length());
  return {};
}

class ParquetFile : public TableFile {
 public:
  explicit ParquetFile(fs::path path) : path_(std::move(path)) {}

  Result<void> Open() {
    FKDB_ASSIGN(const auto reader, Reader());
    groups_ = static_cast<size_t>(reader->num_row_groups());
    const auto* schema = reader->parquet_reader()->metadata()->schema();
    const auto* group = schema->group_node();
    std::set<std::string> names;
    for (int i = 0; i < group->field_count(); ++i) {
      const std::string name = group->field(i)->name();
      if (!names.insert(name).second) return Bad(fmt::format("two columns '{}'", Printable(name)));
    }
    for (int i = 0; i < schema->num_columns(); ++i) {
      const std::string name = schema->GetColumnRoot(i)->name();
      const bool known = std::find(kColumns.begin(), kColumns.end(), name) != kColumns.end();
      (known ? columns_ : others_).emplace_back(name, i);
    }
    return {};
  }

  size_t num_groups() const override { return groups_; }
  std::vector<std::string> other_columns() const override {
    std::vector<std::string> names;
    for (const auto& [name, leaf] : others_) names.push_back(name);
    return names;
  }

  Result<std::vector<std::string>> ReadKeys(size_t group) const override {
    FKDB_ASSIGN(const auto table, ReadTable(group, "key"));
    return KeysOf(*table);
  }

  Result<TableRows> Read(size_t group) const override {
    FKDB_ASSIGN(const auto table, ReadTable(group, {}));
    TableRows rows;
    FKDB_ASSIGN(rows.keys, KeysOf(*table));
    FKDB_ASSIGN(const Numbers box, ColumnOf(*table, "box"));
    if (box.a_row != 4) return Bad(fmt::format("column 'box': {} numbers a row, expected 4", box.a_row));
    rows.pixel_boxes = !IsFloats(box);
    rows.half_boxes = IsHalf(box);
    FKDB_TRY(rows.pixel_boxes ? ToIntegers("box", box, &rows.pixels) : ToFloats("box", box, &rows.fractions));
    FKDB_ASSIGN(const Numbers flip, ColumnOf(*table, "flip"));
    if (flip.a_row != 1 || !(arrow::is_integer(flip.flat->type_id()) || flip.flat->type_id() == Type::BOOL)) return Bad("column 'flip': expected one bool a row");
    FKDB_ASSIGN(const auto flips, Cast("flip", flip, arrow::boolean()));
    for (int64_t i = 0; i < flips->length(); ++i) rows.flips.push_back(static_cast<const arrow::BooleanArray&>(*flips).Value(i));
    if (table->GetColumnByName("indices")) {
      FKDB_ASSIGN(const Numbers indices, ColumnOf(*table, "indices"));
      if (IsFloats(indices)) return Bad("column 'indices': expected integers");
      rows.num_indices = indices.a_row;
      FKDB_TRY(ToIntegers("indices", indices, &rows.indices));
    }
    if (table->GetColumnByName("values")) {
      FKDB_ASSIGN(const Numbers values, ColumnOf(*table, "values"));
      rows.num_values = values.a_row;
      rows.half_values = IsHalf(values);
      if (!IsFloats(values)) return Bad("column 'values': expected floats");
      FKDB_TRY(ToFloats("values", values, &rows.values));
    }
    const size_t n = rows.size();
    const size_t boxes = rows.pixel_boxes ? rows.pixels.size() : rows.fractions.size();
    if (rows.flips.size() != n || boxes != 4 * n || rows.indices.size() != n * rows.num_indices || rows.values.size() != n * rows.num_values) {
      return Bad("columns of different lengths");
    }
    return rows;
  }

 private:
  Result<std::unique_ptr<parquet::arrow::FileReader>> Reader() const {
    FKDB_ASSIGN(std::shared_ptr<arrow::io::RandomAccessFile> file, FromArrow(arrow::io::ReadableFile::Open(path_.string())));
    return FromArrow(parquet::arrow::OpenFile(std::move(file), arrow::default_memory_pool()));
  }

  // One column of a row group, or all that are ours.
  Result<std::shared_ptr<arrow::Table>> ReadTable(size_t group, std::string_view only) const {
    FKDB_ASSIGN(const auto reader, Reader());
    std::vector<int> leaves;
    for (const auto& [name, leaf] : columns_) {
      if (only.empty() || name == only) leaves.push_back(leaf);
    }
    return FromArrow(reader->ReadRowGroup(static_cast<int>(group), leaves));
  }

  static Result<Numbers> ColumnOf(const arrow::Table& table, const std::string& name) {
    const auto column = table.GetColumnByName(name);
    if (!column) return Bad(fmt::format("no column '{}' in it", name));
    return Flatten(name, column);
  }

  static Result<std::vector<std::string>> KeysOf(const arrow::Table& table) {
    const auto column = table.GetColumnByName("key");
    if (!column) return Bad("no column 'key' in it");
    FKDB_ASSIGN(auto array, FromArrow(arrow::Concatenate(column->chunks())));
    if (array->null_count() > 0) return Bad(fmt::format("column 'key': {} rows have none", array->null_count()));
    auto cast = FromArrow(arrow::compute::Cast(*array, arrow::large_binary()));
    if (!cast) return Bad(fmt::format("column 'key': {}, expected text", Printable(array->type()->ToString())));
    const auto& texts = static_cast<const arrow::LargeBinaryArray&>(**cast);
    std::vector<std::string> keys;
    for (int64_t i = 0; i < texts.length(); ++i) keys.emplace_back(texts.GetView(i));
    return keys;
  }

  const fs::path path_;
  size_t groups_ = 0;
  std::vector<std::pair<std::string, int>> columns_, others_;  // name, number among the file's leaves
};

class ParquetWriter : public TableWriter {
 public:
  ParquetWriter(fs::path path, bool text) : text_(text), path_(std::move(path)), partial_(path_.string() + fmt::format(".{}.partial", ::getpid())) {}
  ~ParquetWriter() override {
    if (!published_) std::remove(partial_.c_str());
  }

  Result<void> Open() {
    FKDB_ASSIGN(file_, FromArrow(arrow::io::FileOutputStream::Open(partial_.string())));
    return {};
  }

  Result<void> Append(TableRows rows) override {
    if (!writer_) {
      FKDB_TRY(Begin(rows));
    }
    std::vector<std::shared_ptr<arrow::Array>> columns;
    const auto add = [&](arrow::Result<std::shared_ptr<arrow::Array>> array) -> Result<void> {
      FKDB_ASSIGN(auto made, FromArrow(std::move(array)));
      columns.push_back(std::move(made));
      return {};
    };
    FKDB_TRY(add(KeyArray(rows)));
    FKDB_TRY(add(rows.pixel_boxes ? Lists<arrow::Int32Builder>(rows.pixels, 4) : FloatLists(rows.fractions, 4, rows.half_boxes)));
    arrow::BooleanBuilder flips;
    FKDB_TRY(FromArrow(flips.AppendValues(rows.flips)));
    FKDB_TRY(add(flips.Finish()));
    if (rows.num_indices > 0) FKDB_TRY(add(Lists<arrow::Int32Builder>(rows.indices, rows.num_indices)));
    if (rows.num_values > 0) FKDB_TRY(add(FloatLists(rows.values, rows.num_values, rows.half_values)));
    const auto table = arrow::Table::Make(schema_, columns, static_cast<int64_t>(rows.size()));
    return FromArrow(writer_->WriteTable(*table, static_cast<int64_t>(std::max<size_t>(1, rows.size()))));
  }

  Result<void> Finish() override {
    FKDB_TRY(FromArrow(writer_->Close()));
    FKDB_TRY(FromArrow(file_->Close()));
    std::error_code ec;
    fs::rename(partial_, path_, ec);
    if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot write it: {}", path_.string(), ec.message()));
    published_ = true;
    return {};
  }

 private:
  Result<void> Begin(const TableRows& rows) {
    const auto floats = [](bool half) { return half ? arrow::float16() : arrow::float32(); };
    arrow::FieldVector fields = {arrow::field("key", text_ ? arrow::utf8() : arrow::binary(), false),
                                 arrow::field("box", arrow::fixed_size_list(Item(rows.pixel_boxes ? arrow::int32() : floats(rows.half_boxes)), 4), false),
                                 arrow::field("flip", arrow::boolean(), false)};
    if (rows.num_indices > 0) fields.push_back(arrow::field("indices", arrow::fixed_size_list(Item(arrow::int32()), static_cast<int32_t>(rows.num_indices)), false));
    if (rows.num_values > 0) fields.push_back(arrow::field("values", arrow::fixed_size_list(Item(floats(rows.half_values)), static_cast<int32_t>(rows.num_values)), false));
    schema_ = arrow::schema(std::move(fields));
    const auto properties = parquet::WriterProperties::Builder().compression(parquet::Compression::ZSTD)->build();
    const auto keep_types = parquet::ArrowWriterProperties::Builder().store_schema()->build();
    FKDB_ASSIGN(writer_, FromArrow(parquet::arrow::FileWriter::Open(*schema_, arrow::default_memory_pool(), file_, properties, keep_types)));
    return {};
  }

  static std::shared_ptr<arrow::Field> Item(std::shared_ptr<arrow::DataType> type) { return arrow::field("element", std::move(type), false); }

  arrow::Result<std::shared_ptr<arrow::Array>> KeyArray(const TableRows& rows) const {
    if (text_) {
      arrow::StringBuilder keys;
      ARROW_RETURN_NOT_OK(keys.AppendValues(rows.keys));
      return keys.Finish();
    }
    arrow::BinaryBuilder keys;
    for (const std::string& key : rows.keys) ARROW_RETURN_NOT_OK(keys.Append(key));
    return keys.Finish();
  }

  template <class Builder, class T>
  static arrow::Result<std::shared_ptr<arrow::Array>> Lists(const std::vector<T>& numbers, uint32_t a_row) {
    Builder builder;
    ARROW_RETURN_NOT_OK(builder.AppendValues(numbers.data(), static_cast<int64_t>(numbers.size())));
    ARROW_ASSIGN_OR_RAISE(auto flat, builder.Finish());
    return arrow::FixedSizeListArray::FromArrays(flat, arrow::fixed_size_list(Item(flat->type()), static_cast<int32_t>(a_row)));
  }

  static arrow::Result<std::shared_ptr<arrow::Array>> FloatLists(const std::vector<float>& numbers, uint32_t a_row, bool half) {
    if (!half) return Lists<arrow::FloatBuilder>(numbers, a_row);
    std::vector<uint16_t> halves;
    for (const float n : numbers) halves.push_back(HalfFromFloat(n));
    return Lists<arrow::HalfFloatBuilder>(halves, a_row);
  }

  const bool text_;  // keys that are not UTF-8 are no Parquet strings
  const fs::path path_, partial_;
  bool published_ = false;
  std::shared_ptr<arrow::Schema> schema_;
  std::shared_ptr<arrow::io::FileOutputStream> file_;
  std::unique_ptr<parquet::arrow::FileWriter> writer_;
};

}  // namespace

Result<std::unique_ptr<TableFile>> OpenParquet(const fs::path& path) {
  auto file = std::make_unique<ParquetFile>(path);
  FKDB_TRY(file->Open());
  return std::unique_ptr<TableFile>(std::move(file));
}

Result<std::unique_ptr<TableWriter>> MakeParquetWriter(const fs::path& path, bool text_keys) {
  auto writer = std::make_unique<ParquetWriter>(path, text_keys);
  FKDB_TRY(writer->Open());
  return std::unique_ptr<TableWriter>(std::move(writer));
}

}  // namespace fkdb
