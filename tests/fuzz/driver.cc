// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target without libFuzzer: its seeds, the files of a corpus, and random mutations of both.
//
//   fuzz_X [RUNS [SEED [CORPUS FOLDER]]]
//   fuzz_X seeds FOLDER                     writes the seeds, for libFuzzer to start from
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "tests/fuzz/fuzz.h"

namespace {

std::string Mutated(const std::vector<std::string>& inputs, std::mt19937_64& random) {
  std::string bytes = inputs[random() % inputs.size()];
  for (uint64_t changes = 1 + random() % 4; changes > 0; --changes) {
    const size_t at = bytes.empty() ? 0 : random() % bytes.size();
    switch (random() % 6) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<char>(random());
        break;
      case 2:  // a number that parsers are proud of
        if (bytes.size() >= at + 4) {
          const uint32_t odd[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff8, 0x10000, static_cast<uint32_t>(bytes.size())};
          std::memcpy(&bytes[at], &odd[random() % 8], 4);
        }
        break;
      case 3:
        bytes.resize(at);
        break;
      case 4:
        bytes.insert(at, std::string(1 + random() % 64, static_cast<char>(random())));
        break;
      default: {  // a piece of another input
        const std::string& other = inputs[random() % inputs.size()];
        if (other.empty() || bytes.empty()) break;
        const size_t from = random() % other.size(), count = std::min<size_t>({other.size() - from, bytes.size() - at, 1 + random() % 256});
        bytes.replace(at, count, other, from, count);
      }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> inputs = fkdb::fuzz::Seeds();
  if (argc == 3 && std::strcmp(argv[1], "seeds") == 0) {
    std::filesystem::create_directories(argv[2]);
    for (size_t i = 0; i < inputs.size(); ++i) {
      std::ofstream(std::filesystem::path(argv[2]) / ("seed" + std::to_string(i)), std::ios::binary) << inputs[i];
    }
    return 0;
  }
  const uint64_t runs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 10000;
  std::mt19937_64 random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  if (argc > 3 && std::filesystem::is_directory(argv[3])) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[3])) {
      std::ifstream in(entry.path(), std::ios::binary);
      inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
  }
  const auto run = [](const std::string& bytes) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  };
  for (const std::string& input : inputs) run(input);
  for (uint64_t i = 0; i < runs; ++i) run(Mutated(inputs, random));
  std::printf("%zu inputs and %llu mutations\n", inputs.size(), static_cast<unsigned long long>(runs));
  return 0;
}
