// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace fkdb::test {

// How often this program has called operator new for memory of common alignment.
uint64_t Allocations();

}  // namespace fkdb::test
