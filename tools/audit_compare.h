// SPDX-License-Identifier: Apache-2.0
// fkdb-audit --compare A B: the paper's analysis of labels by their cross-entropies (Eq. 2, Fig. 3).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "format/result.h"
#include "tools/cli.h"

namespace fkdb {

struct CompareFlags {
  std::vector<std::string> sets;  // A, B; empty: nothing is compared
  std::string svg;                // a plot; empty: none
  uint64_t limit = 0;
  int threads = 1;
};

void AddCompareFlags(CLI::App& app, CompareFlags* flags);

// Errors: InvalidArgument (a plot that is no .svg), those of Reader::Open and CompareLabels.
Result<int> RunCompare(const CompareFlags& flags, const CommonFlags& common);

}  // namespace fkdb
