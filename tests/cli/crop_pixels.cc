// SPDX-License-Identifier: Apache-2.0
// For the tests in Python: prints the pixels that a teacher sees. Reads lines "KEY TOP LEFT HEIGHT
// WIDTH FLIP" and writes for each (SIZE, SIZE, channels) bytes.
//
//   crop_pixels IMAGES SIZE bilinear|bicubic
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "image/data_set.h"
#include "image/resample.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const auto data = fkdb::OpenDataSet(argv[1]);
  const auto interpolation = fkdb::ParseInterpolation(argv[3]);
  if (!data || !interpolation) return 1;
  const auto size = static_cast<uint32_t>(std::atoi(argv[2]));
  fkdb::CropResizer resizer(size, size, *interpolation);
  std::vector<uint8_t> pixels(size_t{size} * size * (*data)->channels());
  std::string key, loaded;
  fkdb::Image image;
  fkdb::PixelBox box;
  int flip;
  while (std::cin >> key >> box.top >> box.left >> box.height >> box.width >> flip) {
    if (key != loaded) {
      const auto& keys = (*data)->keys();
      auto read = (*data)->Load(static_cast<uint64_t>(std::find(keys.begin(), keys.end(), key) - keys.begin()));
      if (!read) return 1;
      image = std::move(*read);
      loaded = key;
    }
    resizer.Run(image, box, flip != 0, pixels.data());
    std::fwrite(pixels.data(), 1, pixels.size(), stdout);
  }
  return 0;
}
