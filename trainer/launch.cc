// SPDX-License-Identifier: Apache-2.0
#include "trainer/launch.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstring>
#include <string_view>

namespace fkdb {
namespace {

// How launchers call what Launch has.
struct Names {
  const char *rank, *ranks, *local_rank, *local_ranks;
};
constexpr Names kTorch = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr std::array kOthers = {
    Names{"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"},
    Names{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    Names{"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};

}  // namespace

Result<std::optional<Launch>> FindLaunch(const std::function<const char*(const char*)>& variable) {
  // A number from `least` on, or `missing` where there is none.
  const auto number = [&](const char* name, int least, int missing) -> Result<int> {
    const char* text = variable(name);
    if (text == nullptr || *text == '\0') return missing;
    int value = 0;
    const char* const end = text + std::strlen(text);
    if (std::from_chars(text, end, value).ptr == end && value >= least) return value;
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}='{}': expected a number from {} on", name, text, least));
  };
  const Names* names = variable(kTorch.rank) != nullptr ? &kTorch : nullptr;
  for (const Names& other : kOthers) {
    if (names == nullptr && variable(other.rank) != nullptr && variable(other.ranks) != nullptr) names = &other;
  }
  if (names == nullptr) return std::optional<Launch>();

  Launch launch;
  FKDB_ASSIGN(launch.rank, number(names->rank, 0, 0));
  FKDB_ASSIGN(launch.ranks, number(names->ranks, 1, 0));
  FKDB_ASSIGN(launch.local_rank, number(names->local_rank, 0, 0));
  FKDB_ASSIGN(launch.local_ranks, number(names->local_ranks, 1, 1));
  FKDB_ASSIGN(launch.restarts, number("TORCHELASTIC_RESTART_COUNT", 0, 0));
  FKDB_ASSIGN(const int port, number("MASTER_PORT", 1, launch.port));
  launch.port = static_cast<uint16_t>(port);
  const char* const address = variable("MASTER_ADDR");
  if (address != nullptr) launch.address = address;
  for (const char* name : {"TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID"}) {
    if (const char* text = variable(name)) launch.job += fmt::format("{}/", text);
  }
  const char* const agent = variable("TORCHELASTIC_USE_AGENT_STORE");
  launch.has_store = agent != nullptr && std::string_view(agent) == "True";

  const bool is_torch = names == &kTorch;
  // Slurm and MPI set theirs for single processes, too.
  if (!is_torch && launch.address.empty() && launch.ranks <= 1) return std::optional<Launch>();
  if (launch.ranks == 0) return Fail(ErrorCode::kInvalidArgument, fmt::format("{} is set, and {} is not: a launcher sets both", names->rank, names->ranks));
  if (launch.rank >= launch.ranks) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}={} of {}={}: ranks begin at 0", names->rank, launch.rank, names->ranks, launch.ranks));
  }
  if (launch.address.empty()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{} processes were started together ({}), but MASTER_ADDR is not set: export it, the name of rank 0's machine",
                                                         launch.ranks, names->ranks));
  }
  if (port > 65535) return Fail(ErrorCode::kInvalidArgument, fmt::format("MASTER_PORT={}: expected at most 65535", port));
  return std::optional(std::move(launch));
}

}  // namespace fkdb
