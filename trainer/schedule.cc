// SPDX-License-Identifier: Apache-2.0
#include "trainer/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace fkdb {
namespace {

constexpr std::string_view kDecays[] = {"cosine", "linear", "step", "constant"};

}  // namespace

std::string_view Name(Decay decay) { return kDecays[static_cast<size_t>(decay)]; }

Result<Decay> ParseDecay(std::string_view name) {
  const auto found = std::ranges::find(kDecays, name);
  if (found != std::end(kDecays)) return static_cast<Decay>(found - std::begin(kDecays));
  return Fail(ErrorCode::kInvalidArgument, fmt::format("schedule '{}': expected {}", name, fmt::join(kDecays, ", ")));
}

Result<void> Schedule::Check(uint32_t epochs) const {
  const auto bad = [](std::string what) { return Fail(ErrorCode::kInvalidArgument, std::move(what)); };
  if (!(rate >= 0) || !(min_rate >= 0) || !(warmup_rate >= 0)) return bad("learning rates: expected 0 or more");
  if (min_rate > rate) return bad(fmt::format("the learning rate {} is below the smallest, {}", rate, min_rate));
  if (warmup_epochs > epochs) return bad(fmt::format("{} warm-up epochs of {} epochs", warmup_epochs, epochs));
  if (decay == Decay::kStep && step_epochs.empty()) return bad("schedule 'step' needs the epochs of its steps");
  if (!(step_factor > 0)) return bad(fmt::format("step factor {}: expected more than 0", step_factor));
  if (!std::ranges::is_sorted(step_epochs, std::ranges::less_equal())) return bad("epochs of steps: expected each to be later than the one before");
  return {};
}

double Schedule::Rate(double epoch, uint32_t epochs) const {
  if (epoch < warmup_epochs) return warmup_rate + (rate - warmup_rate) * epoch / warmup_epochs;
  switch (decay) {
    case Decay::kCosine:
      return min_rate + (rate - min_rate) / 2 * (1 + std::cos(std::numbers::pi * epoch / epochs));
    case Decay::kLinear:
      return min_rate + (rate - min_rate) * (epochs - epoch) / epochs;
    case Decay::kStep:
      return rate * std::pow(step_factor, std::ranges::upper_bound(step_epochs, epoch) - step_epochs.begin());
    case Decay::kConstant:
      break;
  }
  return rate;
}

double Schedule::Rate(const Pass& pass, uint64_t step, uint64_t steps, uint32_t epochs) const {
  const double done = every_step ? static_cast<double>(step) / static_cast<double>(steps) : 0;
  return Rate(pass.epoch + pass.crops * done, epochs);
}

std::vector<Pass> PlanPasses(uint32_t epochs, uint32_t crops_per_image, const Schedule& schedule) {
  std::vector<Pass> passes;
  for (uint32_t epoch = 0; epoch < epochs;) {
    const uint32_t left = epochs - epoch;
    const bool tail = schedule.single_crop_tail && crops_per_image >= left;
    passes.push_back({epoch, epoch < schedule.warmup_epochs || tail ? 1 : std::min(crops_per_image, left)});
    epoch += passes.back().crops;
  }
  return passes;
}

}  // namespace fkdb
