// SPDX-License-Identifier: Apache-2.0
#include "trainer/device.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <torch/cuda.h>

namespace fkdb {

Result<c10::Device> ParseDevice(const std::string& name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  const bool cuda = name == "cuda" || (name.starts_with("cuda:") && name.size() > 5 && name.size() < 9 &&
                                       name.find_first_not_of("0123456789", 5) == std::string::npos);
  if (!cuda) return Fail(ErrorCode::kInvalidArgument, fmt::format("device '{}': expected cpu, cuda or cuda:N", name));
  const int index = name == "cuda" ? 0 : std::stoi(name.substr(5));
  const auto count = static_cast<int>(torch::cuda::device_count());
  if (index >= count) {
    return Fail(ErrorCode::kCuda, fmt::format("device '{}': this machine has {} CUDA devices", name, count));
  }
  if (const auto kernels = HaveGpu(); !kernels) return Fail(kernels.error());
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

GpuStream CurrentStream(c10::Device device) {
  return static_cast<GpuStream>(c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle());
}

}  // namespace fkdb
