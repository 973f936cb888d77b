// SPDX-License-Identifier: Apache-2.0
#include "reader/reader.h"

#include <fmt/format.h>

#include "format/text.h"

namespace fkdb {

Result<Reader> Reader::Open(const std::filesystem::path& path, const LabelFileOptions& options) {
  FKDB_ASSIGN(LabelFile file, LabelFile::Open(path, options));
  return Reader(std::move(file));
}

Error Reader::About(uint64_t ordinal, Error error) const {
  const auto key = file_.Key(ordinal);
  const std::string name = key && *key ? fmt::format("'{}'", Printable(**key)) : std::to_string(ordinal);
  return {error.code, fmt::format("{}: image {}: {}", file_.path().string(), name, error.message)};
}

Result<RecordView> Reader::Get(uint64_t ordinal) const {
  FKDB_ASSIGN(const auto bytes, file_.RecordBytes(ordinal));
  auto view = RecordView::Open(bytes, spec());
  if (!view) return Fail(About(ordinal, std::move(view).error()));
  return view;
}

}  // namespace fkdb
