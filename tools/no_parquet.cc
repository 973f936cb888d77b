// SPDX-License-Identifier: Apache-2.0
// parquet_table.h where there is no Arrow.
#include "tools/parquet_table.h"

namespace fkdb {
namespace {

tl::unexpected<Error> NoArrow() {
  return Fail(ErrorCode::kUnsupported, "this build has no Parquet: build with -DFKDB_PARQUET=ON, or use npz, which has the same columns");
}

}  // namespace

Result<std::unique_ptr<TableFile>> OpenParquet(const std::filesystem::path&) { return NoArrow(); }
Result<std::unique_ptr<TableWriter>> MakeParquetWriter(const std::filesystem::path&, bool) { return NoArrow(); }

}  // namespace fkdb
