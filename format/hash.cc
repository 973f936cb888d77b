// SPDX-License-Identifier: Apache-2.0
#include "format/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace fkdb {

#ifdef FKDB_HASH_AVX2
unsigned long long Hash64Avx2(const void* bytes, size_t size);  // hash_avx2.cc
#endif

uint64_t Hash64(std::span<const std::byte> bytes) {
#ifdef FKDB_HASH_AVX2
  static const bool avx2 = __builtin_cpu_supports("avx2");
  constexpr size_t kLong = 240;  // from where on XXH3 works in vectors
  if (bytes.size() > kLong && avx2) return Hash64Avx2(bytes.data(), bytes.size());
#endif
  return XXH3_64bits(bytes.data(), bytes.size());
}

ContentHash HashContent(std::span<const std::byte> bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  ContentHash hash;
  static_assert(sizeof(canonical.digest) == sizeof(hash));
  std::copy(std::begin(canonical.digest), std::end(canonical.digest), hash.begin());
  return hash;
}

}  // namespace fkdb
