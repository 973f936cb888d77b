// SPDX-License-Identifier: Apache-2.0
// Instead of fetch.cc in builds without libcurl, which in a wheel would look for certificates where another system has them.
#include "tools/share/fetch.h"

namespace fkdb {
namespace {

tl::unexpected<Error> NoFetch() {
  return Fail(ErrorCode::kUnsupported, "this build of fkdb cannot fetch: take the fkdb-share that tools/build makes, or bring the folder with any program that copies "
                                       "files, and run fkdb-share verify");
}

}  // namespace

Result<FetchReport> FetchShare(std::span<const std::string>, const std::filesystem::path&, const FetchOptions&) { return NoFetch(); }
Result<ShareManifest> FetchShareManifest(const std::string&, const FetchOptions&) { return NoFetch(); }

}  // namespace fkdb
