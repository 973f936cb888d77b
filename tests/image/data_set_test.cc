// SPDX-License-Identifier: Apache-2.0
#include "image/data_set.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <random>
#include <thread>

#include "format/half.h"
#include "format/random.h"
#include "image/normalize.h"
#include "image/ordered_queue.h"
#include "image/resample.h"
#include "tests/db/test_files.h"
#include "tests/simd_targets.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
const fs::path kGolden = fs::path(FKDB_SOURCE_DIR) / "tests/golden/pillow";

class DataSetTest : public test::TempFolder {
 protected:
  void Add(const std::string& key, const std::string& from = "rgb.png") {
    fs::create_directories((folder_ / key).parent_path());
    fs::copy_file(kGolden / from, folder_ / key);
  }
};

TEST_F(DataSetTest, AFolderIsListedInKeyOrder) {
  Add("b/2.png");
  Add("a/deep/1.PNG");
  Add("a/0.jpeg", "420.jpg");
  Add("a-b/3.JPG", "420.jpg");
  test::WriteBytes(folder_ / "a/notes.txt", "no image");
  const auto set = OpenDataSet(folder_);
  ASSERT_TRUE(set) << set.error().message;
  EXPECT_EQ((*set)->keys(), (std::vector<std::string>{"a-b/3.JPG", "a/0.jpeg", "a/deep/1.PNG", "b/2.png"}));
  EXPECT_EQ((*set)->class_names(), (std::vector<std::string>{"a", "a-b", "b"}));
  EXPECT_EQ((*set)->class_index(0), 1);
  EXPECT_EQ((*set)->class_index(1), 0);
  EXPECT_EQ((*set)->class_index(3), 2);
  EXPECT_EQ((*set)->name(), folder_.filename().string());
  EXPECT_EQ((*OpenDataSet(folder_.string() + "/"))->name(), folder_.filename().string());
  std::vector<std::byte> file;
  const auto image = (*set)->Load(3, &file);
  ASSERT_TRUE(image);
  EXPECT_EQ(image->width, 67u);
  EXPECT_EQ(file.size(), fs::file_size(kGolden / "rgb.png"));
  EXPECT_EQ((*OpenDataSet(folder_, 2))->size(), 2u);
  EXPECT_EQ((*OpenDataSet(folder_, 2))->class_names().size(), 3u) << "a limit must not renumber the classes";
}

// A tar member as ustar has it: header and bytes, filled up to whole blocks.
std::string Member(const std::string& path, const std::string& bytes, char type = '0', const std::string& size = "") {
  std::string header(512, '\0');
  path.copy(header.data(), 100);
  char number[13];
  std::snprintf(number, sizeof number, "%011zo", bytes.size());
  (size.empty() ? std::string(number) : size).copy(header.data() + 124, 12);
  header[156] = type;
  std::string("ustar\0" "00", 8).copy(header.data() + 257, 8);
  std::fill_n(header.begin() + 148, 8, ' ');
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  std::snprintf(number, sizeof number, "%06o", sum);
  std::string(number, 7).copy(header.data() + 148, 7);
  return header + bytes + std::string((512 - bytes.size() % 512) % 512, '\0');
}

TEST_F(DataSetTest, TarShardsAreOneDataSet) {
  const std::string photo = test::ReadBytes(kGolden / "420.jpg"), drawing = test::ReadBytes(kGolden / "rgb.png");
  const std::string end(1024, '\0');
  const std::string long_name = "deep/" + std::string(150, 'x') + "/9.png";
  const std::string pax = "path=" + long_name + "\n";
  test::WriteBytes(folder_ / "1.tar", Member("./b/2.jpg", photo) + Member("b/", "", '5') + Member("b/2.cls", " 3\n") + end);
  test::WriteBytes(folder_ / "0.tar", Member("c/1.seg.PNG", drawing) + Member("c/1.cls", "0") + Member("c/1.json", "{}") +
                                          Member("x", fmt::format("{} {}", pax.size() + 4, pax), 'x') + Member("short", drawing) + end);
  for (const auto& [path, images] : {std::pair{folder_, 3}, {folder_ / "0.tar", 2}}) {
    const auto set = OpenDataSet(path);
    ASSERT_TRUE(set) << set.error().message;
    EXPECT_EQ((*set)->layout(), "webdataset");
    EXPECT_EQ((*set)->size(), static_cast<uint64_t>(images));
    EXPECT_EQ((*set)->name(), path.filename().string());
  }
  const auto set = *OpenDataSet(folder_);
  EXPECT_EQ(set->keys(), (std::vector<std::string>{"b/2.jpg", "c/1.seg.PNG", long_name}));
  EXPECT_EQ(set->class_names(), (std::vector<std::string>{"0", "1", "2", "3"}));
  EXPECT_EQ(set->class_index(0), 3);
  EXPECT_EQ(set->class_index(1), 0);
  EXPECT_EQ(set->class_index(2), -1);
  std::vector<std::byte> file;
  const auto image = set->Load(1, &file);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->width, 67u);
  EXPECT_EQ(file.size(), drawing.size());

  // Without .cls files folders are classes, as in a folder of images.
  test::WriteBytes(folder_ / "1.tar", Member("b/2.jpg", photo) + Member("a/2.jpg", photo));  // no end mark
  const auto one = *OpenDataSet(folder_ / "1.tar");
  EXPECT_EQ(one->class_names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(one->class_index(1), 1);
  // A folder of images with an archive in it is neither; an archive's own numbers without images are no classes.
  fs::create_directories(folder_ / "images/a");
  fs::copy_file(kGolden / "rgb.png", folder_ / "images/a/1.png");
  fs::create_directories(folder_ / "images/x.tar");
  EXPECT_EQ((*OpenDataSet(folder_ / "images"))->layout(), "folder");
  test::WriteBytes(folder_ / "images/a.tar", Member("b/2.jpg", photo));
  EXPECT_EQ(OpenDataSet(folder_ / "images").error().message,
            (folder_ / "images").string() + ": both images and archives of them ('a.tar') are in it: keep them apart");
  test::WriteBytes(folder_ / "images/b.tar", Member("b/2.jpg", photo) + Member("c.cls", "7"));
  EXPECT_TRUE((*OpenDataSet(folder_ / "images/b.tar"))->class_names().empty());
  // An archive that changes in the meantime.
  fs::resize_file(folder_ / "1.tar", 700);
  EXPECT_EQ(one->Load(1).error().message,
            "image '" + (folder_ / "1.tar").string() + ": b/2.jpg': the archive is shorter than when it was opened");
  fs::remove(folder_ / "1.tar");
  EXPECT_EQ(one->Load(0).error().code, ErrorCode::kNotFound);
}

TEST_F(DataSetTest, BadTarsAreRefusedWithTheReason) {
  const std::string good = Member("a/1.jpg", test::ReadBytes(kGolden / "420.jpg"));
  const auto message = [&](const std::string& bytes, const char* name = "x.tar") {
    test::WriteBytes(folder_ / name, bytes);
    const auto set = OpenDataSet(folder_ / name);
    return set ? "" : set.error().message.substr((folder_ / name).string().size());
  };
  EXPECT_EQ(message(good), "");
  EXPECT_EQ(message(""), ": the file is empty");
  EXPECT_EQ(message("short"), ": broken tar archive: member at byte 0: it ends in a header");
  EXPECT_EQ(message(std::string(512, 'x')), ": not a tar archive");
  for (const char* magic : {"\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd" "7zXZ", "BZh"}) {
    EXPECT_EQ(message(std::string(magic) + "xxxxxx", "x.tar.gz"),
              ": a compressed archive: its files cannot be read one by one; decompress it");
  }
  EXPECT_EQ(message(std::string(1024, '\0')), ": no image in it (expected .jpg, .jpeg or .png files)");
  EXPECT_EQ(message(good.substr(0, 600)), ": broken tar archive: member at byte 0: the archive ends before it does");
  EXPECT_EQ(message(good + std::string(512, 'x')),
            fmt::format(": broken tar archive: member at byte {}: its header is damaged", good.size()));
  EXPECT_EQ(message(Member("a", "", 'S')), ": member at byte 0: a sparse file");
  EXPECT_EQ(message(Member("a", "22 GNU.sparse.major=1\n", 'x') + good), ": member at byte 1024: a sparse file");
  EXPECT_EQ(message(Member("huge", "", 'x', "77777777777")), ": broken tar archive: member at byte 0: the archive ends before it does");
  EXPECT_EQ(message(Member("a/link", "", '2', "00000001234") + good), "") << "a link has no bytes";
  EXPECT_EQ(message(Member("a", "99 path=x\n", 'x')), ": broken tar archive: member at byte 0: its extended header is damaged");
  EXPECT_EQ(message(Member("a", "", '0', std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))), ": not a tar archive");
  EXPECT_EQ(message(good + Member("a/1.cls", "cat")), ": a/1.cls: not the number of a class");
  EXPECT_EQ(message(good + Member("a/1.cls", "16777216")), ": a/1.cls: not the number of a class");
  message(good + good);
  EXPECT_NE(OpenDataSet(folder_ / "x.tar").error().message.find("image 'a/1.jpg' is in "), std::string::npos);

  // Damage anywhere is refused or read as other names, never worse.
  const std::string whole = Member("a", "14 path=b.jpg\n", 'x') + Member("c", "123") + good.substr(0, 512);
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const char flip : {'\x01', '\x80', '\xff'}) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
      message(bytes);
    }
    message(whole.substr(0, i));
  }
}

TEST_F(DataSetTest, ImagesAtTheTopHaveNoClass) {
  Add("1.png");
  const auto set = OpenDataSet(folder_);
  ASSERT_TRUE(set);
  EXPECT_TRUE((*set)->class_names().empty());
  EXPECT_EQ((*set)->class_index(0), -1);
}

TEST_F(DataSetTest, FaultsNameTheFile) {
  EXPECT_EQ(OpenDataSet(folder_ / "no").error().message, (folder_ / "no").string() + ": no such image folder, tar or IDX file");
  EXPECT_EQ(OpenDataSet(folder_).error().message,
            folder_.string() + ": no image in it (expected .jpg, .jpeg or .png files)");
  Add("a/1.png");
  test::WriteBytes(folder_ / "a/2.jpg", test::ReadBytes(kGolden / "444.jpg").substr(0, 4000));
  const auto set = OpenDataSet(folder_);
  ASSERT_TRUE(set);
  EXPECT_EQ((*set)->Load(1).error().message,
            "image '" + (folder_ / "a/2.jpg").string() + "': broken JPEG: the file ends early");
  fs::remove(folder_ / "a/1.png");
  EXPECT_EQ((*set)->Load(0).error().code, ErrorCode::kNotFound);
  test::WriteBytes(folder_ / "x.txt", "text");
  EXPECT_EQ(OpenDataSet(folder_ / "x.txt").error().message,
            (folder_ / "x.txt").string() + ": neither an image folder nor an IDX file of bytes");
}

TEST_F(DataSetTest, ALinkThatLeadsBackIsFound) {
  Add("a/1.png");
  fs::create_directory_symlink(folder_, folder_ / "a/loop");
  EXPECT_EQ(OpenDataSet(folder_).error().code, ErrorCode::kInvalidArgument);
}

std::string Idx(std::initializer_list<uint32_t> sizes, const std::string& data) {
  std::string bytes = {0, 0, 8, static_cast<char>(sizes.size())};
  for (const uint32_t size : sizes) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(size >> shift);
  }
  return bytes + data;
}

TEST_F(DataSetTest, IdxPlainAndGzipped) {
  std::string pixels;
  for (int i = 0; i < 12 * 6; ++i) pixels += static_cast<char>(i);
  const std::string images = Idx({12, 2, 3}, pixels), labels = Idx({12}, {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2});
  test::WriteBytes(folder_ / "t-images-idx3-ubyte", images);
  test::WriteBytes(folder_ / "t-labels-idx1-ubyte", labels);
  for (const auto& [name, bytes] : {std::pair("t-images-idx3-ubyte.gz", images), {"t-labels-idx1-ubyte.gz", labels}}) {
    const gzFile file = gzopen((folder_ / name).c_str(), "wb");
    gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(file);
  }
  for (const char* name : {"t-images-idx3-ubyte", "t-images-idx3-ubyte.gz"}) {
    const auto set = OpenDataSet(folder_ / name);
    ASSERT_TRUE(set) << set.error().message;
    EXPECT_EQ((*set)->size(), 12u);
    EXPECT_EQ((*set)->keys()[11], "11");
    EXPECT_EQ((*set)->keys()[3], "03");
    EXPECT_EQ((*set)->channels(), 1u);
    EXPECT_EQ((*set)->class_names(), (std::vector<std::string>{"0", "1", "2"}));
    EXPECT_EQ((*set)->class_index(4), 1);
    const auto image = (*set)->Load(2);
    ASSERT_TRUE(image);
    EXPECT_EQ(image->height, 2u);
    EXPECT_EQ(image->width, 3u);
    EXPECT_EQ(image->pixels, (std::vector<uint8_t>{12, 13, 14, 15, 16, 17}));
  }
  test::WriteBytes(folder_ / "t-images-idx3-ubyte", images.substr(0, images.size() - 1));
  EXPECT_EQ(OpenDataSet(folder_ / "t-images-idx3-ubyte").error().message,
            (folder_ / "t-images-idx3-ubyte").string() + ": 71 bytes of data, expected 72");
  const std::string gzip = test::ReadBytes(folder_ / "t-images-idx3-ubyte.gz");
  test::WriteBytes(folder_ / "t-images-idx3-ubyte.gz", gzip.substr(0, gzip.size() - 9));
  EXPECT_EQ(OpenDataSet(folder_ / "t-images-idx3-ubyte.gz").error().code, ErrorCode::kCorruption);
}

TEST(Normalizer, DoesTorchvisionsArithmetic) {
  const std::vector<double> mean = {0.485, 0.456, 0.406}, std = {0.229, 0.224, 0.225};
  const auto normalizer = Normalizer::Make(mean, std);
  ASSERT_TRUE(normalizer);
  const std::vector<uint8_t> pixels = {0, 128, 255, 7, 8, 9};
  std::vector<float> out(6);
  normalizer->Run(pixels.data(), 2, out.data());
  for (size_t c = 0; c < 3; ++c) {
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(out[c * 2 + i], (static_cast<float>(pixels[i * 3 + c]) / 255.0f - static_cast<float>(mean[c])) /
                                    static_cast<float>(std[c]));
    }
  }
  EXPECT_FALSE(Normalizer::Make(mean, std::vector<double>{1, 1, 0}));
  EXPECT_FALSE(Normalizer::Make(std::vector<double>{1, 1}, std::vector<double>{1, 1}));
}

// Vectors where they are proven right, tables elsewhere: the same bits for every mean, deviation,
// sample, number of pixels and instruction set.
TEST(Normalizer, EveryInstructionSetGivesTheSameBits) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform;
  int vectorized = 0, made = 0;
  for (int n = 0; n < 40; ++n) {
    const size_t channels = n % 2 == 0 ? 3 : 1;
    std::vector<double> mean = DefaultNormalization(static_cast<uint32_t>(channels)).mean;
    std::vector<double> std = DefaultNormalization(static_cast<uint32_t>(channels)).std;
    for (size_t c = 0; n > 1 && c < channels; ++c) {
      mean[c] = uniform(random);
      std[c] = uniform(random) + 1e-3;
    }
    const size_t count = 1 + random() % 600;
    std::vector<uint8_t> pixels(count * channels);
    for (uint8_t& p : pixels) p = static_cast<uint8_t>(random());
    test::ForEachSimdTarget([&] {
      const auto normalizer = Normalizer::Make(mean, std);
      vectorized += normalizer->vectorized();
      const std::string target = hwy::TargetName(hwy::SupportedTargets());
      EXPECT_TRUE(normalizer->vectorized() || n >= 2 || !target.starts_with("AVX")) << "the usual constants took the slow path";
      ++made;
      std::vector<float> out(pixels.size());
      normalizer->Run(pixels.data(), count, out.data());
      for (size_t i = 0; i < pixels.size(); ++i) {
        const size_t c = i % channels;
        ASSERT_EQ(out[c * count + i / channels], (static_cast<float>(pixels[i]) / 255.0f - static_cast<float>(mean[c])) /
                                                     static_cast<float>(std[c]));
      }
      // Every other format is that one rounded, in another order, or the samples.
      for (const bool last : {false, true}) {
        std::vector<float> floats(pixels.size() + 1, 77);
        std::vector<uint16_t> halves(pixels.size() + 1, 77);
        std::vector<uint8_t> bytes(pixels.size() + 1, 77);
        normalizer->Run(pixels.data(), count, {SampleType::kFloat32, last}, floats.data());
        normalizer->Run(pixels.data(), count, {SampleType::kBf16, last}, halves.data());
        normalizer->Run(pixels.data(), count, {SampleType::kUint8, last}, bytes.data());
        for (size_t i = 0; i < pixels.size(); ++i) {
          const size_t first = i % channels * count + i / channels, at = last ? i : first;
          ASSERT_EQ(floats[at], out[first]);
          ASSERT_EQ(halves[at], Bf16FromFloat(out[first]));
          ASSERT_EQ(bytes[at], pixels[i]);
        }
        ASSERT_TRUE(floats.back() == 77 && halves.back() == 77 && bytes.back() == 77) << "wrote behind the end";
      }
    });
  }
  RecordProperty("vectorized", std::to_string(vectorized) + " of " + std::to_string(made));
}

TEST(Evaluation, ResizesTheShorterSideAndTakesTheCentre) {
  Image image = {4, 8, 1, {}};
  for (int i = 0; i < 32; ++i) image.pixels.push_back(static_cast<uint8_t>(i % 8 * 10));
  std::vector<uint8_t> out(4);
  ResizeAndCenterCrop(image, 4, 2, Interpolation::kBilinear, PassOrder::kHorizontalFirst, out.data());
  EXPECT_EQ(out, (std::vector<uint8_t>{30, 40, 30, 40}));
}

TEST(OrderedQueue, GivesResultsInOrderAndStaysBounded) {
  OrderedQueue<int> queue(3, 103, 8);
  std::atomic<int> under_way = 0, most = 0;
  std::vector<std::jthread> workers;
  for (int t = 0; t < 4; ++t) {
    workers.emplace_back([&] {
      while (const auto piece = queue.Claim()) {
        most = std::max<int>(most, ++under_way);
        queue.Deliver(*piece, static_cast<int>(*piece) * 2);
      }
    });
  }
  for (int piece = 3; piece < 103; ++piece) {
    auto result = queue.Take(std::chrono::seconds(10));
    ASSERT_TRUE(result);
    EXPECT_EQ(*result, piece * 2);
    --under_way;
  }
  EXPECT_TRUE(queue.finished());
  EXPECT_LE(most, 9);
}

TEST(OrderedQueue, CloseFreesWaitingWorkers) {
  OrderedQueue<int> queue(0, 1000, 1);
  std::jthread worker([&] {
    while (const auto piece = queue.Claim()) queue.Deliver(*piece, 0);
  });
  EXPECT_TRUE(queue.Take(std::chrono::seconds(10)));
  queue.Close();
}

}  // namespace
}  // namespace fkdb
