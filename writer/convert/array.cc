// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/array.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <cstring>

#include "format/half.h"
#include "format/text.h"

namespace fkdb {
namespace {

struct Known {
  DType dtype;
  std::string_view name;
  size_t bytes;
};
constexpr std::array kKnown = {
    Known{DType::kBool, "b1", 1}, Known{DType::kU8, "u1", 1},    Known{DType::kI8, "i1", 1},  Known{DType::kU16, "u2", 2},
    Known{DType::kI16, "i2", 2},  Known{DType::kU32, "u4", 4},   Known{DType::kI32, "i4", 4}, Known{DType::kU64, "u8", 8},
    Known{DType::kI64, "i8", 8},  Known{DType::kF16, "f2", 2},   Known{DType::kBf16, "bf16", 2},
    Known{DType::kF32, "f4", 4},  Known{DType::kF64, "f8", 8},
};

template <class T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Calls visit(number of the element's own type).
template <class Visit>
auto Visited(DType dtype, const std::byte* at, const Visit& visit) {
  switch (dtype) {
    case DType::kBool:
      return visit(static_cast<uint8_t>(Load<uint8_t>(at) != 0));
    case DType::kU8:
      return visit(Load<uint8_t>(at));
    case DType::kI8:
      return visit(Load<int8_t>(at));
    case DType::kU16:
      return visit(Load<uint16_t>(at));
    case DType::kI16:
      return visit(Load<int16_t>(at));
    case DType::kU32:
      return visit(Load<uint32_t>(at));
    case DType::kI32:
      return visit(Load<int32_t>(at));
    case DType::kU64:
      return visit(Load<uint64_t>(at));
    case DType::kI64:
      return visit(Load<int64_t>(at));
    case DType::kF16:
      return visit(FloatFromHalf(Load<uint16_t>(at)));
    case DType::kBf16:
      return visit(FloatFromBf16(Load<uint16_t>(at)));
    case DType::kF32:
      return visit(Load<float>(at));
    case DType::kF64:
      break;
  }
  return visit(Load<double>(at));
}

// a x b, or the largest number there is.
uint64_t Times(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

uint64_t CountOf(std::span<const uint64_t> shape) {
  uint64_t count = 1;
  for (const uint64_t n : shape) {
    if (n == 0) return 0;
    count = Times(count, n);
  }
  return count;
}

}  // namespace

size_t ItemSize(DType dtype) { return kKnown[static_cast<size_t>(dtype)].bytes; }
std::string_view Name(DType dtype) { return kKnown[static_cast<size_t>(dtype)].name; }
bool IsFloat(DType dtype) { return dtype >= DType::kF16; }

Result<DType> ParseDType(std::string_view name) {
  for (const Known& known : kKnown) {
    if (known.name == name) return known.dtype;
  }
  return Fail(ErrorCode::kUnsupported, fmt::format("arrays of type '{}' are not read: expected numbers", Printable(name)));
}

Result<Array> Array::Make(DType dtype, std::vector<uint64_t> shape, std::vector<uint64_t> strides, std::span<const std::byte> bytes) {
  Array array;
  array.dtype_ = dtype;
  array.size_ = CountOf(shape);
  const uint64_t held = bytes.size() / ItemSize(dtype);
  uint64_t last = 0;  // the farthest element
  for (size_t i = 0; i < shape.size() && i < strides.size() && array.size_ > 0; ++i) {
    if (__builtin_add_overflow(last, Times(shape[i] - 1, strides[i]), &last)) last = UINT64_MAX;
  }
  if (shape.size() != strides.size() || array.size_ > held || (array.size_ > 0 && last >= held)) {
    return Fail(ErrorCode::kCorruption,
                fmt::format("an array of shape ({}) of {} does not fit its {} bytes", fmt::join(shape, ", "), Name(dtype), bytes.size()));
  }
  array.shape_ = std::move(shape);
  array.strides_ = std::move(strides);
  array.bytes_ = bytes;
  return array;
}

Result<Array> Array::Dense(DType dtype, std::vector<uint64_t> shape, bool column_major, std::span<const std::byte> bytes) {
  if (Times(CountOf(shape), ItemSize(dtype)) != bytes.size()) {
    return Fail(ErrorCode::kCorruption,
                fmt::format("an array of shape ({}) of {} has {} bytes", fmt::join(shape, ", "), Name(dtype), bytes.size()));
  }
  std::vector<uint64_t> strides(shape.size());
  uint64_t stride = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    const size_t at = column_major ? i : shape.size() - 1 - i;
    strides[at] = stride;
    stride = Times(stride, shape[at]);
  }
  return Make(dtype, std::move(shape), std::move(strides), bytes);
}

std::string Array::Shape() const { return fmt::format("({}{})", fmt::join(shape_, ", "), shape_.size() == 1 ? "," : ""); }

Array Array::Rows(uint64_t first, uint64_t count) const {
  Array rows = *this;
  if (size_ > 0) rows.bytes_ = bytes_.subspan(first * strides_[0] * ItemSize(dtype_));
  rows.shape_[0] = count;
  rows.size_ = CountOf(rows.shape_);
  return rows;
}

Array Array::Column(uint64_t at) const {
  Array column = *this;
  if (size_ > 0) column.bytes_ = bytes_.subspan(at * strides_[1] * ItemSize(dtype_));
  column.shape_.erase(column.shape_.begin() + 1);
  column.strides_.erase(column.strides_.begin() + 1);
  column.size_ = CountOf(column.shape_);
  return column;
}

template <class Take>
void Array::ForEach(const Take& take) const {
  if (size_ == 0) return;
  const size_t bytes = ItemSize(dtype_);
  std::vector<uint64_t> at(shape_.size());
  const std::byte* element = bytes_.data();
  for (uint64_t i = 0; i < size_; ++i) {
    take(element);
    for (size_t d = shape_.size(); d-- > 0;) {
      element += strides_[d] * bytes;
      if (++at[d] < shape_[d]) break;
      element -= shape_[d] * strides_[d] * bytes;
      at[d] = 0;
    }
  }
}

std::vector<float> Array::Floats() const {
  std::vector<float> values;
  values.reserve(size_);
  ForEach([&](const std::byte* at) {
    values.push_back(Visited(dtype_, at, [](auto number) { return static_cast<float>(number); }));
  });
  return values;
}

Result<std::vector<int64_t>> Array::Integers() const {
  std::vector<int64_t> values;
  values.reserve(size_);
  double bad = 0;
  bool whole = true;
  ForEach([&](const std::byte* at) {
    Visited(dtype_, at, [&](auto number) {
      constexpr double kLimit = 0x1p62;
      const auto real = static_cast<double>(number);
      if (!(real > -kLimit && real < kLimit) || real != std::trunc(real)) {
        if (whole) bad = real;
        whole = false;
      }
      values.push_back(whole ? static_cast<int64_t>(number) : 0);
    });
  });
  if (!whole) return Fail(ErrorCode::kCorruption, fmt::format("{} where a whole number belongs", bad));
  return values;
}

}  // namespace fkdb
