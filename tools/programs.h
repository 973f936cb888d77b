// SPDX-License-Identifier: Apache-2.0
// The programs as functions from arguments to an exit code: what their mains run, and the Python package.
#pragma once

#include <string_view>

namespace fkdb {

int RunAudit(int argc, char** argv);
int RunConvert(int argc, char** argv);
int RunDump(int argc, char** argv);
int RunMerge(int argc, char** argv);
int RunShare(int argc, char** argv);
int RunSubset(int argc, char** argv);
int RunVerify(int argc, char** argv);
// These need Torch.
int RunTrain(int argc, char** argv);
int RunWrite(int argc, char** argv);

struct Program {
  std::string_view name;  // "dump" of fkdb-dump
  int (*run)(int argc, char** argv);
};
// Of those that need no Torch; null if there is none of this name.
const Program* FindProgram(std::string_view name);

}  // namespace fkdb
