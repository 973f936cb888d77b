// SPDX-License-Identifier: Apache-2.0
// What every fkdb program shares: --version, --json and --quiet, one line for an error, and the
// exit codes users script against.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "format/result.h"

namespace fkdb {

// Promises to users, never change.
enum ExitCode {
  kExitOk = 0,
  kExitRuntimeError = 1,
  kExitUsage = 2,
  kExitVerificationFailed = 3,
  kExitIncompatible = 4,
  kExitLocked = 5,
  kExitIncomplete = 6,
  kExitMismatch = 7,
};
int ExitCodeOf(ErrorCode code);

struct CommonFlags {
  bool json = false;
  bool quiet = false;
};

// Adds --version, --json (with `json_help`, unless empty) and --quiet.
void AddCommonFlags(CLI::App& app, CommonFlags* flags, const std::string& json_help);

// Arguments from elsewhere than the command line.
class MoreArguments {
 public:
  virtual ~MoreArguments() = default;
  // `given` and those that it adds.
  virtual Result<std::vector<std::string>> Expand(std::vector<std::string> given) = 0;
  // The same complaint of the parser, with the place it is about if that is not the command line.
  virtual std::string About(const std::string& complaint) const = 0;
};

// Parses, runs `body`, and turns its error into one line on stderr and an exit code. `body` returns
// the exit code of success. Exceptions of third parties end here too. `more` may be null.
int RunTool(CLI::App& app, int argc, char** argv, const std::function<Result<int>()>& body, MoreArguments* more = nullptr);

// Writes all of `text` to stdout, or ends the program quietly if nobody reads it.
Result<void> PrintOut(const std::string& text);

// A progress line on stderr: redrawn on a terminal, silent otherwise, so that an error is the only line.
class Progress {
 public:
  explicit Progress(bool quiet);
  void Show(const std::string& line);
  // "[####................]  20.0%  12 of 60 images, 3 images/s  16s left"; of "bytes" as "1.20 MiB of 6.00 MiB, 0.30 MiB/s  16s left", of ""
  // without numbers. The time is that of the work which began with the first call, or with the last that had done less than the one before.
  void Count(uint64_t done, uint64_t all, const std::string& unit);
  // Lines that stay.
  void Say(const std::string& text);
  // Ends the redrawn line; call before other output.
  void Done();

 private:
  bool enabled_;
  bool drawn_ = false;
  std::optional<std::chrono::steady_clock::time_point> begun_;
  uint64_t first_ = 0, last_ = 0;  // counts
};

// For programs that run networks, first thing in main: memory that was freed is kept and used again.
// By default the C library gives activations of many MiB back to the system after every batch, which
// clears each page anew: labelling with EfficientNet-Lite0 took twice as long.
void KeepFreedMemory();

// Ends long work at Ctrl-C and SIGTERM: true once one came. A second one kills.
const std::atomic<bool>* StopOnSignals();

// "[#####.....]  50.0%"
std::string Bar(uint64_t done, uint64_t all);
// "1.3 GiB"; "3m20s", "57d08h".
std::string HumanBytes(double bytes);
std::string HumanSeconds(double seconds);

}  // namespace fkdb
