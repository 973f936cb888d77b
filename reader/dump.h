// SPDX-License-Identifier: Apache-2.0
// What fkdb-dump shows, as JSON text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "format/result.h"
#include "reader/reader.h"

namespace fkdb {

struct DumpOptions {
  std::optional<uint32_t> crop;  // this one only
  bool dense = false;            // add the recovered label of all C classes
  std::optional<float> tau;      // of the softmax that recovers logits
};

// The fields of DESIGN "Commands": key, ordinal, width, height, class, kind, box_unit, crops [box,
// flip, ops, indices, values, dense]; of a skipped image also skipped: the reason.
// Errors: NotFound (ordinal or crop), InvalidArgument (dense logits without tau), Corruption.
Result<std::string> DumpImage(const Reader& reader, uint64_t ordinal, const DumpOptions& options = {});

// A floating-point number in the fewest digits that read back as the same float.
std::string ShortestFloat(float value);

}  // namespace fkdb
