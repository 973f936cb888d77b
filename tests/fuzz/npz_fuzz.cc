// SPDX-License-Identifier: Apache-2.0
// The arrays of an .npz, in an archive whose checksums are right: the input is cut at marks into the five columns.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

#include "tests/fuzz/fuzz.h"
#include "writer/convert/npz.h"
#include "writer/convert/zip_file.h"

namespace fkdb {
namespace {

constexpr std::string_view kCut = "|cut|";
constexpr std::array kNames = {"key.npy", "box.npy", "flip.npy", "indices.npy", "values.npy"};

std::string Npy(const std::string& type, const std::string& shape, const std::string& data, char version = 1) {
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + shape + "), }\n";
  std::string npy = "\x93NUMPY";
  npy += {version, 0, static_cast<char>(header.size()), 0};
  if (version > 1) npy += {0, 0};
  return npy + header + data;
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  const std::string cut(kCut);
  const std::string keys = Npy("<U1", "2,", std::string("a\0\0\0b\0\0\0", 8)), bytes = Npy("|S2", "2,", "abc\0");
  const std::string rest = cut + Npy("<i4", "2, 4", std::string(32, 1)) + cut + Npy("|b1", "2,", "\1\1") + cut;
  return {keys + rest + Npy("<i8", "2, 1", std::string(16, 0)) + cut + Npy("<f4", "2, 1", std::string(8, 0)),
          bytes + rest + Npy("<u2", "2,", std::string(4, 0)) + cut + Npy("<f2", "2,", std::string(4, 0), 2),
          keys + cut + Npy("<f8", "2, 4", std::string(64, 0)) + cut + Npy("|b1", "2,", "\1\1") + cut + cut + Npy("<f4", "2, 3", std::string(24, 0))};
}

}  // namespace fkdb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::vector<fkdb::ZipMember> members;
  for (const char* name : fkdb::kNames) {
    const size_t end = std::min(rest.find(fkdb::kCut), rest.size());
    if (end > 0) members.push_back({name, std::as_bytes(std::span(rest.substr(0, end)))});
    rest.remove_prefix(std::min(rest.size(), end + fkdb::kCut.size()));
  }
  if (members.empty()) return 0;
  const auto file = fkdb::ParseNpz(fkdb::MakeZip(members).value());
  if (!file) return 0;
  const auto rows = (*file)->Read(0);
  if (!rows) return 0;
  // Every column is as long as its shape says.
  const size_t n = rows->size();
  if (rows->flips.size() != n || (rows->pixel_boxes ? rows->pixels.size() : rows->fractions.size()) != 4 * n ||
      rows->indices.size() != n * rows->num_indices || rows->values.size() != n * rows->num_values) {
    std::abort();
  }
  return 0;
}
