// SPDX-License-Identifier: Apache-2.0
#define FKDB_SHA256_LANES Sha256LanesAvx512
#define FKDB_SHA256_WIDTH 16
#include "db/sha256_lanes.cc"
