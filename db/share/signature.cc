// SPDX-License-Identifier: Apache-2.0
#include "db/share/signature.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace fkdb {
namespace {

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Key = std::unique_ptr<EVP_PKEY, Free>;
using Context = std::unique_ptr<EVP_MD_CTX, Free>;
using Bio = std::unique_ptr<BIO, Free>;

// Nobody is asked for one: programs run unattended.
int NoPassPhrase(char*, int, int, void*) { return -1; }

template <class Read>
Result<Key> ReadKey(const std::filesystem::path& path, const char* expected, Read read) {
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec)) return Fail(ErrorCode::kNotFound, fmt::format("{}: no such key file", path.string()));
  const Bio file(BIO_new_file(path.c_str(), "r"));
  if (!file) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot read it: {}", path.string(), std::strerror(errno)));
  Key key(read(file.get(), nullptr, NoPassPhrase, nullptr));
  if (!key || EVP_PKEY_id(key.get()) != EVP_PKEY_ED25519) return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: not {}", path.string(), expected));
  return key;
}

const unsigned char* Bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

// Never over another file: keys cannot be had again.
Result<void> WriteNew(const std::filesystem::path& path, BIO* text, mode_t mode) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) {
    return Fail(errno == EEXIST ? ErrorCode::kAlreadyExists : ErrorCode::kIoError, fmt::format("{}: cannot write it: {}", path.string(), std::strerror(errno)));
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(text, &data);
  bool good = ::write(fd, data, static_cast<size_t>(size)) == size && ::fsync(fd) == 0;
  const int error = errno;
  good = ::close(fd) == 0 && good;
  if (!good) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot write it: {}", path.string(), std::strerror(error)));
  return {};
}

}  // namespace

Result<void> MakeKeyPair(const std::filesystem::path& name) {
  const Key key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  const Bio secret(BIO_new(BIO_s_mem())), open(BIO_new(BIO_s_mem()));
  if (!key || !secret || !open || PEM_write_bio_PKCS8PrivateKey(secret.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1 ||
      PEM_write_bio_PUBKEY(open.get(), key.get()) != 1) {
    return Fail(ErrorCode::kIoError, "libcrypto could not make a key");
  }
  const auto with = [&](const char* extension) { return std::filesystem::path(name) += extension; };
  FKDB_TRY(WriteNew(with(".pem"), secret.get(), 0600));
  return WriteNew(with(".pub"), open.get(), 0644);
}

Result<std::string> SignText(std::string_view text, const std::filesystem::path& private_key) {
  FKDB_ASSIGN(const Key key, ReadKey(private_key, "an Ed25519 key to sign with, in PEM and without a pass phrase (fkdb-share key makes one)",
                                     PEM_read_bio_PrivateKey));
  const Context context(EVP_MD_CTX_new());
  std::string signature(kSignatureBytes, '\0');
  size_t size = signature.size();
  if (!context || EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, Bytes(text), text.size()) != 1 || size != kSignatureBytes) {
    return Fail(ErrorCode::kIoError, fmt::format("{}: libcrypto could not sign with it", private_key.string()));
  }
  return signature;
}

Result<bool> IsSignatureOf(std::string_view signature, std::string_view text, const std::filesystem::path& public_key) {
  FKDB_ASSIGN(const Key key, ReadKey(public_key, "a public Ed25519 key in PEM", PEM_read_bio_PUBKEY));
  const Context context(EVP_MD_CTX_new());
  if (!context || EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1) {
    return Fail(ErrorCode::kIoError, fmt::format("{}: libcrypto could not use it", public_key.string()));
  }
  return signature.size() == kSignatureBytes && EVP_DigestVerify(context.get(), Bytes(signature), signature.size(), Bytes(text), text.size()) == 1;
}

}  // namespace fkdb
