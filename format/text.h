// SPDX-License-Identifier: Apache-2.0
// Keys and class names are raw bytes; JSON holds UTF-8 only. Text that is not UTF-8 travels as
// base64 (RFC 4648, with padding).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace fkdb {

bool IsUtf8(std::string_view text);
std::string ToBase64(std::string_view bytes);
std::optional<std::string> FromBase64(std::string_view text);  // none if it is not base64

// For one-line messages: control characters and bytes that are not UTF-8 as \xNN.
std::string Printable(std::string_view text);

// How the keys of a label set and of the images it is to be used with differ, in words; empty if they
// are the same. Both sorted bytewise.
std::string KeyDifference(std::span<const std::string> labelled, std::span<const std::string> images);

}  // namespace fkdb
