// SPDX-License-Identifier: Apache-2.0
#include "format/text.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>

namespace fkdb {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Length of the well-formed UTF-8 sequence at the front of `s`, or 0.
size_t SequenceLength(std::string_view s) {
  const auto byte = [&](size_t i) { return i < s.size() ? static_cast<uint8_t>(s[i]) : 0; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const uint8_t b = byte(0);
  if (b < 0x80) return 1;
  if (b >= 0xc2 && b <= 0xdf) return continues(1) ? 2 : 0;
  if (b >= 0xe0 && b <= 0xef) {
    const uint8_t low = b == 0xe0 ? 0xa0 : 0x80, high = b == 0xed ? 0x9f : 0xbf;
    return byte(1) >= low && byte(1) <= high && continues(2) ? 3 : 0;
  }
  if (b >= 0xf0 && b <= 0xf4) {
    const uint8_t low = b == 0xf0 ? 0x90 : 0x80, high = b == 0xf4 ? 0x8f : 0xbf;
    return byte(1) >= low && byte(1) <= high && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

// In one sorted list but not in the other: how many, and the first.
struct Missing {
  uint64_t count = 0;
  std::string first;
};

Missing InFirstOnly(std::span<const std::string> a, std::span<const std::string> b) {
  Missing missing;
  auto it = b.begin();
  for (const std::string& key : a) {
    it = std::lower_bound(it, b.end(), key);
    if (it != b.end() && *it == key) continue;
    if (missing.count++ == 0) missing.first = key;
  }
  return missing;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string Printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    const auto byte = static_cast<uint8_t>(text[0]);
    if (length == 0 || byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
      text.remove_prefix(1);
    } else {
      out += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return out;
}

std::string ToBase64(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    for (size_t j = 0; j < 3; ++j) word = word << 8 | (j < n ? static_cast<uint8_t>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) out += j <= n ? kDigits[word >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

std::optional<std::string> FromBase64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string out;
  for (size_t i = 0; i < text.size(); i += 4) {
    const std::string_view group = text.substr(i, 4);
    const bool last = i + 4 == text.size();
    const size_t padding = !last ? 0 : group.ends_with("==") ? 2 : group.ends_with("=") ? 1 : 0;
    uint32_t word = 0;
    for (size_t j = 0; j < 4; ++j) {
      const size_t digit = j >= 4 - padding ? 0 : kDigits.find(group[j]);
      if (digit == std::string_view::npos) return std::nullopt;
      word = word << 6 | static_cast<uint32_t>(digit);
    }
    for (size_t j = 0; j < 3 - padding; ++j) out += static_cast<char>(word >> (16 - 8 * j) & 0xff);
  }
  return out;
}

std::string KeyDifference(std::span<const std::string> labelled, std::span<const std::string> images) {
  const Missing unlabelled = InFirstOnly(images, labelled), absent = InFirstOnly(labelled, images);
  std::string what;
  if (absent.count > 0) {
    what = fmt::format("{} of {} labelled images are missing, first '{}'", absent.count, labelled.size(),
                       Printable(absent.first));
  }
  if (unlabelled.count > 0) {
    what += fmt::format("{}{} of {} images have no labels, first '{}'", what.empty() ? "" : "; ", unlabelled.count,
                        images.size(), Printable(unlabelled.first));
    if (absent.count == 0) what += " (--limit N takes only the first N images)";
  }
  return what;
}

}  // namespace fkdb
