// SPDX-License-Identifier: Apache-2.0
// How far a labelling is, and what its threads' time goes into.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

namespace fkdb {

class Elapsed {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begun_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begun_ = Clock::now();
};

// What a labeller does with its time.
enum class Stage { kDecode, kCrop, kTeacher, kEncode };
constexpr int kStages = 4;

// Of all labellers of a run together.
struct LabelCounters {
  std::atomic<uint64_t> crops = 0;             // labelled
  std::atomic<uint64_t> bad = 0;               // images that cannot be read
  std::atomic<uint64_t> made = 0, taken = 0;   // groups: labelled, of these written
  std::atomic<int64_t> nanoseconds[kStages]{};
};

// Counts what passes while it exists.
class StageTime {
 public:
  // counters: may be null.
  StageTime(LabelCounters* counters, Stage stage) : counters_(counters), stage_(stage) {}
  ~StageTime() {
    if (counters_) counters_->nanoseconds[static_cast<int>(stage_)] += static_cast<int64_t>(elapsed_.seconds() * 1e9);
  }
  StageTime(const StageTime&) = delete;
  StageTime& operator=(const StageTime&) = delete;

 private:
  LabelCounters* counters_;
  Stage stage_;
  Elapsed elapsed_;
};

struct LabelProgress {
  uint64_t images = 0;       // written, those of earlier runs included
  uint64_t all_images = 0;
  uint64_t crops = 0;        // labelled by this run
  uint64_t all_crops = 0;    // that this run has to label
  uint64_t bad = 0;          // images that this run could not read
  double seconds = 0;        // since this run began
  // Of this process.
  uint64_t waiting = 0;      // groups that are labelled and not yet written, of at most two a thread
  double share[kStages]{};   // of its labellers' time, by stage

  // What counters say: crops, bad, waiting, share.
  void Take(const LabelCounters& counters);
  double crops_per_second() const;
  // None before the first crop.
  std::optional<double> seconds_left() const;
};

}  // namespace fkdb
