// SPDX-License-Identifier: Apache-2.0
// fkdb-train export RUN OUT: the weights of a training as a file of their own.
#pragma once

#include <string>

#include "format/result.h"
#include "tools/cli.h"
#include "trainer/export.h"

namespace fkdb {

struct ExportFlags {
  std::string run, out;
  ExportOptions options;
  const CLI::App* command = nullptr;  // parsed: it was asked for

  bool asked() const { return command->parsed(); }
};

// As a subcommand of `app`, whose own required flags are not asked for beside it.
void AddExportCommand(CLI::App& app, ExportFlags* flags);

// Errors: InvalidArgument (flags of a training beside it), and those of ExportWeights.
Result<int> RunExport(const CLI::App& app, const ExportFlags& flags, const CommonFlags& common);

}  // namespace fkdb
