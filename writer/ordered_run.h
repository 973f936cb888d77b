// SPDX-License-Identifier: Apache-2.0
// Records made on several threads and handed on in order, until all are done or somebody says stop.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "format/result.h"

namespace fkdb {

using EncodedRecords = std::vector<std::vector<std::byte>>;

struct OrderedRun {
  uint64_t first = 0, end = 0;  // pieces of work, if not fewer
  int threads = 1;
  const std::atomic<bool>* stop = nullptr;  // ends the run early; pieces under way are finished, or come out empty
  std::function<void()> progress;           // called now and then from the calling thread
};

// A piece's records; none: there is no such piece, nor one behind it.
using MakeRecords = std::function<Result<std::optional<EncodedRecords>>(uint64_t piece)>;

// make_work is called once on each thread and gives what makes a piece's records there. `take` gets them on the
// calling thread, in the order of the pieces. Errors: the first of a piece or of `take`; StartThreads's.
Result<void> RunInOrder(const OrderedRun& run, const std::function<MakeRecords()>& make_work,
                        const std::function<Result<void>(EncodedRecords)>& take);

}  // namespace fkdb
