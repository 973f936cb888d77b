// SPDX-License-Identifier: Apache-2.0
// Shared label sets from where they lie: web servers, mounted folders, several mirrors of one. Each byte is compared with its hash as it
// arrives (db/share/incoming.h), so that a mirror need not be trusted: what it damages is taken from another.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "db/share/incoming.h"
#include "db/share/share_manifest.h"
#include "format/result.h"

namespace fkdb {

struct FetchOptions : IncomingOptions {
  int connections = 8;       // at a time
  int timeout_seconds = 30;  // to connect, and at less than 1 KiB/s
  int retries = 5;           // of one request without progress, before a mirror is given up
  int threads = 1;           // to check what came
  // Called now and then, from the calling thread: bytes that came, that are to come.
  std::function<void(uint64_t, uint64_t)> progress;
  const std::atomic<bool>* stop = nullptr;  // when it turns true, Incomplete is returned
};

struct FetchedFrom {
  std::string url;
  uint64_t bytes = 0;
  std::string given_up;  // why, if it was
};

struct FetchReport {
  ShareManifest manifest;
  uint64_t bytes = 0;   // that came of shards, over again or not
  uint64_t needed = 0;  // of them, when it began
  std::vector<FetchedFrom> mirrors;
};

// Brings a share, or the part of it that options.part selects, from mirrors of it (http.h's FolderUrl) into `folder`. The same call goes on
// where an earlier one ended, however that was. Errors: those of IncomingShare; of the mirror that was left, NotFound (a file is not there),
// Corruption (it is not what the manifest says), IoError (no answer); ResourceExhausted (no room), Incomplete (stopped).
Result<FetchReport> FetchShare(std::span<const std::string> mirrors, const std::filesystem::path& folder, const FetchOptions& options);

// The manifest alone. Of options trusted, timeout_seconds, retries and stop count.
Result<ShareManifest> FetchShareManifest(const std::string& url, const FetchOptions& options);

}  // namespace fkdb
