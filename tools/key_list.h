// SPDX-License-Identifier: Apache-2.0
// Lists of images, as users give them.
#pragma once

#include <string>
#include <vector>

#include "format/result.h"

namespace fkdb {

// A text file's keys, one a line. Errors: NotFound, InvalidArgument (there is none in it).
Result<std::vector<std::string>> ReadKeyList(const std::string& path);

}  // namespace fkdb
