// SPDX-License-Identifier: Apache-2.0
// Event files, which TensorBoard draws curves of: <folder>/events.out.tfevents.<seconds>.<host>.
//
//   record   length u64 | masked CRC-32C of the length u32 | data | masked CRC-32C of the data u32, all little-endian
//   data     a protobuf message Event: wall_time = 1 (double), step = 2 (int64), one of
//              file_version = 3 (string): "brain.Event:2", in the first record
//              summary = 5: its value = 1 has tag = 1 (string), simple_value = 2 (float)
//              session_log = 7: its status = 1 is START = 1; what other files say of this step and later ones is void
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "format/result.h"

namespace fkdb {

// CRC-32C (Castagnoli) as such records hold it: rotated right by 15 bits, plus 0xa282ead8.
uint32_t MaskedCrc32c(std::string_view bytes);

// One thread. Each call hands whole records to the system.
class EventFile {
 public:
  // A new file of a run that goes on after `step` steps, later in the order of names than those already in `folder`. Errors: IoError.
  static Result<EventFile> Create(const std::filesystem::path& folder, int64_t step);

  Result<void> AddScalars(int64_t step, std::span<const std::pair<std::string, double>> scalars);

  const std::filesystem::path& path() const { return path_; }

 private:
  using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;
  EventFile(std::filesystem::path path, File file) : path_(std::move(path)), file_(std::move(file)) {}
  Result<void> Write(const std::string& records);

  std::filesystem::path path_;
  File file_;
};

}  // namespace fkdb
