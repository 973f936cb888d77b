// SPDX-License-Identifier: Apache-2.0
// Includes Torch: for trainer's own sources only.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <string>

#include "format/result.h"
#include "trainer/launch.h"

namespace fkdb {

// The store of launch.h's JoinStore, as c10d's own.
Result<c10::intrusive_ptr<c10d::Store>> JoinC10dStore(const Launch& launch, const std::string& job);

}  // namespace fkdb
