// SPDX-License-Identifier: Apache-2.0
// fkdb-share diff A B: what distinguishes two label sets.
#pragma once

#include <string>

#include "format/label_spec.h"
#include "format/result.h"
#include "tools/cli.h"

namespace fkdb {

struct DiffFlags {
  std::string a, b;
};

CLI::App* AddDiffCommand(CLI::App& app, DiffFlags* flags);

// "marginal-smoothing of 1000 classes (top 5), boxes pixel, values packed", as fkdb-share info has it, too.
std::string LabelWords(const LabelSpec& spec);

// Errors: those of Reader::Open and DiffLabelSets.
Result<int> RunDiff(const DiffFlags& flags, int threads, const CommonFlags& common);

}  // namespace fkdb
