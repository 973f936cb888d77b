// SPDX-License-Identifier: Apache-2.0
// Manifests and index files of collections: any text is refused or is one that prints and reads back
// the same.
#include <cstdlib>

#include "db/collection.h"
#include "db/file_names.h"
#include "db/manifest.h"
#include "tests/fuzz/fuzz.h"

namespace fkdb {

std::vector<std::string> fuzz::Seeds() {
  Manifest m;
  m.spec.num_classes = 10;
  m.spec.top_k = 5;
  m.data_set = {"set", "folder", 3, 3, "00", {"a", "b", "\xff not UTF-8"}};
  m.teachers = {{"teacher.pt", "00"}};
  m.augmentation.mean = m.augmentation.std = {0.5};
  m.num_images = 3;
  m.skipped = {1};
  const CollectionIndex index = {m, {{"a.fkdb", 2, "sha256:00"}, {"b.fkdb", 1, "sha256:01"}}, {{0, 1}, {1, 1}, {0, 1}}};
  return {ToJson(m), ToIndexText(index), "{}", "[", "{\"format\":\"fkdb\",\"format_version\":2,\"features\":[]}"};
}

}  // namespace fkdb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fkdb;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static_cast<void>(UnsealManifest(std::as_bytes(std::span(text))));
  static_cast<void>(ParseFormatValue(std::as_bytes(std::span(text))));
  static_cast<void>(ParseIndexText(text));
  if (const auto index = ParseIndexFields(text)) {
    const auto again = ParseIndexText(ToIndexText(*index));
    if (!again || ToIndexText(*again) != ToIndexText(*index)) std::abort();
  }
  const auto manifest = ParseManifest(text);
  if (!manifest) return 0;
  const auto again = ParseManifest(ToJson(*manifest));
  if (!again || !RecipeDifference(*manifest, *again).empty()) std::abort();
  return 0;
}
