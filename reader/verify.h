// SPDX-License-Identifier: Apache-2.0
// Everything a label file claims, checked: structure, checksums, schema, the meaning of every crop,
// keys, counts, digest.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "format/result.h"

namespace fkdb {

constexpr size_t kMaxListedErrors = 100;

struct VerifyReport {
  bool ok = false;
  uint64_t images = 0;
  uint64_t crops = 0;
  std::string digest;               // of what was read; empty if a record could not be
  std::vector<std::string> errors;  // the first kMaxListedErrors
  uint64_t error_count = 0;
  ErrorCode code = ErrorCode::kCorruption;  // of the first error
};

// progress(images done, images in all) is called now and then, from this thread. When `stop` turns true the
// work ends, and the report is not ok.
VerifyReport Verify(const std::filesystem::path& path, int threads = 1,
                    const std::function<void(uint64_t, uint64_t)>& progress = {},
                    const std::atomic<bool>* stop = nullptr);

// Adds an error to `report` for each way the two verified label sets differ (digest), in words.
void CompareDigests(const VerifyReport& a, const VerifyReport& b, VerifyReport* report);

}  // namespace fkdb
