// SPDX-License-Identifier: Apache-2.0
// SHA-256: identity, of label sets, teachers and key lists.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "format/result.h"

namespace fkdb {

class Sha256 {
 public:
  using Hash = std::array<uint8_t, 32>;

  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text) { Update(std::as_bytes(std::span(text))); }
  // The hash of everything so far; starts anew.
  Hash Finish();
  static Hash Of(std::span<const std::byte> bytes);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string ToHex(std::span<const uint8_t> bytes);

// Hex. Errors: NotFound, IoError.
Result<std::string> Sha256OfFile(const std::filesystem::path& path);

// Hex, of the keys in order, each followed by a zero byte: the manifest's key_list_sha256.
std::string Sha256OfKeys(std::span<const std::string> keys);

}  // namespace fkdb
