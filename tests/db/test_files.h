// SPDX-License-Identifier: Apache-2.0
// A folder that goes away with the test, and label files made of random records.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "db/label_file_writer.h"
#include "db/sha256.h"
#include "format/record.h"
#include "tests/format/test_labels.h"

namespace fkdb::test {

class TempFolder : public testing::Test {
 protected:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "fkdb-test-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~TempFolder() override {
    std::error_code ec;
    std::filesystem::remove_all(folder_, ec);
  }
  std::filesystem::path Path(const std::string& name) const { return folder_ / name; }

  std::filesystem::path folder_;
};

inline std::string ReadBytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void WriteBytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// `images` images with keys "00000.jpg", ... and random labels; the same for the same arguments.
struct RandomLabels {
  Manifest recipe;
  std::vector<std::string> keys;
  std::vector<Record> records;

  explicit RandomLabels(uint64_t images, LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 10, 5),
                    uint32_t crops = 4, uint64_t seed = 1) {
    std::mt19937_64 random(seed);
    for (uint64_t i = 0; i < images; ++i) {
      std::string number = std::to_string(i);
      keys.push_back(std::string(5 - std::min<size_t>(5, number.size()), '0') + number + ".jpg");
      records.push_back(RandomRecord(spec, crops, random));
      records.back().key_hash = Hash64(keys.back());
    }
    recipe.spec = spec;
    recipe.data_set.name = "test";
    recipe.data_set.layout = "folder";
    recipe.data_set.num_images = images;
    recipe.data_set.key_list_sha256 = Sha256OfKeys(keys);
    for (uint32_t c = 0; c < std::min(spec.num_classes, 100u); ++c) recipe.data_set.class_names.push_back("class" + std::to_string(c));
    for (Record& r : records) r.class_index = static_cast<int32_t>(static_cast<uint32_t>(r.class_index) % recipe.data_set.class_names.size());
    recipe.teachers = {{"teacher.pt", "00"}};
    recipe.augmentation.crops = crops;
    recipe.augmentation.mean = {0.5, 0.5, 0.5};
    recipe.augmentation.std = {0.5, 0.5, 0.5};
    recipe.teacher_batch_size = 64;
  }

  std::vector<std::byte> Encoded(uint64_t i) const { return *EncodeRecord(recipe.spec, records[i]); }

  // Appends images [writer's next, end).
  Result<void> AppendUntil(LabelFileWriter* writer, uint64_t end) const {
    for (uint64_t i = writer->num_images(); i < end; ++i) FKDB_TRY(writer->Append(Encoded(i)));
    return {};
  }

  Result<Manifest> Build(const std::filesystem::path& path, const LabelFileWriterOptions& options = {}) const {
    FKDB_ASSIGN(LabelFileWriter writer, LabelFileWriter::Open(path, recipe, options));
    FKDB_TRY(AppendUntil(&writer, keys.size()));
    return writer.Finish(keys);
  }
};

}  // namespace fkdb::test
