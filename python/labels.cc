// SPDX-License-Identifier: Apache-2.0
// Sparse labels to dense ones, and the loss of a student's logits straight from them: cuda/ on arrays.
#include <fmt/format.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <new>
#include <thread>
#include <tuple>

#include "cuda/gpu_ops.h"
#include "cuda/label_ops.h"
#include "python/bind.h"

namespace fkdb::python {
namespace {

using Indices = ArrayIn<int32_t, 2>;
using Values = ArrayIn<float, 2>;

// Labels of N rows in a caller's arrays, checked against the spec.
SparseLabels LabelsFrom(const LabelSpec& spec, const Indices& indices, const Values& values) {
  const auto bad = [](std::string message) { Raise({ErrorCode::kInvalidArgument, std::move(message)}); };
  if (indices.shape(1) != spec.num_indices() || values.shape(1) != spec.num_values()) {
    bad(fmt::format("labels of {} indices and {} values a row: expected {} and {}", indices.shape(1), values.shape(1),
                    spec.num_indices(), spec.num_values()));
  }
  if (indices.shape(0) != values.shape(0)) {
    bad(fmt::format("indices of {} rows, values of {}", indices.shape(0), values.shape(0)));
  }
  for (size_t i = 0; i < indices.size(); ++i) {
    if (static_cast<uint32_t>(indices.data()[i]) >= spec.num_classes) {
      bad(fmt::format("row {}: class {} of {}", i / spec.num_indices(), indices.data()[i], spec.num_classes));
    }
  }
  return SparseLabelsOf(spec, reinterpret_cast<const uint32_t*>(indices.data()), values.data());
}

void Recover(const LabelSpec& spec, const Indices& indices, const Values& values, float tau,
             const nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>& out) {
  const SparseLabels labels = LabelsFrom(spec, indices, values);
  if (out.shape(0) != indices.shape(0) || out.shape(1) != spec.num_classes) {
    Raise({ErrorCode::kInvalidArgument, fmt::format("out of {} x {}: expected {} x {}", out.shape(0), out.shape(1),
                                                    indices.shape(0), spec.num_classes)});
  }
  Released([&] { RecoverDense(labels, static_cast<int64_t>(indices.shape(0)), tau, out.data()); });
}

// Rows [0, rows) on several threads, as many as there is work for.
template <class Body>
void OverRows(int64_t rows, int64_t columns, int threads, const Body& body) {
  constexpr int64_t kLogitsAThread = 1 << 18;
  const int64_t parts = std::clamp<int64_t>(rows * columns / kLogitsAThread, 1, std::max(1, threads));
  std::vector<std::jthread> others;
  for (int64_t part = 1; part < parts; ++part) {
    others.emplace_back([&, part] { body(rows * part / parts, rows * (part + 1) / parts); });
  }
  body(0, rows / parts);
}

// Calls compute with a pointer of the numbers' type.
template <class Compute>
void ForNumbers(nb::dlpack::dtype type, Compute compute) {
  const auto is = [&](nb::dlpack::dtype_code code, uint8_t bits) { return type == nb::dlpack::dtype{static_cast<uint8_t>(code), bits, 1}; };
  if (is(nb::dlpack::dtype_code::Float, 32)) return compute(static_cast<float*>(nullptr));
  if (is(nb::dlpack::dtype_code::Float, 16)) return compute(static_cast<Half*>(nullptr));
  if (is(nb::dlpack::dtype_code::Bfloat, 16)) return compute(static_cast<Bf16*>(nullptr));
  Raise({ErrorCode::kInvalidArgument, "logits are neither float32, float16 nor bfloat16"});
}

// logits, gradient (N, C) of float32, float16 or bfloat16, losses (N); gradient may be logits.
using Rows = nb::ndarray<nb::ndim<2>, nb::c_contig, nb::device::cpu>;
void Loss(const LabelSpec& spec, const Indices& indices, const Values& values, const Rows& logits,
          const nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>& losses, const Rows& gradient, float temperature,
          float tau, float gradient_scale, int threads) {
  const SparseLabels labels = LabelsFrom(spec, indices, values);
  const size_t rows = logits.shape(0);
  const auto bad = [](std::string message) { Raise({ErrorCode::kInvalidArgument, std::move(message)}); };
  if (logits.shape(1) != spec.num_classes) {
    bad(fmt::format("logits of {} classes for labels of {}", logits.shape(1), spec.num_classes));
  }
  if (rows != indices.shape(0)) bad(fmt::format("logits of {} rows for labels of {}", rows, indices.shape(0)));
  if (gradient.shape(0) != rows || gradient.shape(1) != logits.shape(1) || gradient.dtype() != logits.dtype() || losses.shape(0) != rows) {
    bad("losses and gradient have another shape or type than the logits");
  }
  const LossArguments arguments = {temperature, tau, gradient_scale};
  ForNumbers(logits.dtype(), [&]<class Number>(Number*) {
    Released([&] { OverRows(static_cast<int64_t>(rows), static_cast<int64_t>(spec.num_classes), threads, [&](int64_t begin, int64_t end) {
      SoftCrossEntropy(labels, begin, end, arguments, static_cast<const Number*>(logits.data()), losses.data(),
                       static_cast<Number*>(gradient.data()));
    }); });
  });
}

template <class T, size_t kDimensions>
using OnGpu = nb::ndarray<T, nb::ndim<kDimensions>, nb::c_contig, nb::device::cuda>;
using GpuRows = nb::ndarray<nb::ndim<2>, nb::c_contig, nb::device::cuda>;

// The same on the current device: losses (N) and, if it is given, gradient (N, C), each row's times row_scales (N), if
// these are. Puts the work on `stream` and returns. Indices are not looked at: they are the device's.
void LossOnGpu(const LabelSpec& spec, const OnGpu<int32_t, 2>& indices, const OnGpu<float, 2>& values, const GpuRows& logits,
               const OnGpu<float, 1>& losses, const std::optional<GpuRows>& gradient, const std::optional<OnGpu<float, 1>>& row_scales,
               float temperature, float tau, float gradient_scale, uintptr_t stream) {
  const size_t rows = logits.shape(0);
  if (logits.shape(1) != spec.num_classes || indices.shape(0) != rows || values.shape(0) != rows ||
      indices.shape(1) != spec.num_indices() || values.shape(1) != spec.num_values() || losses.shape(0) != rows ||
      (gradient && (gradient->shape(0) != rows || gradient->shape(1) != logits.shape(1) || gradient->dtype() != logits.dtype())) ||
      (row_scales && row_scales->shape(0) != rows)) {
    Raise({ErrorCode::kInvalidArgument, "logits, labels, losses, gradient and scales do not fit together"});
  }
  const SparseLabels labels = SparseLabelsOf(spec, reinterpret_cast<const uint32_t*>(indices.data()), values.data());
  LossArguments arguments;
  arguments.temperature = temperature;
  arguments.tau = tau;
  arguments.gradient_scale = gradient_scale;
  if (row_scales) arguments.row_scales = row_scales->data();
  ForNumbers(logits.dtype(), [&]<class Number>(Number*) {
    Unwrap(gpu::SoftCrossEntropy(labels, static_cast<int64_t>(rows), arguments, static_cast<const Number*>(logits.data()), losses.data(),
                                 gradient ? static_cast<Number*>(gradient->data()) : nullptr, reinterpret_cast<GpuStream>(stream)));
  });
}

LabelSpec MakeSpec(const std::string& kind, uint32_t num_classes, uint32_t top_k, const std::optional<std::string>& values,
                   const std::string& boxes, float temperature) {
  LabelSpec spec;
  spec.kind = Unwrap(ParseLabelKind(kind));
  spec.num_classes = num_classes;
  spec.top_k = top_k;
  spec.values = values ? Unwrap(ParseValueEncoding(*values)) : spec.kind == LabelKind::kLogits ? ValueEncoding::kF16 : ValueEncoding::kPacked;
  spec.boxes = Unwrap(ParseBoxEncoding(boxes));
  spec.temperature = temperature;
  return Unwrap(CheckLabelSpec(spec));
}

}  // namespace

void BindLabels(nb::module_& module) {
  const auto state = [](const LabelSpec& spec) {
    return std::tuple(std::string(Name(spec.kind)), spec.num_classes, spec.top_k, std::string(Name(spec.values)), std::string(Name(spec.boxes)),
                      spec.temperature);
  };
  nb::class_<LabelSpec>(module, "LabelSpec", R"(What the labels of a label set are (paper section 3.5) and how they are stored.

kind: 'marginal-smoothing', 'marginal-renorm', 'smoothing', 'hard', 'full' or 'logits'.
num_classes: C; for logits the width of the teacher's output.
top_k: K of the marginal kinds.
values: 'packed' (the default; 13 bytes a crop at K = 5), 'f32' (bit-exact), 'f16'; of logits 'f16' (the default), 'bf16', 'f32'.
boxes: 'pixel'; of imports also 'fraction-f32', 'fraction-f16'.
temperature: of the softmax that made the probabilities.

Raises InvalidArgumentError, UnsupportedError (an unknown name).)")
      .def("__init__", [](LabelSpec* self, const std::string& kind, uint32_t num_classes, uint32_t top_k, const std::optional<std::string>& values,
                          const std::string& boxes, float temperature) {
             new (self) LabelSpec(MakeSpec(kind, num_classes, top_k, values, boxes, temperature));
           }, nb::arg("kind") = "marginal-smoothing", nb::kw_only(), nb::arg("num_classes"), nb::arg("top_k") = 5,
           nb::arg("values").none() = nb::none(), nb::arg("boxes") = "pixel", nb::arg("temperature") = 1.0f)
      .def("__getstate__", state)
      .def("__setstate__", [](LabelSpec& spec, const std::tuple<std::string, uint32_t, uint32_t, std::string, std::string, float>& fields) {
             const auto& [kind, num_classes, top_k, values, boxes, temperature] = fields;
             new (&spec) LabelSpec(MakeSpec(kind, num_classes, top_k, values, boxes, temperature));
           })
      .def("__hash__", [state](const LabelSpec& spec) { return nb::hash(nb::cast(state(spec))); })
      .def("__repr__", [](const LabelSpec& spec) {
        return fmt::format("LabelSpec('{}', num_classes={}, top_k={}, values='{}', boxes='{}', temperature={})", Name(spec.kind), spec.num_classes,
                           spec.top_k, Name(spec.values), Name(spec.boxes), spec.temperature);
      })
      .def_prop_ro("num_indices", &LabelSpec::num_indices)
      .def_prop_ro("num_values", &LabelSpec::num_values)
      .def_prop_ro("kind", [](const LabelSpec& spec) { return std::string(Name(spec.kind)); })
      .def_ro("num_classes", &LabelSpec::num_classes)
      .def_ro("top_k", &LabelSpec::top_k)
      .def_prop_ro("values", [](const LabelSpec& spec) { return std::string(Name(spec.values)); })
      .def_prop_ro("boxes", [](const LabelSpec& spec) { return std::string(Name(spec.boxes)); })
      .def_ro("temperature", &LabelSpec::temperature)
      .def("__eq__", [](const LabelSpec& a, const LabelSpec& b) { return a == b; }, nb::is_operator());
  module.def("recover", &Recover, nb::arg("spec"), nb::arg("indices").noconvert(), nb::arg("values").noconvert(), nb::arg("tau"), nb::arg("out").noconvert());
  module.def("soft_cross_entropy", &Loss, nb::arg("spec"), nb::arg("indices").noconvert(), nb::arg("values").noconvert(),
             nb::arg("logits").noconvert(), nb::arg("losses").noconvert(), nb::arg("gradient").noconvert(), nb::arg("temperature"), nb::arg("tau"), nb::arg("gradient_scale"),
             nb::arg("threads"));
  module.def("soft_cross_entropy_on_gpu", &LossOnGpu, nb::arg("spec"), nb::arg("indices").noconvert(), nb::arg("values").noconvert(),
             nb::arg("logits").noconvert(), nb::arg("losses").noconvert(), nb::arg("gradient").noconvert().none(), nb::arg("row_scales").noconvert().none(),
             nb::arg("temperature"), nb::arg("tau"), nb::arg("gradient_scale"), nb::arg("stream"));
  module.attr("has_gpu_kernels") = HasGpuKernels();
}

}  // namespace fkdb::python
