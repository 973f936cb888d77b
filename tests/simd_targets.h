// SPDX-License-Identifier: Apache-2.0
// Runs a test once for each instruction set that this processor has and the code was compiled for.
#pragma once

#define HWY_WANT_AVX3_DL  // as the code under test
#include <gtest/gtest.h>

#include <hwy/highway.h>

namespace fkdb::test {

template <class Body>
void ForEachSimdTarget(Body body) {
  const auto use = [](int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  };
  const auto targets = hwy::SupportedAndGeneratedTargets();
  EXPECT_FALSE(targets.empty());
  for (const int64_t target : targets) {
    SCOPED_TRACE(hwy::TargetName(target));
    use(target);
    body();
  }
  use(0);  // whatever there is
}

}  // namespace fkdb::test
