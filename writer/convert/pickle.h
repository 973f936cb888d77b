// SPDX-License-Identifier: Apache-2.0
// Reads pickles as data. A pickle is a program for a stack machine that may call any function of any
// Python module; here it can build none, numbers, text, bytes, lists, tuples, dicts, NumPy arrays and scalars,
// and PyTorch tensors, and nothing else: any other name is refused with its name, and nothing is ever called.
//
// Protocols 2 to 5. Memory is at most some seventy times the pickle's length (lists of nothing), usually less than twice. Values live as long as
// their Pickle, which borrows the bytes it was read from and those of the storages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/result.h"
#include "writer/convert/array.h"

namespace fkdb {

class PickleValue {
 public:
  enum class Type : uint8_t { kNone, kBool, kInt, kFloat, kText, kBytes, kList, kTuple, kDict, kArray, kOther };

  Type type() const { return type_; }
  bool is_none() const { return type_ == Type::kNone; }
  bool is_sequence() const { return type_ == Type::kList || type_ == Type::kTuple; }
  bool is_number() const { return type_ == Type::kBool || type_ == Type::kInt || type_ == Type::kFloat; }
  // What it is, for messages: "a list of 3", "an array f4 (200, 4)".
  std::string What() const;

  int64_t integer() const { return integer_; }               // of a bool or an int
  double real() const { return type_ == Type::kFloat ? real_ : static_cast<double>(integer_); }
  std::string_view text() const { return text_; }            // of text and bytes
  std::span<const PickleValue* const> items() const { return items_; }  // of a list or tuple; of a dict key, value, key, value
  const Array& array() const { return *array_; }
  // Of a dict with text for keys; null if there is none.
  const PickleValue* Find(std::string_view key) const;

 private:
  friend class PickleMachine;
  Type type_ = Type::kNone;
  uint8_t other_ = 0;  // what kOther is: the machine's own business
  union {
    int64_t integer_ = 0;
    double real_;
  };
  std::string_view text_;
  std::vector<const PickleValue*> items_;
  const Array* array_ = nullptr;
};

// The bytes of storage `key` of a file of PyTorch's. Errors: Corruption (no such storage).
using StorageOf = std::function<Result<std::span<const std::byte>>(std::string_view key)>;

class Pickle {
 public:
  // Errors: Corruption (no pickle, cut off, an instruction that makes no sense: says at which byte), Unsupported (a
  // name, an instruction or a protocol that a label file has no use for).
  static Result<Pickle> Read(std::span<const std::byte> bytes, const StorageOf& storage_of = {});

  const PickleValue& root() const { return *root_; }

 private:
  friend class PickleMachine;
  std::deque<PickleValue> values_;
  std::deque<Array> arrays_;
  std::deque<std::string> texts_;  // those that are not as they lie in the pickle
  const PickleValue* root_ = nullptr;
};

}  // namespace fkdb
