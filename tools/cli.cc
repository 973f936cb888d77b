// SPDX-License-Identifier: Apache-2.0
#include "tools/cli.h"

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <exception>

namespace fkdb {
namespace {

std::atomic<bool> stop = false;

void OnSignal(int signal) {
  stop = true;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void KeepFreedMemory() {
#ifdef __GLIBC__
  ::mallopt(M_ARENA_MAX, 1);        // the others are made of pieces of 64 MiB: too small for activations
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, -1);  // never
#endif
}

const std::atomic<bool>* StopOnSignals() {
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  return &stop;
}

int ExitCodeOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return kExitUsage;
    case ErrorCode::kCorruption:
      return kExitVerificationFailed;
    case ErrorCode::kUnsupported:
      return kExitIncompatible;
    case ErrorCode::kLocked:
      return kExitLocked;
    case ErrorCode::kIncomplete:
      return kExitIncomplete;
    case ErrorCode::kMismatch:
      return kExitMismatch;
    case ErrorCode::kNotFound:
    case ErrorCode::kAlreadyExists:
    case ErrorCode::kIoError:
    case ErrorCode::kResourceExhausted:
    case ErrorCode::kModel:
    case ErrorCode::kCuda:
      break;
  }
  return kExitRuntimeError;
}

void AddCommonFlags(CLI::App& app, CommonFlags* flags, const std::string& json_help) {
  app.set_version_flag("--version", app.get_name() + " " FKDB_VERSION);
  if (!json_help.empty()) app.add_flag("--json", flags->json, json_help);
  app.add_flag("--quiet", flags->quiet, "Say nothing but results and errors");
  app.get_formatter()->column_width(34);
}

int RunTool(CLI::App& app, int argc, char** argv, const std::function<Result<int>()>& body, MoreArguments* more) {
  const auto complain = [&](const std::string& message) {
    // One line, whatever a library put into its message.
    std::string line = message.substr(0, message.find('\n'));
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), line.c_str());
  };
  const auto fail = [&](const Error& error) {
    complain(error.message);
    return ExitCodeOf(error.code);
  };
  try {
    try {
      if (more != nullptr) {
        auto arguments = more->Expand({argv + 1, argv + argc});
        if (!arguments) return fail(arguments.error());
        std::ranges::reverse(*arguments);  // the parser takes them from the end
        app.parse(std::move(*arguments));
      } else {
        app.parse(argc, argv);
      }
    } catch (const CLI::ParseError& e) {
      if (e.get_exit_code() == 0) {  // --help, --version
        app.exit(e);
        return kExitOk;
      }
      complain((more != nullptr ? more->About(e.what()) : e.what()) + std::string(" (see --help)"));
      return kExitUsage;
    }
    const Result<int> result = body();
    if (result) return *result;
    return fail(result.error());
  } catch (const std::bad_alloc&) {
    complain("out of memory");
  } catch (const std::exception& e) {
    complain(e.what());
  }
  return kExitRuntimeError;
}

Result<void> PrintOut(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return {};
  return Fail(ErrorCode::kIoError, "cannot write to stdout");
}

Progress::Progress(bool quiet) : enabled_(!quiet && ::isatty(STDERR_FILENO) == 1) {}

void Progress::Show(const std::string& line) {
  if (!enabled_) return;
  std::fprintf(stderr, "\r\x1b[K%s", line.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::Count(uint64_t done, uint64_t all, const std::string& unit) {
  if (!enabled_) return;
  const auto now = std::chrono::steady_clock::now();
  if (!begun_ || done < last_) {
    begun_ = now;
    first_ = done;
  }
  last_ = done;
  const double seconds = std::chrono::duration<double>(now - *begun_).count();
  const double rate = static_cast<double>(done - first_) / std::max(seconds, 1e-3);
  const auto amount = [&](double n) { return unit == "bytes" ? HumanBytes(n) : fmt::format("{:.0f}", n); };
  const std::string what = unit == "bytes" ? "" : " " + unit;
  std::string line = Bar(done, all);
  if (!unit.empty()) line += fmt::format("  {} of {}{}", amount(static_cast<double>(done)), amount(static_cast<double>(all)), what);
  if (!unit.empty() && rate > 0) line += fmt::format(", {}{}/s", amount(rate), what);
  if (rate > 0) line += fmt::format("  {} left", HumanSeconds(static_cast<double>(all - std::min(all, done)) / rate));
  Show(line);
}

void Progress::Say(const std::string& text) {
  if (enabled_) std::fputs(text.c_str(), stderr);
}

void Progress::Done() {
  if (drawn_) std::fputs("\n", stderr);
  drawn_ = false;
}

std::string Bar(uint64_t done, uint64_t all) {
  constexpr uint64_t kCells = 20;
  const double share = all == 0 ? 1 : static_cast<double>(std::min(done, all)) / static_cast<double>(all);
  const auto full = static_cast<size_t>(share * kCells);
  return fmt::format("[{}{}] {:5.1f}%", std::string(full, '#'), std::string(kCells - full, '.'), 100 * share);
}

std::string HumanBytes(double bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < kUnits.size(); ++unit) bytes /= 1024;
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 2, kUnits[unit]);
}

std::string HumanSeconds(double seconds) {
  const auto s = static_cast<long>(std::clamp(seconds, 0.0, 1e9) + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 100 * 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  return fmt::format("{}d{:02}h", s / 86400, s / 3600 % 24);
}

}  // namespace fkdb
