// SPDX-License-Identifier: Apache-2.0
// Which networks fkdb builds itself. Without Torch, for help texts and messages.
#pragma once

#include <string>
#include <string_view>

namespace fkdb {

bool IsModelName(std::string_view name);
// "resnet18, .., resnet6-wN (N channels in its first layer, 1 to 1024)"
std::string ModelNames();

}  // namespace fkdb
