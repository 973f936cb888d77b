// SPDX-License-Identifier: Apache-2.0
// Files of named tensors in the safetensors format: 8 bytes of header length (little-endian), a JSON
// header { name: {dtype, shape, data_offsets}, "__metadata__": {text: text} }, the data. No code in
// them, readable everywhere.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "format/result.h"

namespace fkdb {

struct StoredTensor {
  std::string dtype;  // "F32", "F64", "F16", "BF16", "I64", "I32", "U8", ..
  std::vector<int64_t> shape;
  std::vector<std::byte> data;  // row-major, little-endian
};

struct TensorFile {
  std::map<std::string, StoredTensor> tensors;
  std::map<std::string, std::string> metadata;
};

// Every claim of the header is checked before it is used. Errors: NotFound, IoError, Corruption.
Result<TensorFile> ReadTensorFile(const std::filesystem::path& path);
// In two steps; `path` is for the errors.
Result<std::vector<std::byte>> ReadBytes(const std::filesystem::path& path);
Result<TensorFile> ParseTensorFile(std::span<const std::byte> bytes, const std::filesystem::path& path);

// Written beside `path`, synced and renamed: there is always a whole file under the name.
// Errors: IoError, ResourceExhausted (disk full).
Result<void> WriteTensorFile(const std::filesystem::path& path, const TensorFile& file);

}  // namespace fkdb
