// SPDX-License-Identifier: Apache-2.0
#include "writer/ordered_run.h"

#include <chrono>
#include <thread>
#include <utility>

#include "image/ordered_queue.h"

namespace fkdb {

Result<void> RunInOrder(const OrderedRun& run, const std::function<MakeRecords()>& make_work,
                        const std::function<Result<void>(EncodedRecords)>& take) {
  OrderedQueue<Result<EncodedRecords>> queue(run.first, run.end, 2 * static_cast<uint64_t>(run.threads));
  const auto work = [&] {
    const MakeRecords make = make_work();
    while (const std::optional<uint64_t> piece = queue.Claim()) {
      auto records = Guarded([&] { return make(*piece); });
      if (!records) queue.Deliver(*piece, Fail(std::move(records).error()));
      else if (*records) queue.Deliver(*piece, **std::move(records));
      else queue.EndAt(*piece);
    }
  };
  const auto stopped = [&] { return run.stop && run.stop->load(); };
  std::vector<std::jthread> workers;
  Result<void> outcome = StartThreads(run.threads, work, &workers);
  while (outcome && !queue.finished() && !stopped()) {
    if (auto records = queue.Take(std::chrono::milliseconds(200)); records && !*records) {
      outcome = Fail(std::move(*records).error());
    } else if (records) {
      outcome = take(std::move(**records));
    }
    if (run.progress) run.progress();
  }
  queue.Close();
  return outcome;
}

}  // namespace fkdb
