// SPDX-License-Identifier: Apache-2.0
// The main of every program; FKDB_PROGRAM is its function in programs.h.
#include "tools/programs.h"

int main(int argc, char** argv) { return fkdb::FKDB_PROGRAM(argc, argv); }
