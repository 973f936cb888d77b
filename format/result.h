// SPDX-License-Identifier: Apache-2.0
// How every library of fkdb reports failure: a value or an Error, never an exception, never a
// print. The message is one line for a person: file, key, expected, got, what to do.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace fkdb {

enum class ErrorCode {
  kNotFound,           // no such file, folder or key
  kAlreadyExists,      // an output that would be overwritten
  kCorruption,         // bytes that are not what they claim to be
  kUnsupported,        // written by a newer version, or a feature this build lacks
  kInvalidArgument,    // the caller asked for something that makes no sense
  kIoError,            // the operating system refused a read or a write
  kResourceExhausted,  // disk full, out of memory, over a limit
  kLocked,             // another writer is at work
  kIncomplete,         // a `.partial` where a finished label set is needed
  kMismatch,           // label set and data set do not belong together
  kModel,              // a network failed to load or run, or gave NaN
  kCuda,               // the CUDA runtime reported an error
};

struct [[nodiscard]] Error {
  ErrorCode code;
  std::string message;
};

// A T or an Error. The one type of a third party that our public headers show.
template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using Base = tl::expected<T, Error>;
  using Base::Base;
  Result(Base base) : Base(std::move(base)) {}  // NOLINT: monadic calls return the base
};

inline tl::unexpected<Error> Fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}
inline tl::unexpected<Error> Fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

}  // namespace fkdb

#define FKDB_CONCAT_INNER(a, b) a##b
#define FKDB_CONCAT(a, b) FKDB_CONCAT_INNER(a, b)

// Returns the error of a Result<void>-like expression from the enclosing function.
#define FKDB_TRY(expr)                                                       \
  do {                                                                       \
    if (auto fkdb_result = (expr); !fkdb_result)                             \
      return ::fkdb::Fail(std::move(fkdb_result).error());                   \
  } while (false)

// Declares `lhs` from a Result, or returns its error from the enclosing function.
#define FKDB_ASSIGN(lhs, expr) FKDB_ASSIGN_IMPL(FKDB_CONCAT(fkdb_result_, __LINE__), lhs, expr)
#define FKDB_ASSIGN_IMPL(tmp, lhs, expr)                          \
  auto tmp = (expr);                                              \
  if (!tmp) return ::fkdb::Fail(std::move(tmp).error());          \
  lhs = std::move(*tmp)
