// SPDX-License-Identifier: Apache-2.0
// Tables (writer/convert/table.h) as Parquet files, through Arrow. A build without Arrow says so.
#pragma once

#include <filesystem>
#include <memory>

#include "format/result.h"
#include "writer/convert/table.h"

namespace fkdb {

// Columns: key string or binary; box list of 4 integers or floats; flip bool; indices list of integers; values list of floats
// (lists of any size: list, large_list, fixed_size_list; of one length). A group is a row group. Errors: Unsupported (built
// without Arrow), Corruption, IoError.
Result<std::unique_ptr<TableFile>> OpenParquet(const std::filesystem::path& path);

// text_keys: all keys are UTF-8. Errors: Unsupported (built without Arrow), IoError.
Result<std::unique_ptr<TableWriter>> MakeParquetWriter(const std::filesystem::path& path, bool text_keys);

}  // namespace fkdb
