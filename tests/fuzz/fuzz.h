// SPDX-License-Identifier: Apache-2.0
// A fuzz target: LLVMFuzzerTestOneInput takes any bytes, Seeds gives inputs to start from. With clang
// and -DFKDB_LIBFUZZER=ON libFuzzer drives it; otherwise driver.cc does, so that targets cannot rot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace fkdb::fuzz {

std::vector<std::string> Seeds();

}  // namespace fkdb::fuzz
