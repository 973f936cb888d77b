// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/zip_file.h"

#include <fmt/format.h>
#include <zip.h>

#include "format/text.h"

namespace fkdb {
namespace {

tl::unexpected<Error> Corrupt(std::string_view what) { return Fail(ErrorCode::kCorruption, fmt::format("zip archive: {}", what)); }

std::string WordsOf(zip_error_t* error) {
  std::string words = zip_error_strerror(error);
  zip_error_fini(error);
  return words;
}

}  // namespace

void ZipFile::Close::operator()(::zip* archive) const { zip_discard(archive); }

Result<ZipFile> ZipFile::Open(std::span<const std::byte> bytes) {
  constexpr std::string_view kMagic = "PK";
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!text.starts_with(kMagic)) return Corrupt("it does not begin like one");
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* const source = zip_source_buffer_create(bytes.data(), bytes.size(), /*freep=*/0, &error);
  if (source == nullptr) return Fail(ErrorCode::kResourceExhausted, "zip archive: " + WordsOf(&error));
  ZipFile file;
  file.archive_.reset(zip_open_from_source(source, ZIP_RDONLY, &error));
  if (!file.archive_) {
    zip_source_free(source);
    return Corrupt(WordsOf(&error) + " (cut off?)");
  }
  zip_error_fini(&error);
  const zip_int64_t count = zip_get_num_entries(file.archive_.get(), 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const char* const name = zip_get_name(file.archive_.get(), static_cast<zip_uint64_t>(i), ZIP_FL_ENC_RAW);
    file.names_.emplace_back(name ? name : "");
    file.places_.emplace(file.names_.back(), static_cast<uint64_t>(i));  // the first of a name
  }
  return file;
}

Result<std::vector<std::byte>> ZipFile::Read(std::string_view name, uint64_t limit) const {
  const auto found = places_.find(name);
  if (found == places_.end()) return Fail(ErrorCode::kNotFound, fmt::format("zip archive: no member '{}'", Printable(name)));
  const zip_uint64_t index = found->second;
  const auto bad = [&](std::string_view what) { return Corrupt(fmt::format("member '{}': {}", Printable(name), what)); };
  zip_stat_t stat;
  if (zip_stat_index(archive_.get(), index, 0, &stat) != 0) return bad(zip_strerror(archive_.get()));
  if (stat.size > limit) {
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("zip archive: member '{}' would take {} bytes: expected at most {}", Printable(name), stat.size, limit));
  }
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> member(zip_fopen_index(archive_.get(), index, 0), zip_fclose);
  if (!member) return bad(zip_strerror(archive_.get()));
  std::vector<std::byte> bytes(stat.size);
  // Reading to the end is what compares the checksum.
  const zip_int64_t got = zip_fread(member.get(), bytes.data(), stat.size);
  std::byte more;
  if (got < 0 || static_cast<uint64_t>(got) != stat.size || zip_fread(member.get(), &more, 1) != 0) {
    const std::string words = zip_file_strerror(member.get());
    return bad(words == "No error" ? "another length than it says" : words);
  }
  return bytes;
}

Result<std::vector<std::byte>> MakeZip(std::span<const ZipMember> members) {
  const auto exhausted = [](std::string_view what) { return Fail(ErrorCode::kResourceExhausted, fmt::format("zip archive: {}", what)); };
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* const target = zip_source_buffer_create(nullptr, 0, 0, &error);
  if (target == nullptr) return exhausted(WordsOf(&error));
  zip_source_keep(target);  // ours, when the archive is done with it
  const std::unique_ptr<zip_source_t, void (*)(zip_source_t*)> owner(target, zip_source_free);
  zip_t* const archive = zip_open_from_source(target, ZIP_TRUNCATE, &error);
  if (archive == nullptr) {
    zip_source_free(target);
    return exhausted(WordsOf(&error));
  }
  zip_error_fini(&error);
  for (const ZipMember& member : members) {
    zip_source_t* const source = zip_source_buffer(archive, member.bytes.data(), member.bytes.size(), 0);
    const zip_int64_t index = source ? zip_file_add(archive, member.name.c_str(), source, ZIP_FL_ENC_GUESS) : -1;
    if (index < 0) {
      const std::string words = zip_strerror(archive);
      zip_source_free(source);
      zip_discard(archive);
      return exhausted(words);
    }
    const auto at = static_cast<zip_uint64_t>(index);
    zip_set_file_compression(archive, at, ZIP_CM_STORE, 0);
    zip_file_set_dostime(archive, at, 0, 0x21, 0);  // 1980-01-01: the same labels make the same bytes
  }
  if (zip_close(archive) != 0) {
    const std::string words = zip_strerror(archive);
    zip_discard(archive);
    return exhausted(words);
  }
  zip_stat_t stat;
  if (zip_source_stat(target, &stat) != 0 || zip_source_open(target) != 0) return exhausted("cannot read what was written");
  std::vector<std::byte> bytes(stat.size);
  const zip_int64_t got = zip_source_read(target, bytes.data(), stat.size);
  zip_source_close(target);
  if (got != static_cast<zip_int64_t>(stat.size)) return exhausted("cannot read what was written");
  return bytes;
}

}  // namespace fkdb
