// SPDX-License-Identifier: Apache-2.0
// The processes that a launcher started together: torchrun, srun or mpirun.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "format/result.h"
#include "writer/shared_store.h"

namespace fkdb {

struct Launch {
  int rank = 0, ranks = 1;              // of this process, of all
  int local_rank = 0, local_ranks = 1;  // on this machine
  std::string address;                  // where the store is
  uint16_t port = 29500;
  bool has_store = false;               // the launcher's own; else rank 0 makes one
  int restarts = 0;                     // how often the launcher started all of them again
  std::string job;                      // the launcher's name for them; or empty
};

// By the variables RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and without RANK by Slurm's, Open MPI's
// or PMI's own and MASTER_ADDR. None: this process was started alone. `variable`: the value of a variable, or null (getenv).
// Errors: InvalidArgument (a variable that is missing or makes no sense).
Result<std::optional<Launch>> FindLaunch(const std::function<const char*(const char*)>& variable);

// The GPU of this process where all were told "cuda": by its local rank among those that it can see. Others stay what they are.
std::string DeviceOf(const Launch& launch, const std::string& device);

// Whether a start of these processes before this one came to MarkBegun. False where the launcher has no store that outlives them.
// Errors: those of JoinStore.
Result<bool> WasBegun(const Launch& launch, const std::string& job);
Result<void> MarkBegun(const Launch& launch, const std::string& job);

// c10d's TCP store, which all of them reach. Waits five minutes for it. `job`: tells stores of other programs apart.
// Errors: IoError (nobody there).
Result<std::unique_ptr<SharedStore>> JoinStore(const Launch& launch, const std::string& job);

}  // namespace fkdb
