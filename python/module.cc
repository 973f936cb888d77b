// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <thread>

#include "python/bind.h"

namespace fkdb::python {
namespace {

const char* NameOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound: return "NotFoundError";
    case ErrorCode::kAlreadyExists: return "AlreadyExistsError";
    case ErrorCode::kCorruption: return "CorruptionError";
    case ErrorCode::kUnsupported: return "UnsupportedError";
    case ErrorCode::kInvalidArgument: return "InvalidArgumentError";
    case ErrorCode::kIoError: return "IoError";
    case ErrorCode::kResourceExhausted: return "ResourceExhaustedError";
    case ErrorCode::kLocked: return "LockedError";
    case ErrorCode::kIncomplete: return "IncompleteError";
    case ErrorCode::kMismatch: return "MismatchError";
    case ErrorCode::kModel: return "ModelError";
    case ErrorCode::kCuda: return "CudaError";
  }
  return "Error";
}

std::atomic<bool> exiting = false;
std::atomic<int> returning = 0;
std::atomic<std::thread::id> exiting_thread;

}  // namespace

void GilGate::Return(PyThreadState* state) {
  ++returning;
  if (exiting && exiting_thread.load() != std::this_thread::get_id()) {
    --returning;
    for (;;) std::this_thread::sleep_for(std::chrono::hours(24));
  }
  PyEval_RestoreThread(state);
  --returning;
}

void GilGate::Exit() {
  exiting_thread = std::this_thread::get_id();
  exiting = true;
  PyThreadState* const state = Leave();
  // Not for ever: a forked child has the count of threads that it does not have.
  for (int i = 0; returning != 0 && i < 20000; ++i) std::this_thread::sleep_for(std::chrono::microseconds(50));
  PyEval_RestoreThread(state);
}

void Raise(const Error& error) {
  const nb::object type = nb::module_::import_("fkdb._errors").attr(NameOf(error.code));
  PyErr_SetObject(type.ptr(), ToPython(std::string_view(error.message)).ptr());
  throw nb::python_error();
}

nb::str ToPython(std::string_view bytes) {
  PyObject* text = PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogateescape");
  if (text == nullptr) throw nb::python_error();
  return nb::steal<nb::str>(text);
}

TextList ToPython(std::span<const std::string> texts) {
  TextList list;
  for (const std::string& text : texts) list.append(ToPython(std::string_view(text)));
  return list;
}

std::string FromPython(nb::handle text) {
  if (PyBytes_Check(text.ptr())) {
    const auto raw = nb::cast<nb::bytes>(text);
    return {raw.c_str(), raw.size()};
  }
  if (!PyUnicode_Check(text.ptr())) {
    throw nb::type_error("expected text or bytes");
  }
  const nb::object bytes = nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "surrogateescape"));
  if (!bytes.is_valid()) throw nb::python_error();
  const auto& raw = nb::cast<nb::bytes>(bytes);
  return {raw.c_str(), raw.size()};
}

std::vector<std::string> FromPython(const nb::iterable& texts) {
  if (PyUnicode_Check(texts.ptr()) || PyBytes_Check(texts.ptr())) throw nb::type_error("expected several texts, got one");
  std::vector<std::string> all;
  for (const nb::handle text : texts) all.push_back(FromPython(text));
  return all;
}

Result<std::vector<PixelBox>> BoxesFrom(const ArrayIn<int64_t, 2>& boxes) {
  if (boxes.shape(1) != 4) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("boxes of {} numbers: expected (M, 4), top, left, height, width", boxes.shape(1)));
  }
  std::vector<PixelBox> out(boxes.shape(0));
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t* box = boxes.data() + 4 * i;
    for (size_t side = 0; side < 4; ++side) {
      if (box[side] < 0 || box[side] > std::numeric_limits<uint32_t>::max()) {
        return Fail(ErrorCode::kInvalidArgument,
                    fmt::format("box {}: [{}, {}, {}, {}] is not of pixels", i, box[0], box[1], box[2], box[3]));
      }
    }
    out[i] = {static_cast<uint32_t>(box[0]), static_cast<uint32_t>(box[1]), static_cast<uint32_t>(box[2]),
              static_cast<uint32_t>(box[3])};
  }
  return out;
}

}  // namespace fkdb::python

NB_MODULE(_core, module) {
  using namespace fkdb::python;
  nb::set_leak_warnings(false);  // workers of a DataLoader end without taking anything down
  module.doc() = "The C++ side of fkdb; use the package's own classes.";
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&GilGate::Exit));
  BindLabelSet(module);
  BindRecord(module);
  BindBatch(module);
  BindLabels(module);
  BindPixels(module);
  BindLoader(module);
  BindWriter(module);
  BindJobs(module);
}
