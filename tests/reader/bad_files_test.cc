// SPDX-License-Identifier: Apache-2.0
// The handcrafted bad files of tests/bad: each is refused with exactly its error.
#include <nlohmann/json.hpp>

#include "reader/verify.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

class BadFiles : public test::TempFolder {};

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

TEST_F(BadFiles, EachIsRefusedWithItsOwnError) {
  const std::filesystem::path tests = std::filesystem::path(FKDB_SOURCE_DIR) / "tests";
  const auto cases = nlohmann::json::parse(test::ReadBytes(tests / "bad/files.json"));
  ASSERT_GE(cases.size(), 27u);
  for (const auto& bad : cases) {
    const std::string name = bad["name"];
    std::string bytes = test::ReadBytes(tests / "golden/v1" / bad["base"].get<std::string>());
    if (bad.contains("fill")) {
      const std::string line = bad["fill"];
      bytes.clear();
      while (bytes.size() < bad["size"].get<size_t>()) bytes += line;
    } else {
      bytes.resize(bad["size"].get<size_t>());
      for (const auto& patch : bad["patches"]) {
        const std::string changed = FromHex(patch[1]);
        bytes.replace(patch[0].get<size_t>(), changed.size(), changed);
      }
    }
    const auto path = Path(name + ".fkdb");
    test::WriteBytes(path, bytes);
    const VerifyReport report = Verify(path);
    ASSERT_FALSE(report.ok) << name;
    EXPECT_EQ(report.errors[0], path.string() + ": " + bad["error"].get<std::string>()) << name;
    EXPECT_EQ(report.code, bad["exit"] == 4 ? ErrorCode::kUnsupported : ErrorCode::kCorruption) << name;
  }
}

}  // namespace
}  // namespace fkdb
