// SPDX-License-Identifier: Apache-2.0
// Brings a label set that lies on a disk into memory, front to back, while it is already read at
// random: a cold first epoch then costs about one reading of the file in order instead of a seek an
// image, and no read of a record waits for a page fault any more.
#pragma once

#include <cstdint>
#include <string_view>
#include <thread>

#include "db/label_set.h"
#include "format/result.h"

namespace fkdb {

enum class Preload {
  kAuto,  // if the files fit into half of the memory that is available
  kOn,
  kOff,
};

Result<Preload> ParsePreload(std::string_view name);  // "auto", "on", "off"

// Works on its own thread; destroying it ends that soon. Changes nothing but speed, and never fails: a
// page that cannot be read is found by the read that needs it.
class Preloader {
 public:
  // Borrows `labels`.
  Preloader(const LabelSet& labels, Preload mode);

  uint64_t bytes() const { return bytes_; }  // to be read; 0: it was decided not to
  void Wait();                               // until all of it was

 private:
  uint64_t bytes_ = 0;
  std::jthread worker_;
};

}  // namespace fkdb
