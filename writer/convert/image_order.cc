// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/image_order.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "format/text.h"
#include "writer/convert/torch_file.h"
#include "writer/convert/whole_file.h"

namespace fkdb {
namespace {

constexpr uint64_t kMaxOrderBytes = 8ull << 30;

Result<std::vector<uint32_t>> ToIds(std::span<const int64_t> numbers, uint64_t images) {
  std::vector<uint32_t> ids;
  for (const int64_t n : numbers) {
    if (n < 0 || static_cast<uint64_t>(n) >= images) return Fail(ErrorCode::kMismatch, fmt::format("image {} of {}: they must be the images that were labelled, all of them", n, images));
    ids.push_back(static_cast<uint32_t>(n));
  }
  return ids;
}

Result<ImageOrder> ParseJsonOrder(std::span<const std::byte> bytes, uint64_t images) {
  const auto* const text = reinterpret_cast<const char*>(bytes.data());
  const auto json = nlohmann::json::parse(text, text + bytes.size(), nullptr, /*allow_exceptions=*/false);
  const auto bad = [](std::string_view what) { return Fail(ErrorCode::kCorruption, fmt::format("{}: expected an object of lists of image numbers", what)); };
  if (json.is_discarded() || !json.is_object()) return bad("no JSON object");
  ImageOrder order;
  for (const auto& [name, list] : json.items()) {
    const auto number = ParseNumber(name);
    if (!number || !list.is_array()) return bad(fmt::format("'{}'", Printable(name)));
    std::vector<int64_t> numbers;
    for (const auto& id : list) {
      if (!id.is_number_integer()) return bad(fmt::format("'{}'", Printable(name)));
      numbers.push_back(id.get<int64_t>());
    }
    FKDB_ASSIGN(order[*number], ToIds(numbers, images));
  }
  return order;
}

// A list, an array, or a list of such.
Result<void> AppendNumbers(const PickleValue& value, int depth, uint64_t most, std::vector<int64_t>* numbers) {
  if (numbers->size() > most) return Fail(ErrorCode::kMismatch, fmt::format("more than {} images in one epoch or batch", most));
  if (value.type() == PickleValue::Type::kInt) {
    numbers->push_back(value.integer());
  } else if (value.type() == PickleValue::Type::kArray) {
    FKDB_ASSIGN(const std::vector<int64_t> more, value.array().Integers());
    numbers->insert(numbers->end(), more.begin(), more.end());
  } else if (value.is_sequence() && depth > 0) {
    for (const PickleValue* item : value.items()) FKDB_TRY(AppendNumbers(*item, depth - 1, most, numbers));
  } else {
    return Fail(ErrorCode::kCorruption, fmt::format("{} where image numbers belong", value.What()));
  }
  return {};
}

Result<ImageOrder> ParseTorchOrder(const PickleValue& root, uint64_t images) {
  ImageOrder order;
  const auto add = [&](uint64_t epoch, const PickleValue& value) -> Result<void> {
    std::vector<int64_t> numbers;
    FKDB_TRY(AppendNumbers(value, 2, images, &numbers));
    FKDB_ASSIGN(order[epoch], ToIds(numbers, images));
    return {};
  };
  if (root.type() == PickleValue::Type::kArray && root.array().shape().size() == 2) {
    const Array& table = root.array();
    if (table.size() == 0) return Fail(ErrorCode::kCorruption, fmt::format("{}: no image numbers", root.What()));
    for (uint64_t e = 0; e < table.shape()[0]; ++e) {
      FKDB_ASSIGN(const std::vector<int64_t> row, table.Rows(e, 1).Integers());
      FKDB_ASSIGN(order[e], ToIds(row, images));
    }
    return order;
  }
  if (root.is_sequence()) {
    for (const PickleValue* epoch : root.items()) FKDB_TRY(add(order.size(), *epoch));
    return order;
  }
  if (root.type() != PickleValue::Type::kDict) return Fail(ErrorCode::kCorruption, fmt::format("{}, expected a dict of lists of image numbers", root.What()));
  const auto items = root.items();
  for (size_t i = 0; i < items.size(); i += 2) {
    const auto epoch = items[i]->type() == PickleValue::Type::kText  ? ParseNumber(items[i]->text())
                       : items[i]->type() == PickleValue::Type::kInt ? std::optional(static_cast<uint64_t>(items[i]->integer()))
                                                                     : std::nullopt;
    if (!epoch) return Fail(ErrorCode::kCorruption, fmt::format("{} where the number of an epoch belongs", items[i]->What()));
    FKDB_TRY(add(*epoch, *items[i + 1]));
  }
  return order;
}

}  // namespace

std::optional<uint64_t> ParseNumber(std::string_view text) {
  uint64_t number = 0;
  if (text.size() > 1 && text[0] == '0') return std::nullopt;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Result<ImageOrder> ReadImageOrder(const std::filesystem::path& path, uint64_t images) {
  const auto in = [&](const Error& error) { return Fail(error.code, fmt::format("{}: {}", path.string(), error.message)); };
  std::vector<std::byte> bytes;
  if (const auto read = ReadWholeFile(path, kMaxOrderBytes, &bytes); !read) return in(read.error());
  Result<ImageOrder> order;
  if (!bytes.empty() && (bytes[0] == std::byte{'{'} || bytes[0] == std::byte{' '} || bytes[0] == std::byte{'\n'})) {
    order = ParseJsonOrder(bytes, images);
  } else {
    const auto file = TorchFile::Parse(bytes);
    if (!file) return in(file.error());
    order = ParseTorchOrder(file->root(), images);
  }
  if (!order) return in(order.error());
  return order;
}

}  // namespace fkdb
