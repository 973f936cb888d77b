// SPDX-License-Identifier: Apache-2.0
// The images that two label sets both have, read side by side on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "format/result.h"
#include "reader/reader.h"

namespace fkdb {

struct PairOptions {
  int threads = 1;     // the same numbers with any
  uint64_t limit = 0;  // only so many images that both have, the first in key order; 0: all
  // Called now and then, from the calling thread: images done, images in all, of both label sets.
  std::function<void(uint64_t, uint64_t)> progress;
  // When it turns true, Incomplete is returned.
  const std::atomic<bool>* stop = nullptr;
};

// An image in both: its ordinals.
struct ImagePair {
  uint64_t a, b;
};

// Whether crop `crop` of two records is flipped and changed alike; whether its boxes are alike is for those who read them.
inline bool ChangedAlike(const RecordView& a, const RecordView& b, uint32_t crop) {
  return a.flip(crop) == b.flip(crop) && std::ranges::equal(a.op_words(crop), b.op_words(crop));
}

struct PairCounts {
  uint64_t both = 0, only_a = 0, only_b = 0;
};

// The keys of a label set, one after the other.
class KeyCursor {
 public:
  explicit KeyCursor(const Reader& reader) : reader_(reader) {}

  // To the first one, and from each to the next. Errors: Corruption, Incomplete (a `.partial`); name the file.
  Result<void> Next();
  bool ended() const { return next_ == reader_.num_images(); }
  uint64_t ordinal() const { return next_; }
  const std::string& key() const { return key_; }

 private:
  const Reader& reader_;
  uint64_t next_ = 0;
  bool begun_ = false;
  std::string key_;
};

// The next `count` images in both, fewer at the end.
Result<void> NextPairs(size_t count, KeyCursor* a, KeyCursor* b, std::vector<ImagePair>* pairs, PairCounts* counts);

// make_work() gives each thread a work(pair) -> Result<Outcome> of its own; take(pair, outcome) gets all of them in the order of
// the keys, on the calling thread. Errors: the first of the works', Corruption, Incomplete (stop; a `.partial`); name the file.
template <class Outcome, class MakeWork, class Take>
Result<PairCounts> ForEachPair(const Reader& a, const Reader& b, const PairOptions& options, MakeWork make_work, Take take) {
  constexpr size_t kSlice = 1024;
  const auto stopped = [&] { return options.stop && options.stop->load(); };
  PairCounts counts;
  KeyCursor keys_a(a), keys_b(b);
  FKDB_TRY(keys_a.Next());
  FKDB_TRY(keys_b.Next());
  std::vector<ImagePair> pairs;
  std::vector<Result<Outcome>> outcomes;
  // Slices in order: the images of a slice on all threads, then their outcomes here.
  while (!(keys_a.ended() && keys_b.ended()) && (options.limit == 0 || counts.both < options.limit)) {
    const uint64_t left = options.limit - counts.both;
    FKDB_TRY(NextPairs(options.limit > 0 && left < kSlice ? left : kSlice, &keys_a, &keys_b, &pairs, &counts));
    outcomes.assign(pairs.size(), Outcome());
    std::atomic<size_t> next = 0;
    const auto run = [&] {
      auto work = make_work();
      for (size_t i; !stopped() && (i = next++) < pairs.size();) outcomes[i] = work(pairs[i]);
    };
    {
      std::vector<std::jthread> helpers;
      for (int t = 1; t < options.threads; ++t) helpers.emplace_back(run);
      run();
    }
    if (stopped()) return Fail(ErrorCode::kIncomplete, "stopped before everything was compared");
    for (size_t i = 0; i < pairs.size(); ++i) {
      if (!outcomes[i]) return Fail(std::move(outcomes[i]).error());
      take(pairs[i], *outcomes[i]);
    }
    if (options.progress) options.progress(keys_a.ordinal() + keys_b.ordinal(), a.num_images() + b.num_images());
  }
  return counts;
}

}  // namespace fkdb
