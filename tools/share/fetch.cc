// SPDX-License-Identifier: Apache-2.0
#include "tools/share/fetch.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "db/share/share.h"
#include "db/share/signature.h"
#include "tools/cli.h"
#include "tools/share/http.h"

namespace fkdb {
namespace {

using Stretch = IncomingShare::Stretch;

constexpr uint64_t kRequestBytes = 8u << 20;
constexpr std::chrono::milliseconds kFirstPause(200);  // before a request is made again; then twice that, .. up to 6 seconds

Error Stopped() { return {ErrorCode::kIncomplete, "stopped before everything was fetched; the same command goes on"}; }

// Where the share lies, and what became of each.
class Mirrors {
 public:
  static Result<Mirrors> Of(std::span<const std::string> named) {
    Mirrors mirrors;
    for (const std::string& name : named) {
      FKDB_ASSIGN(std::string url, FolderUrl(name));
      mirrors.all_.push_back({std::move(url), 0, true, {}});
    }
    return mirrors;
  }

  // One that is not given up; which, the caller's number says.
  std::optional<size_t> Pick(size_t number, bool ranges) const {
    const std::lock_guard lock(*mutex_);
    std::vector<size_t> good;
    for (size_t i = 0; i < all_.size(); ++i) {
      if (!all_[i].given_up && (all_[i].ranges || !ranges)) good.push_back(i);
    }
    return good.empty() ? std::nullopt : std::optional(good[number % good.size()]);
  }
  bool any() const { return Pick(0, false).has_value(); }
  const std::string& url(size_t mirror) const { return all_[mirror].url; }

  void GiveUp(size_t mirror, Error why) {
    const std::lock_guard lock(*mutex_);
    last_ = why;
    if (!all_[mirror].given_up) all_[mirror].given_up = std::move(why);
  }
  void HasNoRanges(size_t mirror) {
    const std::lock_guard lock(*mutex_);
    all_[mirror].ranges = false;
  }
  void Count(size_t mirror, uint64_t bytes) {
    const std::lock_guard lock(*mutex_);
    all_[mirror].bytes += bytes;
  }

  // Why the last one was given up.
  Error last() const {
    const std::lock_guard lock(*mutex_);
    return last_;
  }
  std::vector<FetchedFrom> Report() const {
    std::vector<FetchedFrom> report;
    for (const Mirror& mirror : all_) report.push_back({mirror.url, mirror.bytes, mirror.given_up ? mirror.given_up->message : ""});
    return report;
  }

 private:
  struct Mirror {
    std::string url;
    uint64_t bytes = 0;
    bool ranges = true;  // as far as one knows
    std::optional<Error> given_up;
  };
  std::vector<Mirror> all_;
  Error last_{};
  std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();
};

// What a reply means for the mirror it came from.
Error ErrorOf(const HttpReply& reply) {
  switch (reply.kind) {
    case HttpReply::kMissing: return {ErrorCode::kNotFound, reply.what};
    case HttpReply::kNotTaken:
    case HttpReply::kWrong: return {ErrorCode::kCorruption, reply.what + "; it was changed there, or on the way"};
    default: return {ErrorCode::kIoError, reply.what};
  }
}

// One thread's connection to all mirrors.
class Line {
 public:
  Line(size_t number, Mirrors* mirrors, const FetchOptions& options, const std::atomic<bool>* halt)
      : number_(number), mirrors_(*mirrors), options_(options), halt_(halt), connection_(options.timeout_seconds, halt) {}

  // What is to be had of a file.
  struct Wanted {
    // What is still to come, asked before each attempt; none: nothing. The URL is filled in here.
    std::function<Result<std::optional<HttpRequest>>()> next;
    std::function<uint64_t()> done;  // grows with what need not come again
    bool ranges;
  };
  // False: no mirror gives parts of files.
  Result<bool> Get(const std::string& file, const Wanted& wanted) {
    int failures = 0;
    for (;;) {
      FKDB_ASSIGN(std::optional<HttpRequest> request, wanted.next());
      if (!request) return true;
      const std::optional<size_t> mirror = mirrors_.Pick(number_, wanted.ranges);
      if (!mirror && mirrors_.any()) return false;
      if (!mirror) return Fail(mirrors_.last());
      const uint64_t before = wanted.done();
      const HttpReply reply = GetFrom(*mirror, file, *std::move(request));
      if (wanted.done() > before) failures = 0;
      if (reply.kind == HttpReply::kDone) return true;
      if (reply.kind == HttpReply::kStopped) return Fail(Stopped());
      if (reply.kind == HttpReply::kNotTaken && reply.error.code != ErrorCode::kCorruption) return Fail(reply.error);
      if (reply.kind == HttpReply::kNoRanges) {
        mirrors_.HasNoRanges(*mirror);
      } else if (reply.kind == HttpReply::kCut && failures < options_.retries) {
        FKDB_TRY(Pause(failures++));
      } else {
        mirrors_.GiveUp(*mirror, ErrorOf(reply));
        failures = 0;
      }
    }
  }

  // A small file of one mirror, tried again as often as others. Errors: as ErrorOf.
  Result<std::string> GetText(size_t mirror, const std::string& file, uint64_t most) {
    for (int failures = 0;; ++failures) {
      std::string text;
      HttpRequest request;
      request.most = most;
      request.take = [&](std::span<const std::byte> bytes) -> Result<void> {
        text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        return {};
      };
      const HttpReply reply = GetFrom(mirror, file, std::move(request));
      if (reply.kind == HttpReply::kDone) return text;
      if (reply.kind == HttpReply::kStopped) return Fail(Stopped());
      if (reply.kind != HttpReply::kCut || failures == options_.retries) return Fail(ErrorOf(reply));
      FKDB_TRY(Pause(failures));
    }
  }

 private:
  HttpReply GetFrom(size_t mirror, const std::string& file, HttpRequest request) {
    uint64_t came = 0;
    request.url = FileUrl(mirrors_.url(mirror), file);
    request.take = [take = std::move(request.take), &came](std::span<const std::byte> bytes) {
      came += bytes.size();
      return take(bytes);
    };
    HttpReply reply = connection_.Get(request);
    mirrors_.Count(mirror, came);
    return reply;
  }
  // Longer with each failure; ends early to stop.
  Result<void> Pause(int failures) const {
    const auto until = std::chrono::steady_clock::now() + kFirstPause * (1 << std::min(failures, 5));
    while (std::chrono::steady_clock::now() < until) {
      if (halt_->load()) return Fail(Stopped());
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return {};
  }

  const size_t number_;
  Mirrors& mirrors_;
  const FetchOptions& options_;
  const std::atomic<bool>* halt_;
  HttpConnection connection_;
};

// Manifest and signature of the first mirror whose are accepted.
template <class T>
Result<T> WithManifest(Mirrors* mirrors, Line* line, bool trusted, const std::function<Result<T>(const std::string& where, std::string text, std::optional<std::string> signature)>& accept) {
  while (const std::optional<size_t> mirror = mirrors->Pick(0, false)) {
    auto text = line->GetText(*mirror, kShareManifestName, kMaxShareManifestBytes);
    if (!text && text.error().code == ErrorCode::kIncomplete) return Fail(text.error());
    if (!text) {
      mirrors->GiveUp(*mirror, text.error());
      continue;
    }
    auto signature = line->GetText(*mirror, kSignatureName, kSignatureBytes);
    if (!signature && signature.error().code == ErrorCode::kIncomplete) return Fail(signature.error());
    // Some hosts refuse what they do not have; where nobody asked whose it is, it is not signed then.
    if (!signature && signature.error().code != ErrorCode::kNotFound && trusted) {
      mirrors->GiveUp(*mirror, signature.error());
      continue;
    }
    std::string where = mirrors->url(*mirror).substr(0, mirrors->url(*mirror).find('?'));
    where.pop_back();
    auto accepted = accept(where, *std::move(text), signature ? std::optional(*std::move(signature)) : std::nullopt);
    if (accepted || accepted.error().code != ErrorCode::kCorruption) return accepted;
    mirrors->GiveUp(*mirror, accepted.error());
  }
  return Fail(mirrors->last());
}

class Fetch {
 public:
  Fetch(Mirrors* mirrors, IncomingShare* share, const FetchOptions& options) : mirrors_(*mirrors), share_(*share), options_(options) {}

  Result<void> Run(const std::filesystem::path& folder) {
    const std::vector<size_t>& shards = share_.shards();
    FKDB_TRY(Work(shards.size(), [&](Line& line, size_t i) { return FindMissing(line, shards[i]); }));
    std::ranges::sort(stretches_, {}, [](const Stretch& s) { return std::pair(s.shard, s.at); });
    for (const Stretch& stretch : stretches_) needed_ += stretch.bytes;
    std::error_code ec;
    const auto room = std::filesystem::space(folder, ec);
    if (!ec && room.available < needed_) {
      return Fail(ErrorCode::kResourceExhausted, fmt::format("{}: {} are to come, and there is room for {}; make room, the same command goes on", folder.string(),
                                                             HumanBytes(static_cast<double>(needed_)), HumanBytes(static_cast<double>(room.available))));
    }
    FKDB_TRY(share_.Prepare());
    to_come_ = needed_;
    came_ = 0;
    return Work(stretches_.size(), [&](Line& line, size_t i) { return Bring(line, stretches_[i]); });
  }
  uint64_t needed() const { return needed_; }
  uint64_t came() const { return came_; }

 private:
  const std::string& FileOf(size_t shard) const { return share_.manifest().shards[shard].file; }

  // What has to come of a shard, with its index before.
  Result<void> FindMissing(Line& line, size_t shard) {
    bool ranges = true;
    if (!share_.FindIndex(shard)) {
      const Stretch index = share_.IndexOf(shard);
      std::vector<std::byte> bytes;
      bool taken = false;
      const auto take = [&](std::span<const std::byte> more) -> Result<void> {
        bytes.insert(bytes.end(), more.begin(), more.end());
        if (bytes.size() < index.bytes) return {};
        FKDB_TRY(share_.TakeIndex(shard, std::move(bytes)));
        taken = true;
        return {};
      };
      const auto next = [&]() -> Result<std::optional<HttpRequest>> {
        bytes.clear();
        return taken ? std::nullopt : std::optional(Part(index, take));
      };
      FKDB_ASSIGN(ranges, line.Get(FileOf(shard), {next, [&] { return uint64_t{taken}; }, true}));
    }
    std::vector<Stretch> missing = {share_.WholeOf(shard)};
    if (ranges) {
      FKDB_ASSIGN(missing, share_.Missing(shard, kRequestBytes));
    }
    const std::lock_guard lock(mutex_);
    stretches_.insert(stretches_.end(), missing.begin(), missing.end());
    return {};
  }

  Result<void> Bring(Line& line, const Stretch& stretch) {
    const uint64_t end = stretch.at + stretch.bytes;
    Stretch left = stretch;
    std::unique_ptr<IncomingShare::Receiver> receiver;
    const auto take = [&](std::span<const std::byte> bytes) {
      came_ += bytes.size();
      return receiver->Take(bytes);
    };
    const auto done = [&] { return receiver ? receiver->done() : 0; };
    const auto next = [&]() -> Result<std::optional<HttpRequest>> {
      if (done() == end) return std::optional<HttpRequest>();
      if (done() > left.at) left = {stretch.shard, done(), end - done()};
      receiver.reset();  // before another makes the same file
      FKDB_ASSIGN(receiver, share_.Receive(left));
      return Part(left, take);
    };
    FKDB_ASSIGN(const bool came, line.Get(FileOf(stretch.shard), {next, done, stretch.at > 0}));
    if (came && done() != end) return Fail(ErrorCode::kCorruption, fmt::format("{}: came to byte {}, expected {}", FileOf(stretch.shard), done(), end));
    if (came) return {};
    {
      const std::lock_guard lock(mutex_);
      if (!whole_.insert(stretch.shard).second) return {};  // it comes already
    }
    return Bring(line, share_.WholeOf(stretch.shard));
  }

  HttpRequest Part(const Stretch& stretch, std::function<Result<void>(std::span<const std::byte>)> take) const {
    HttpRequest request;
    request.at = stretch.at;
    request.bytes = stretch.at > 0 ? stretch.bytes : 0;
    request.most = stretch.bytes;
    request.size = share_.manifest().shards[stretch.shard].bytes;
    request.take = std::move(take);
    return request;
  }

  // Jobs 0 to n - 1 on as many lines as may be, until one fails. Progress is told from here.
  Result<void> Work(size_t jobs, const std::function<Result<void>(Line&, size_t)>& job) {
    std::atomic<bool> halt = false;
    std::atomic<size_t> next = 0;
    std::condition_variable ended;
    const size_t lines = std::min<size_t>(jobs, static_cast<size_t>(options_.connections));
    size_t working = lines;
    std::optional<Error> error;
    std::vector<std::jthread> threads;
    for (size_t number = 0; number < lines; ++number) {
      threads.emplace_back([&, number] {
        Line line(number, &mirrors_, options_, &halt);
        for (size_t i = next++; i < jobs && !halt; i = next++) {
          auto done = job(line, i);
          if (done) continue;
          const std::lock_guard lock(mutex_);
          if (!error) error = done.error();
          halt = true;
        }
        const std::lock_guard lock(mutex_);
        --working;
        ended.notify_one();
      });
    }
    std::unique_lock lock(mutex_);
    while (!ended.wait_for(lock, std::chrono::milliseconds(100), [&] { return working == 0; })) {
      if (options_.stop && options_.stop->load()) halt = true;
      if (options_.progress && to_come_ > 0) options_.progress(std::min<uint64_t>(came_, to_come_), to_come_);
    }
    if (error) return Fail(*error);
    if (halt || (options_.stop && options_.stop->load())) return Fail(Stopped());
    return {};
  }

  Mirrors& mirrors_;
  IncomingShare& share_;
  const FetchOptions& options_;
  std::mutex mutex_;
  std::vector<Stretch> stretches_;
  std::set<size_t> whole_;  // shards that come as they are because nobody gives parts of them
  uint64_t needed_ = 0, to_come_ = 0;
  std::atomic<uint64_t> came_ = 0;
};

}  // namespace

Result<FetchReport> FetchShare(std::span<const std::string> named, const std::filesystem::path& folder, const FetchOptions& options) {
  FKDB_ASSIGN(Mirrors mirrors, Mirrors::Of(named));
  const std::atomic<bool> never = false;
  Line line(0, &mirrors, options, options.stop ? options.stop : &never);
  FKDB_ASSIGN(IncomingShare share, WithManifest<IncomingShare>(&mirrors, &line, !options.trusted.empty(), [&](const std::string& where, std::string text, std::optional<std::string> signature) {
    return IncomingShare::Begin(folder, where, std::move(text), std::move(signature), options);
  }));
  Fetch fetch(&mirrors, &share, options);
  FKDB_TRY(fetch.Run(folder));
  FKDB_ASSIGN(ShareManifest manifest, share.Finish(options.threads));
  return FetchReport{std::move(manifest), fetch.came(), fetch.needed(), mirrors.Report()};
}

Result<ShareManifest> FetchShareManifest(const std::string& url, const FetchOptions& options) {
  FKDB_ASSIGN(Mirrors mirrors, Mirrors::Of(std::span(&url, 1)));
  const std::atomic<bool> never = false;
  Line line(0, &mirrors, options, options.stop ? options.stop : &never);
  return WithManifest<ShareManifest>(&mirrors, &line, !options.trusted.empty(), [&](const std::string& where, std::string text, std::optional<std::string> signature) {
    return CheckShareText(where, text, signature, options.trusted);
  });
}

}  // namespace fkdb
