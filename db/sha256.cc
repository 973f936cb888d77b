// SPDX-License-Identifier: Apache-2.0
#include "db/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <cstdlib>
#include <fstream>
#include <vector>

namespace fkdb {

struct Sha256::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
  // libcrypto fails here only without memory or without SHA-256, and then nothing can be said.
  void Start() {
    if (EVP_DigestInit_ex(context, EVP_sha256(), nullptr) != 1) std::abort();
  }
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) { impl_->Start(); }
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size());
}

Sha256::Hash Sha256::Finish() {
  Hash hash;
  unsigned size = 0;
  EVP_DigestFinal_ex(impl_->context, hash.data(), &size);
  impl_->Start();
  return hash;
}

Sha256::Hash Sha256::Of(std::span<const std::byte> bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

std::string ToHex(std::span<const uint8_t> bytes) {
  std::string hex;
  for (const uint8_t b : bytes) hex += fmt::format("{:02x}", b);
  return hex;
}

Result<std::string> Sha256OfFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Fail(ErrorCode::kNotFound, fmt::format("{}: cannot open it", path.string()));
  Sha256 sha;
  std::vector<char> buffer(1 << 20);
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    sha.Update(std::as_bytes(std::span(buffer.data(), static_cast<size_t>(in.gcount()))));
  }
  if (in.bad()) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot read it", path.string()));
  return ToHex(sha.Finish());
}

std::string Sha256OfKeys(std::span<const std::string> keys) {
  Sha256 sha;
  for (const std::string& key : keys) sha.Update(std::string_view(key.c_str(), key.size() + 1));
  return ToHex(sha.Finish());
}

}  // namespace fkdb
