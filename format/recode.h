// SPDX-License-Identifier: Apache-2.0
// From the labels of one spec to those of another that says no more: another encoding, fewer of
// the K, a simpler kind; fewer crops, or more.
#pragma once

#include <string_view>

#include "format/label_spec.h"
#include "format/record.h"
#include "format/result.h"

namespace fkdb {

// What a user asks for, e.g. "packed", "hard", "marginal-smoothing,top-k=3,f16": a kind, an encoding
// and a K in any order, each at most once; what is not named stays as in `from`. Errors:
// InvalidArgument (not understood, or a kind that cannot be derived from the stored one).
//
//   from                 can become
//   full                 full, hard, smoothing, marginal-smoothing, marginal-renorm
//   marginal-smoothing   hard, smoothing, marginal-smoothing and marginal-renorm of the same K or less
//   marginal-renorm      hard, marginal-renorm of the same K or less; unless packed, what
//                        marginal-smoothing can become, too: the stored numbers are the same
//   smoothing            smoothing, hard
//   hard, logits         itself
//   label-map            itself, of the same K
Result<LabelSpec> ParseRecode(const LabelSpec& from, std::string_view recode);

// `record`, labelled under `from`, under `to` = ParseRecode(from, ..).
Record RecodeRecord(const LabelSpec& from, const LabelSpec& to, Record record);

// Only its first `crops` crops; all of them if it has no more.
Record FirstCrops(const LabelSpec& spec, Record record, uint32_t crops);

// The crops of `record`, then those of `more`: labels of the same image under one spec.
Record AppendCrops(Record record, const Record& more);

}  // namespace fkdb
