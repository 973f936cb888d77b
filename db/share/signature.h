// SPDX-License-Identifier: Apache-2.0
// Ed25519 signatures (RFC 8032) of a share's manifest, whose hashes bind all the rest. Keys are PEM files as OpenSSL writes
// them, a signature is its 64 bytes: `openssl pkeyutl -verify -rawin` can check it, too.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "format/result.h"

namespace fkdb {

constexpr const char* kSignatureName = "manifest.json.sig";
constexpr size_t kSignatureBytes = 64;

// A new pair of keys: NAME.pem, to sign with, which its owner alone can read, and NAME.pub, to be given to others.
// Errors: AlreadyExists, IoError.
Result<void> MakeKeyPair(const std::filesystem::path& name);

// Errors: NotFound, InvalidArgument (not an Ed25519 key to sign with, without a pass phrase).
Result<std::string> SignText(std::string_view text, const std::filesystem::path& private_key);

// Whether `signature` is of this text by the owner of `public_key`. Errors: NotFound, InvalidArgument (not a public Ed25519 key).
Result<bool> IsSignatureOf(std::string_view signature, std::string_view text, const std::filesystem::path& public_key);

}  // namespace fkdb
