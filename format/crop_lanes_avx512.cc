// SPDX-License-Identifier: Apache-2.0
#define FKDB_DRAW_LANES DrawLanesAvx512
#include "format/crop_lanes.cc"
