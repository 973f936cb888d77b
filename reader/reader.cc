// SPDX-License-Identifier: Apache-2.0
#include "reader/reader.h"

#include <fmt/format.h>

#include "format/text.h"

namespace fkdb {

Result<Reader> Reader::Open(const std::filesystem::path& path, const LabelFileOptions& options) {
  FKDB_ASSIGN(LabelSet labels, LabelSet::Open(path, options));
  return Reader(std::move(labels));
}

Error Reader::About(uint64_t ordinal, Error error) const {
  const auto key = labels_.Key(ordinal);
  const std::string name = key && *key ? fmt::format("'{}'", Printable(**key)) : std::to_string(ordinal);
  const auto& path = labels_.files()[labels_.PlaceOf(ordinal).file].path();
  return {error.code, fmt::format("{}: image {}: {}", path.string(), name, error.message)};
}

Result<RecordView> Reader::Get(uint64_t ordinal) const {
  FKDB_ASSIGN(const auto bytes, labels_.RecordBytes(ordinal));
  return View(ordinal, bytes);
}

Result<RecordView> Reader::Get(uint64_t ordinal, const LabelSet::Slot& slot) const {
  FKDB_ASSIGN(const auto bytes, slot.file->RecordBytes(slot.in_file));
  return View(ordinal, bytes);
}

Result<RecordView> Reader::View(uint64_t ordinal, std::span<const std::byte> record) const {
  auto view = RecordView::Open(record, spec());
  if (!view) return Fail(About(ordinal, std::move(view).error()));
  return view;
}

}  // namespace fkdb
