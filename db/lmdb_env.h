// SPDX-License-Identifier: Apache-2.0
// Owners of LMDB's handles. Internal to db/: nothing outside it includes this.
#pragma once

#include <lmdb.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "format/result.h"

namespace fkdb {

struct CloseEnv {
  void operator()(MDB_env* env) const { mdb_env_close(env); }
};
using EnvPtr = std::unique_ptr<MDB_env, CloseEnv>;

struct AbortTxn {
  void operator()(MDB_txn* txn) const { mdb_txn_abort(txn); }
};
using TxnPtr = std::unique_ptr<MDB_txn, AbortTxn>;  // aborts unless released to mdb_txn_commit

// An LMDB return code as an Error; `what` says what was being done. ENOSPC, EDQUOT and EFBIG are
// ResourceExhausted.
tl::unexpected<Error> LmdbFail(int code, const char* what);

// Opens the single file `path` (MDB_NOSUBDIR is added) with room for our named databases.
Result<EnvPtr> OpenEnv(const std::filesystem::path& path, unsigned flags, size_t map_size);
Result<TxnPtr> BeginTxn(MDB_env* env, unsigned flags);
Result<MDB_dbi> OpenDatabase(MDB_txn* txn, const char* name, unsigned flags);

// Big-endian keys sort as their numbers do.
struct OrdinalKey {
  explicit OrdinalKey(uint64_t ordinal);
  MDB_val val() { return {sizeof bytes, bytes}; }
  uint8_t bytes[8];
};
// False if the key is not one.
bool ParseOrdinalKey(std::span<const std::byte> key, uint64_t* ordinal);

inline std::span<const std::byte> Bytes(const MDB_val& value) {
  return {static_cast<const std::byte*>(value.mv_data), value.mv_size};
}
inline MDB_val Value(std::span<const std::byte> bytes) {
  return {bytes.size(), const_cast<std::byte*>(bytes.data())};
}

}  // namespace fkdb
