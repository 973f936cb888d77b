// SPDX-License-Identifier: Apache-2.0
// Files from web servers and folders, whole or in part, as they arrive. libcurl is seen by http.cc alone.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "format/result.h"

namespace fkdb {

// The folder that somebody names: a URL of http, https or file, or a path, as a URL that ends in a slash (before a query, if it has one);
// the manifest's name at its end is none of it. Errors: InvalidArgument (another scheme, not a URL).
Result<std::string> FolderUrl(const std::string& named);
// Of a file in it.
std::string FileUrl(const std::string& folder_url, const std::string& file);

struct HttpRequest {
  std::string url;
  uint64_t at = 0, bytes = 0;        // this part of it; 0 bytes: all
  std::optional<uint64_t> size;      // of the file, if that is known
  uint64_t most = 0;                 // bytes that may come; more: kWrong
  // What came. An error ends the transfer.
  std::function<Result<void>(std::span<const std::byte>)> take;
};

struct HttpReply {
  enum Kind {
    kDone,
    kCut,       // the connection, the server, the time: may go better next time
    kRefused,   // as it says, and will say again
    kMissing,   // 404, or no such file
    kNoRanges,  // all of it came where a part was asked for
    kWrong,     // it does not have the size it should have
    kNotTaken,  // by `take`, with `error`
    kStopped,
  };
  Kind kind = kDone;
  std::string what;  // in words, with the URL
  Error error{};
};

// A connection that is kept between requests. For one thread.
class HttpConnection {
 public:
  // Ends with kCut what is slower than 1 KiB/s for so long, or does not connect; with kStopped once *stop is true, unless null.
  HttpConnection(int timeout_seconds, const std::atomic<bool>* stop);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  HttpReply Get(const HttpRequest& request);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fkdb
