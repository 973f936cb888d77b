// SPDX-License-Identifier: Apache-2.0
// Writes a list of NumPy arrays as a pickle of protocol 2, the way Python's own pickler does.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "writer/convert/array.h"

namespace fkdb {

class PickleWriter {
 public:
  PickleWriter();
  void BeginList();
  // An array in row-major order, its values rounded to dtype: kBool, kI64, kF16 or kF32.
  void Add(DType dtype, const std::vector<uint64_t>& shape, std::span<const float> values);
  void EndList();
  std::string Finish() &&;

 private:
  void Memoize();
  void Global(const char* module_and_name);
  void Int(uint64_t value);

  std::string out_;
  uint32_t memos_ = 0;
};

}  // namespace fkdb
