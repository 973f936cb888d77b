// SPDX-License-Identifier: Apache-2.0
// Packages that torch._inductor.aoti_compile_and_package made of a model, TEACHER.pt2. Includes Torch.
// Such a package is native code of one kind of machine, and loading it runs it: only ever load one that the user named.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <functional>

#include "format/result.h"
#include "image/crop_inputs.h"

namespace fkdb {

using Network = std::function<at::Tensor(at::Tensor)>;  // (N, channels, height, width) to (N, C)

// By its name.
bool IsCompiledPackage(const std::filesystem::path& path);

// What the network will be asked for. Compiled code believes that its input has the shape it was exported for, and reads beyond one
// that has not: all of this is compared with what the package says of itself, before any of it runs.
struct PackageUse {
  InputSpec input;
  int64_t smallest_batch, largest_batch;
  c10::Device device;
  size_t threads;  // that call it at once
};

// The network computes each call on the thread of its caller alone. Errors: Model (no package, damaged, exported for other
// inputs, or compiled for another machine or device).
Result<Network> LoadCompiledPackage(const std::filesystem::path& path, const PackageUse& use);

}  // namespace fkdb
