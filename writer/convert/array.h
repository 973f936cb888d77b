// SPDX-License-Identifier: Apache-2.0
// An array of a label file, as NumPy or PyTorch stored it: a view of bytes that others own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/result.h"

namespace fkdb {

enum class DType : uint8_t { kBool, kU8, kI8, kU16, kI16, kU32, kI32, kU64, kI64, kF16, kBf16, kF32, kF64 };

size_t ItemSize(DType dtype);
std::string_view Name(DType dtype);  // as NumPy spells it: "f4", "i8", "b1"
bool IsFloat(DType dtype);
// Errors: Unsupported (none of the above; complex numbers, objects, text).
Result<DType> ParseDType(std::string_view name);

class Array {
 public:
  Array() = default;
  // strides: in elements, one a dimension. Errors: Corruption (an element outside `bytes`; negative strides;
  // more elements than `bytes` holds).
  static Result<Array> Make(DType dtype, std::vector<uint64_t> shape, std::vector<uint64_t> strides, std::span<const std::byte> bytes);
  // Row-major, or column-major. Errors: Corruption (`bytes` are not exactly as many as the shape asks for).
  static Result<Array> Dense(DType dtype, std::vector<uint64_t> shape, bool column_major, std::span<const std::byte> bytes);

  DType dtype() const { return dtype_; }
  const std::vector<uint64_t>& shape() const { return shape_; }
  uint64_t size() const { return size_; }
  bool Is(std::initializer_list<uint64_t> shape) const { return std::vector<uint64_t>(shape) == shape_; }
  std::string Shape() const;  // "(200, 2, 5)"

  // Rows [first, first + count) of the first dimension; of the second, the one at `at`: (A, B, ..) to (A, ..).
  Array Rows(uint64_t first, uint64_t count) const;
  Array Column(uint64_t at) const;

  // The elements in row-major order. Floats: those of 64 bits are rounded. Errors: Corruption (Integers: a
  // number that is not whole; says which).
  std::vector<float> Floats() const;
  Result<std::vector<int64_t>> Integers() const;

 private:
  template <class Take>
  void ForEach(const Take& take) const;  // take(const std::byte* element), in row-major order

  DType dtype_ = DType::kF32;
  std::vector<uint64_t> shape_, strides_;
  uint64_t size_ = 0;
  std::span<const std::byte> bytes_;
};

}  // namespace fkdb
