// SPDX-License-Identifier: Apache-2.0
// XXH3-64 for processors with AVX2: this file alone is compiled for them, and includes nothing whose
// inline functions other files share. (The library's own dispatch leaves AVX-512 registers dirty, which
// made a record's hash slower than without.)
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace fkdb {

unsigned long long Hash64Avx2(const void* bytes, size_t size) { return XXH3_64bits(bytes, size); }

}  // namespace fkdb
