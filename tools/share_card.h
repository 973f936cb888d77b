// SPDX-License-Identifier: Apache-2.0
// The datasheet of a shared label set, as model hubs show it.
#pragma once

#include <string>

#include "db/share/share_manifest.h"

namespace fkdb {

// Markdown with a YAML head: what it is, by which teacher, sizes, how to use it, its digest. `folder`: what readers shall call it.
std::string ShareCard(const ShareManifest& manifest, const std::string& folder);

}  // namespace fkdb
