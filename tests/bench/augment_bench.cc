// SPDX-License-Identifier: Apache-2.0
// What each operation on a crop's pixels costs, one thread: the median microseconds of 224 x 224 x 3, as JSON. augment.py puts
// Pillow's beside it.
//
//   augment_bench OP VALUES .. [, OP VALUES ..]..
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "image/augment.h"

namespace fkdb {
namespace {

constexpr uint32_t kSize = 224;
constexpr int kRuns = 401;

std::vector<uint8_t> MadeUp(uint32_t seed) {
  std::vector<uint8_t> pixels(kSize * kSize * 3);
  for (uint32_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<uint8_t>(i / 3 % kSize * 2 / 3 + i / (3 * kSize) / 3 + ((i + seed) * 2654435761u >> 27) + 20 * (i % 3));
  }
  return pixels;
}

double Median(Augmenter* augmenter, const std::vector<CropOp>& ops) {
  const std::vector<uint8_t> before = MadeUp(0), other = MadeUp(1);
  const PartnerSource partner = [&](uint64_t, const PixelBox&, bool, uint8_t* out) -> Result<void> {
    std::memcpy(out, other.data(), other.size());
    return {};
  };
  std::vector<uint8_t> pixels = before;
  std::vector<double> micros;
  for (int i = 0; i < kRuns; ++i) {
    const auto begun = std::chrono::steady_clock::now();
    std::memcpy(pixels.data(), before.data(), before.size());  // Pillow leaves its input alone; so that counts here, too
    if (!augmenter->Apply(ops, partner, pixels.data())) std::exit(1);
    micros.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begun).count());
  }
  std::nth_element(micros.begin(), micros.begin() + kRuns / 2, micros.end());
  return micros[kRuns / 2];
}

int Main(int argc, char** argv) {
  Augmenter augmenter(kSize, kSize, 3);
  for (int at = 1; at < argc; ++at) {
    CropOp op;
    for (uint16_t kind = 0; InfoOf(op.kind) != nullptr && InfoOf(op.kind)->name != argv[at]; ++kind) op.kind = static_cast<OpKind>(kind);
    if (InfoOf(op.kind) == nullptr) {
      fmt::print(stderr, "augment_bench: no operation '{}'\n", argv[at]);
      return 2;
    }
    size_t values = 0;
    while (++at < argc && std::string_view(argv[at]) != ",") {
      if (values < op.values.size()) op.values[values++] = std::strtof(argv[at], nullptr);
    }
    std::vector<CropOp> ops = {op};
    if (InfoOf(op.kind)->has_partner) ops.insert(ops.begin(), {OpKind::kPartnerCrop, 0, {0, 0, 1, 1, 0}});
    fmt::print("{{\"op\":\"{}\",\"value\":{},\"us\":{:.2f}}}\n", InfoOf(op.kind)->name, op.values[0], Median(&augmenter, ops));
  }
  return 0;
}

}  // namespace
}  // namespace fkdb

int main(int argc, char** argv) { return fkdb::Main(argc, argv); }
