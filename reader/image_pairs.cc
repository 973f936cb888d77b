// SPDX-License-Identifier: Apache-2.0
#include "reader/image_pairs.h"

#include <fmt/format.h>

#include <optional>

namespace fkdb {

Result<void> KeyCursor::Next() {
  const auto about = [&](ErrorCode code, const std::string& what) {
    return Fail(code, fmt::format("{}: {}", reader_.label_set().path().string(), what));
  };
  next_ = begun_ ? next_ + 1 : 0;
  if (ended()) return {};
  FKDB_ASSIGN(std::optional<std::string> key, reader_.Key(next_));
  if (!key) return about(ErrorCode::kIncomplete, "it is not finished and has no keys yet");
  if (begun_ && *key <= key_) return about(ErrorCode::kCorruption, fmt::format("key {} is not after the one before it", next_));
  key_ = *std::move(key);
  begun_ = true;
  return {};
}

Result<void> NextPairs(size_t count, KeyCursor* a, KeyCursor* b, std::vector<ImagePair>* pairs, PairCounts* counts) {
  pairs->clear();
  while (pairs->size() < count && !(a->ended() && b->ended())) {
    const int order = a->ended() ? 1 : b->ended() ? -1 : a->key().compare(b->key());
    if (order == 0) pairs->push_back({a->ordinal(), b->ordinal()});
    ++(order == 0 ? counts->both : order < 0 ? counts->only_a : counts->only_b);
    if (order <= 0) FKDB_TRY(a->Next());
    if (order >= 0) FKDB_TRY(b->Next());
  }
  return {};
}

}  // namespace fkdb
