// SPDX-License-Identifier: Apache-2.0
// What the processes of one job have in common besides a file system: texts and counters by name. Who connects them is the
// implementation's business (trainer/process_group.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "format/result.h"

namespace fkdb {

// May be called from several threads at once. Errors of all calls: IoError (the others cannot be reached).
class SharedStore {
 public:
  virtual ~SharedStore() = default;

  virtual int rank() const = 0;   // of this process, 0 to ranks() - 1
  virtual int ranks() const = 0;  // processes
  // Whether it ends with this process.
  virtual bool is_ours() const { return false; }
  virtual Result<void> Set(const std::string& name, const std::string& text) = 0;
  // None if nobody has set it yet.
  virtual Result<std::optional<std::string>> Find(const std::string& name) = 0;
  // Returns the sum with `n`; a counter begins at 0. A name is a text's or a counter's.
  virtual Result<int64_t> Add(const std::string& name, int64_t n) = 0;
};

}  // namespace fkdb
