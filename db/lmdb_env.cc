// SPDX-License-Identifier: Apache-2.0
#include "db/lmdb_env.h"

#include <fmt/format.h>

#include <cerrno>

namespace fkdb {

tl::unexpected<Error> LmdbFail(int code, const char* what) {
  const bool full = code == ENOSPC || code == EDQUOT || code == EFBIG || code == ENOMEM;
  const bool broken = code == MDB_CORRUPTED || code == MDB_PAGE_NOTFOUND || code == MDB_INVALID;
  return Fail(full     ? ErrorCode::kResourceExhausted
              : broken ? ErrorCode::kCorruption
                       : ErrorCode::kIoError,
              fmt::format("cannot {}: {}", what, mdb_strerror(code)));
}

Result<EnvPtr> OpenEnv(const std::filesystem::path& path, unsigned flags, size_t map_size) {
  MDB_env* raw = nullptr;
  if (const int rc = mdb_env_create(&raw)) return LmdbFail(rc, "create an LMDB environment");
  EnvPtr env(raw);
  if (const int rc = mdb_env_set_maxdbs(raw, 8)) return LmdbFail(rc, "set up LMDB");
  if (map_size > 0) {
    if (const int rc = mdb_env_set_mapsize(raw, map_size)) return LmdbFail(rc, "set the map size");
  }
  if (const int rc = mdb_env_open(raw, path.c_str(), flags | MDB_NOSUBDIR, 0664)) {
    return LmdbFail(rc, "open the LMDB file");
  }
  return env;
}

Result<TxnPtr> BeginTxn(MDB_env* env, unsigned flags) {
  MDB_txn* txn = nullptr;
  int rc = mdb_txn_begin(env, nullptr, flags, &txn);
  if (rc == MDB_MAP_RESIZED) {  // another process grew the file: take its size
    mdb_env_set_mapsize(env, 0);
    rc = mdb_txn_begin(env, nullptr, flags, &txn);
  }
  if (rc) return LmdbFail(rc, "begin an LMDB transaction");
  return TxnPtr(txn);
}

Result<MDB_dbi> OpenDatabase(MDB_txn* txn, const char* name, unsigned flags) {
  MDB_dbi dbi;
  const int rc = mdb_dbi_open(txn, name, flags, &dbi);
  if (rc == MDB_NOTFOUND) {
    return Fail(ErrorCode::kCorruption, fmt::format("not a label set: it has no database '{}'", name));
  }
  if (rc) return LmdbFail(rc, fmt::format("open database '{}'", name).c_str());
  return dbi;
}

OrdinalKey::OrdinalKey(uint64_t ordinal) {
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(ordinal >> (56 - 8 * i));
}

bool ParseOrdinalKey(std::span<const std::byte> key, uint64_t* ordinal) {
  if (key.size() != 8) return false;
  *ordinal = 0;
  for (const std::byte b : key) *ordinal = *ordinal << 8 | static_cast<uint8_t>(b);
  return true;
}

}  // namespace fkdb
