// SPDX-License-Identifier: Apache-2.0
#include "tools/share/http.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <string_view>

#include "db/share/share_manifest.h"
#include "format/text.h"

namespace fkdb {
namespace {

constexpr long kSlowBytesPerSecond = 1024;

bool IsTransient(CURLcode code, long status) {
  switch (code) {
    case CURLE_HTTP_RETURNED_ERROR: return status == 408 || status == 425 || status == 429 || status >= 500;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_AGAIN: return true;
    default: return false;
  }
}

// One transfer, as its callbacks see it.
struct Transfer {
  const HttpRequest& request;
  CURL* curl;
  const std::atomic<bool>* stop;
  HttpReply reply{};
  uint64_t taken = 0;
  std::optional<uint64_t> range_at, file_bytes;  // as the server says

  size_t End(HttpReply::Kind kind, std::string what) {
    reply.kind = kind;
    reply.what = fmt::format("{}: {}", request.url, Printable(what));
    return 0;  // curl ends with an error
  }

  // Whether it is what was asked for, before the first byte is taken; of an error page nothing is.
  bool Begins() {
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 400) return false;
    if (request.bytes > 0 && status == 200) return End(HttpReply::kNoRanges, "the server does not answer requests for a part of a file") > 0;
    if (request.bytes > 0 && status == 206 && range_at.value_or(request.at) != request.at) return End(HttpReply::kWrong, "the server sent another part than was asked for") > 0;
    curl_off_t length = -1;
    if (request.bytes == 0 && curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length) == CURLE_OK && length >= 0) file_bytes = static_cast<uint64_t>(length);
    if (file_bytes && request.size && *file_bytes != *request.size) return End(HttpReply::kWrong, fmt::format("{} bytes, the manifest says {}", *file_bytes, *request.size)) > 0;
    if (request.bytes == 0 && file_bytes && *file_bytes > request.most) return End(HttpReply::kWrong, fmt::format("{} bytes, at most {}", *file_bytes, request.most)) > 0;
    return true;
  }

  size_t Take(const char* data, size_t size) {
    if (taken == 0 && !Begins()) return 0;
    if (size > request.most - taken) return End(HttpReply::kWrong, fmt::format("over {} bytes came", request.most));
    taken += size;
    auto done = request.take(std::as_bytes(std::span(data, size)));
    if (done) return size;
    reply.error = done.error();
    return End(HttpReply::kNotTaken, done.error().message);
  }

  // "Content-Range: bytes 16-99/1000"
  void Header(std::string_view line) {
    if (line.starts_with("HTTP/")) range_at = file_bytes = {};  // of another response than the one before
    constexpr std::string_view kName = "content-range:";
    if (line.size() < kName.size() || curl_strnequal(line.data(), kName.data(), kName.size()) == 0) return;
    const auto number_at = [&](size_t at) -> std::optional<uint64_t> {
      uint64_t number = 0;
      if (at == std::string_view::npos || at >= line.size()) return {};
      return std::from_chars(line.data() + at, line.data() + line.size(), number).ec == std::errc() ? std::optional(number) : std::nullopt;
    };
    range_at = number_at(line.find_first_of("0123456789", kName.size()));
    const size_t slash = line.find('/');
    if (slash != std::string_view::npos) file_bytes = number_at(slash + 1);
  }
};

size_t OnBody(char* data, size_t size, size_t count, void* transfer) { return static_cast<Transfer*>(transfer)->Take(data, size * count); }
size_t OnHeader(char* data, size_t size, size_t count, void* transfer) {
  static_cast<Transfer*>(transfer)->Header({data, size * count});
  return size * count;
}
int OnProgress(void* transfer, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto* stop = static_cast<Transfer*>(transfer)->stop;
  return stop != nullptr && stop->load() ? 1 : 0;
}

std::string Escaped(std::string_view path) {
  std::string escaped;
  for (const char c : path) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || std::string_view("/-._~").find(c) != std::string_view::npos;
    escaped += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return escaped;
}

}  // namespace

Result<std::string> FolderUrl(const std::string& named) {
  const auto bad = [&](const char* what) { return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: {}", Printable(named), what)); };
  std::string url = named;
  if (named.empty()) return bad("not a URL and not a folder");
  if (named.find("://") == std::string::npos) {
    std::error_code ec;
    url = "file://" + Escaped(std::filesystem::absolute(named, ec).lexically_normal().string());
  } else if (const bool known = named.starts_with("http://") || named.starts_with("https://") || named.starts_with("file:///"); !known) {
    return bad("not a URL of http, https or file");
  }
  const size_t end = std::min(url.find_first_of("?#"), url.size());
  std::string path = url.substr(0, end);
  if (const std::string manifest = std::string("/") + kShareManifestName; path.ends_with(manifest)) path.resize(path.size() - manifest.size());
  if (!path.ends_with('/')) path += '/';
  return path + url.substr(end);
}

std::string FileUrl(const std::string& folder_url, const std::string& file) {
  const size_t end = std::min(folder_url.find_first_of("?#"), folder_url.size());
  return folder_url.substr(0, end) + file + folder_url.substr(end);
}

struct HttpConnection::Impl {
  CURL* curl = nullptr;
  const std::atomic<bool>* stop = nullptr;
  char message[CURL_ERROR_SIZE] = {};
};

HttpConnection::HttpConnection(int timeout_seconds, const std::atomic<bool>* stop) : impl_(std::make_unique<Impl>()) {
  static std::once_flag begun;
  std::call_once(begun, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  CURL* const curl = impl_->curl = curl_easy_init();
  impl_->stop = stop;
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, impl_->message);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "fkdb/" FKDB_VERSION);
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);  // hubs send their readers on to where files lie
  curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 10L);
  curl_easy_setopt(curl, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_OPTIONAL));
  curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, static_cast<long>(timeout_seconds));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(timeout_seconds));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, kSlowBytesPerSecond);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, OnHeader);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, OnProgress);
}

HttpConnection::~HttpConnection() { curl_easy_cleanup(impl_->curl); }

HttpReply HttpConnection::Get(const HttpRequest& request) {
  CURL* const curl = impl_->curl;
  Transfer transfer{request, curl, impl_->stop};
  const std::string range = request.bytes > 0 ? fmt::format("{}-{}", request.at, request.at + request.bytes - 1) : "";
  // Nobody on the way is sent to a protocol, or to files, that the one who asked did not mean.
  const std::string scheme = request.url.substr(0, request.url.find("://"));
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, scheme.c_str());
  curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, scheme == "http" ? "http,https" : "https");
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_RANGE, range.empty() ? nullptr : range.c_str());
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  impl_->message[0] = '\0';
  const CURLcode code = curl_easy_perform(curl);
  HttpReply& reply = transfer.reply;
  if (reply.kind != HttpReply::kDone) return reply;  // a callback ended it
  if (impl_->stop != nullptr && impl_->stop->load()) {
    reply.kind = HttpReply::kStopped;
    return reply;
  }
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  if (code != CURLE_OK) {
    const std::string message = impl_->message[0] != '\0' ? impl_->message : curl_easy_strerror(code);
    if (status == 404 || status == 410 || code == CURLE_FILE_COULDNT_READ_FILE) {
      transfer.End(HttpReply::kMissing, "no such file there");
    } else if (status == 416 && transfer.file_bytes && request.size) {
      transfer.End(HttpReply::kWrong, fmt::format("{} bytes, the manifest says {}", *transfer.file_bytes, *request.size));
    } else if (status == 416 || code == CURLE_RANGE_ERROR || code == CURLE_BAD_DOWNLOAD_RESUME) {
      transfer.End(HttpReply::kWrong, "it ends before the part that was asked for");
    } else if (code == CURLE_OPERATION_TIMEDOUT) {
      transfer.End(HttpReply::kCut, "no answer, or less than 1 KiB/s, in the time that --timeout gives");
    } else {
      transfer.End(IsTransient(code, status) ? HttpReply::kCut : HttpReply::kRefused, message);
    }
    return reply;
  }
  const uint64_t expected = request.bytes > 0 ? request.bytes : request.size.value_or(0);
  if (transfer.taken < expected) transfer.End(HttpReply::kWrong, fmt::format("{} bytes came, {} were asked for", transfer.taken, expected));
  return reply;
}

}  // namespace fkdb
