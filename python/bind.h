// SPDX-License-Identifier: Apache-2.0
// What the sources of the extension module fkdb._core share. Each binds one header's worth of the
// library; the classes that users see are Python's (python/fkdb/).
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "db/preload.h"
#include "format/box.h"
#include "format/result.h"
#include "image/ordered_queue.h"
#include "reader/label_batch.h"
#include "reader/reader.h"

namespace fkdb::python {

namespace nb = nanobind;

// Raises the exception of fkdb._errors that the error's code names. Needs the GIL.
[[noreturn]] void Raise(const Error& error);

template <class T>
T Unwrap(Result<T> result) {
  if (!result) Raise(result.error());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// Where a thread waits to have the GIL back. A thread that wants it while the interpreter ends would be
// killed inside a destructor, which ends the process: once Exit was called (by atexit), threads other than
// its own stop here for good, and none is on its way any more.
class GilGate {
 public:
  static void Exit();
  static PyThreadState* Leave() { return PyEval_SaveThread(); }
  static void Return(PyThreadState* state);
};

// Runs `work`, which does not throw, without the GIL.
template <class Work>
auto Released(const Work& work) {
  PyThreadState* const state = GilGate::Leave();
  if constexpr (std::is_void_v<decltype(work())>) {
    work();
    GilGate::Return(state);
  } else {
    auto result = work();
    GilGate::Return(state);
    return result;
  }
}

// The same of work that returns a Result, whose error is raised.
template <class Work>
auto WithoutGil(const Work& work) {
  return Unwrap(Released([&] { return Guarded(work); }));
}

// Owns something that has threads, which a fork does not take along: a child never destroys it.
template <class T>
class InItsProcess {
 public:
  explicit InItsProcess(std::unique_ptr<T> object) : object_(std::move(object)), process_(::getpid()) {}
  InItsProcess(InItsProcess&&) = default;
  InItsProcess& operator=(InItsProcess&&) = delete;
  ~InItsProcess() {
    if (::getpid() != process_) static_cast<void>(object_.release());
  }
  bool here() const { return ::getpid() == process_; }
  T* operator->() const { return object_.get(); }
  T& operator*() const { return *object_; }

 private:
  std::unique_ptr<T> object_;
  pid_t process_;
};

// A label set that Python holds; views of its records share it.
struct OpenLabelSet {
  Reader reader;
  std::optional<InItsProcess<Preloader>> preloader;
};
using LabelSetPtr = std::shared_ptr<OpenLabelSet>;

// A batch's labels as Python's arrays show them: indices and values expanded.
struct ExpandedBatch {
  LabelBatch labels;
  LabelArrays arrays;

  void Expand();
};

// Keys and names are raw bytes; what is not UTF-8 travels in Python's surrogates, as file names do.
nb::str ToPython(std::string_view bytes);
using TextList = nb::typed<nb::list, nb::str>;
TextList ToPython(std::span<const std::string> texts);
std::string FromPython(nb::handle text);
std::vector<std::string> FromPython(const nb::iterable& texts);

// Arrays that come in: on the host, C-contiguous, of this very type.
template <class T, size_t Dimensions>
using ArrayIn = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
// Arrays that go out: numpy's, of memory that `owner` keeps alive; those of const T are read-only.
template <class T>
using ArrayOut = nb::ndarray<nb::numpy, T>;

// An array of some type, for signatures.
class AnyArray : public nb::object {
 public:
  NB_OBJECT_DEFAULT(AnyArray, nb::object, "numpy.typing.NDArray", PyObject_CheckBuffer)
};
template <class Array>
AnyArray ToAny(Array&& array) {
  return nb::borrow<AnyArray>(nb::cast(std::forward<Array>(array)));
}

template <class T>
ArrayOut<T> View(T* data, std::initializer_list<size_t> shape, nb::handle owner) {
  return ArrayOut<T>(data, shape, owner);
}
// The array owns what is moved into it.
template <class T>
AnyArray Owned(std::vector<T> values, std::initializer_list<size_t> shape) {
  auto* kept = new std::vector<T>(std::move(values));
  const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return ToAny(ArrayOut<T>(kept->data(), shape, owner));
}

// One byte a truth value, as numpy's own type.
inline AnyArray AsBool(const AnyArray& bytes) { return nb::borrow<AnyArray>(bytes.attr("view")("bool")); }

// boxes (M, 4) of top, left, height, width. Errors: InvalidArgument (a number that is no pixel's).
Result<std::vector<PixelBox>> BoxesFrom(const ArrayIn<int64_t, 2>& boxes);

void BindLabelSet(nb::module_& module);
void BindRecord(nb::module_& module);
void BindBatch(nb::module_& module);
void BindLabels(nb::module_& module);
void BindPixels(nb::module_& module);
void BindLoader(nb::module_& module);
void BindWriter(nb::module_& module);
void BindJobs(nb::module_& module);

}  // namespace fkdb::python
