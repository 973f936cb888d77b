// SPDX-License-Identifier: Apache-2.0
// A file that torch.save wrote, plain or gzipped: a zip archive with a pickle and the storages of its tensors.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format/result.h"
#include "writer/convert/pickle.h"
#include "writer/convert/zip_file.h"

namespace fkdb {

class TorchFile {
 public:
  // Errors: Corruption, Unsupported (also: the format before PyTorch 1.6, big-endian numbers),
  // ResourceExhausted.
  static Result<TorchFile> Parse(std::span<const std::byte> bytes);
  // The same; messages begin with the path. Errors: also NotFound, IoError.
  static Result<TorchFile> Read(const std::filesystem::path& path);

  const PickleValue& root() const { return pickle_.root(); }

 private:
  // What the pickle's values lie in.
  std::vector<std::byte> program_;
  std::map<std::string, std::vector<std::byte>, std::less<>> storages_;
  Pickle pickle_;
};

}  // namespace fkdb
