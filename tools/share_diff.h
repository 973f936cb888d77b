// SPDX-License-Identifier: Apache-2.0
// fkdb-share diff A B: what distinguishes two label sets.
#pragma once

#include <string>

#include "format/result.h"
#include "tools/cli.h"

namespace fkdb {

struct DiffFlags {
  std::string a, b;
};

CLI::App* AddDiffCommand(CLI::App& app, DiffFlags* flags);

// Errors: those of Reader::Open and DiffLabelSets.
Result<int> RunDiff(const DiffFlags& flags, int threads, const CommonFlags& common);

}  // namespace fkdb
