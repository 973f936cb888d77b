// SPDX-License-Identifier: Apache-2.0
// What the programs that make a label set share: the flags of its file, and the summary they end with.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "db/label_file_writer.h"
#include "db/manifest.h"
#include "db/rewrite.h"
#include "tools/cli.h"

namespace fkdb {

// --resume, --overwrite, --commit-seconds, --licence, --notes.
void AddOutputFlags(CLI::App& app, LabelFileWriterOptions* file, ProvenanceInfo* provenance);

// The program's name and version, and the time.
void StampProvenance(const std::string& program, ProvenanceInfo* provenance);

// What a job did to make it, if it labelled crops.
struct MadeBy {
  uint64_t crops;
  double seconds;
};
// The summary on stdout: one line of JSON with --json, `more` added to its fields; nothing with --quiet.
Result<void> PrintMade(const CommonFlags& flags, const std::filesystem::path& out, const Manifest& manifest,
                       std::optional<MadeBy> by = {}, const nlohmann::ordered_json* more = nullptr);

// The run of a program that makes a label set from others: provenance, a progress bar, a clean stop at
// Ctrl-C, the summary. `rewrite` does the work with the options it is given.
Result<int> RunRewrite(const std::string& program, const CommonFlags& flags, const std::filesystem::path& out,
                       RewriteOptions* options, const std::function<Result<Manifest>()>& rewrite);

}  // namespace fkdb
