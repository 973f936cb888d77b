// SPDX-License-Identifier: Apache-2.0
#include "tools/programs.h"

#include <algorithm>
#include <array>

namespace fkdb {

const Program* FindProgram(std::string_view name) {
  static constexpr std::array kPrograms = {Program{"audit", RunAudit}, Program{"convert", RunConvert}, Program{"dump", RunDump},
                                           Program{"merge", RunMerge}, Program{"share", RunShare},
                                           Program{"subset", RunSubset}, Program{"verify", RunVerify}};
  const auto found = std::find_if(kPrograms.begin(), kPrograms.end(), [&](const Program& program) { return program.name == name; });
  return found == kPrograms.end() ? nullptr : &*found;
}

}  // namespace fkdb
