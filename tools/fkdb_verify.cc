// SPDX-License-Identifier: Apache-2.0
// fkdb-verify: checks everything a label set claims, and compares it with another.
#include "reader/verify.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "tools/cli.h"
#include "tools/programs.h"

namespace fkdb {
namespace {

struct Flags : CommonFlags {
  std::string db;
  std::string against;
  int threads = std::max(1u, std::thread::hardware_concurrency());
};

Result<int> Run(const Flags& flags) {
  Progress progress(flags.quiet || flags.json);
  const auto verify = [&](const std::string& path) {
    return Verify(path, flags.threads, [&](uint64_t done, uint64_t all) { progress.Count(done, all, "images"); });
  };
  VerifyReport report = verify(flags.db);
  if (!flags.against.empty() && report.ok) {
    VerifyReport other = verify(flags.against);
    if (other.ok) {
      CompareDigests(report, other, &report);
    } else {
      report = std::move(other);
    }
  }
  progress.Done();
  if (flags.json) {
    const nlohmann::ordered_json json = {{"ok", report.ok},         {"images", report.images},
                                         {"crops", report.crops},   {"digest", report.digest},
                                         {"errors", report.errors}, {"error_count", report.error_count}};
    FKDB_TRY(PrintOut(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"));
  } else if (report.ok) {
    FKDB_TRY(PrintOut(fmt::format("ok: {} images, {} crops, {}\n", report.images, report.crops, report.digest)));
  }
  if (report.ok) return kExitOk;
  if (!flags.json) {
    for (size_t i = 0; i + 1 < report.errors.size(); ++i) fmt::print(stderr, "fkdb-verify: {}\n", report.errors[i]);
  }
  if (report.error_count > report.errors.size() && !flags.json) {
    fmt::print(stderr, "fkdb-verify: and {} more\n", report.error_count - report.errors.size());
  }
  return Fail(report.code, report.errors.back());
}

}  // namespace
}  // namespace fkdb

int fkdb::RunVerify(int argc, char** argv) {
  fkdb::Flags flags;
  CLI::App app("Checks structure, checksums, schema, meaning, counts and digest of a label set.", "fkdb-verify");
  AddCommonFlags(app, &flags, "One line of JSON");
  app.add_option("DB", flags.db, "The label set")->required();
  app.add_option("--against", flags.against, "Another label set: fail unless both have the same digest");
  app.add_option("--threads", flags.threads, "Threads")->check(CLI::Range(1, 1024))->capture_default_str();
  return fkdb::RunTool(app, argc, argv, [&] { return fkdb::Run(flags); });
}
