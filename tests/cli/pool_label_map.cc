// SPDX-License-Identifier: Apache-2.0
// For the tests in Python: prints what label maps say of crops. Reads lines "KEY TOP LEFT HEIGHT WIDTH" and
// writes for each (C) float32.
//
//   pool_label_map DB
#include <cstdio>
#include <iostream>

#include "format/label_map.h"
#include "reader/reader.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto maps = fkdb::Reader::Open(argv[1]);
  if (!maps || !maps->spec().is_map()) return 1;
  std::vector<float> label(maps->spec().num_classes);
  std::string key;
  fkdb::PixelBox box;
  while (std::cin >> key >> box.top >> box.left >> box.height >> box.width) {
    const auto ordinal = maps->Find(key);
    if (!ordinal) return 1;
    const auto map = maps->Get(*ordinal);
    if (!map || !PoolLabelMap(*map, box, label)) return 1;
    std::fwrite(label.data(), sizeof(float), label.size(), stdout);
  }
  return 0;
}
