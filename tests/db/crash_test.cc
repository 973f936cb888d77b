// SPDX-License-Identifier: Apache-2.0
// SIGKILL at random moments of builds and merges, on small maps that grow and on large ones: whatever
// is left opens or says that it is partial, a resume completes it, and the digest is that of an
// undisturbed run. FKDB_LONG_TESTS=1 kills 400 times instead of 40.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "db/label_file.h"
#include "db/rewrite.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

using test::RandomLabels;
using test::MakeSpec;

class CrashTest : public test::TempFolder {
 protected:
  CrashTest() : kills_wanted_(std::getenv("FKDB_LONG_TESTS") ? 100 : 10) {}

  LabelFileWriterOptions Options(size_t map_bytes) {
    LabelFileWriterOptions options;
    options.resume = true;
    options.initial_map_bytes = map_bytes;
    options.block_bytes = 2048 << random_() % 4;
    options.commit_bytes = 1 << (10 + random_() % 6);
    if (random_() % 2) options.short_block_seconds = 0;  // open blocks, and a file that is written anew at the end
    return options;
  }

  // Runs `job` in children that are killed, until one lives to its end; then again, on another output.
  void KillUntilDone(const std::function<bool(const std::filesystem::path&)>& job, const std::string& digest) {
    int kills = 0, outputs = 0, under_way = 0;
    double longest_ms = 30;
    // On a busy machine the first kills may all come too early: then there are more of them, and later ones.
    const auto enough = [&] { return (kills >= kills_wanted_ && under_way > kills_wanted_ / 10) || kills >= 20 * kills_wanted_; };
    while (!enough()) {
      const std::filesystem::path out = Path("out" + std::to_string(outputs++) + ".fkdb");
      while (!std::filesystem::exists(out)) {
        const auto begin = std::chrono::steady_clock::now();
        const pid_t child = ::fork();
        if (child == 0) ::_exit(job(out) ? 0 : 1);
        const bool let_live = enough();
        if (!let_live) {
          std::this_thread::sleep_for(std::chrono::microseconds(random_() % static_cast<uint64_t>(longest_ms * 1000)));
          ::kill(child, SIGKILL);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) {
          ++kills;
          const bool hit = LooksSound(out);
          under_way += hit;
          if (!hit) longest_ms = std::min(2 * longest_ms, 5000.0);
        } else {
          ASSERT_EQ(WEXITSTATUS(status), 0) << "the job failed";
          longest_ms = std::max(5.0, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
        }
        if (HasFatalFailure()) return;
      }
      const auto file = LabelFile::Open(out);
      ASSERT_TRUE(file) << file.error().message;
      ASSERT_EQ(file->manifest().digest, digest);
      std::filesystem::remove(out);
    }
    std::printf("%d kills over %d outputs, %d with images committed\n", kills, outputs, under_way);
    EXPECT_GT(under_way, kills_wanted_ / 10) << "the kills hit nothing that was under way";
  }

  // What a kill left is nothing yet, or opens as partial. Whether it has images.
  bool LooksSound(const std::filesystem::path& out) {
    const auto partial = PartialOf(out);
    if (!std::filesystem::exists(partial)) return false;
    LabelFileOptions options;
    options.allow_partial = true;
    const auto file = LabelFile::Open(partial, options);
    if (file) return file->num_images() > 0;
    const std::string& message = file.error().message;  // killed before the first transaction
    const bool empty = message.find("is missing") != std::string::npos || message.find("no database") != std::string::npos ||
                       std::filesystem::file_size(partial) <= 2 * 4096;
    EXPECT_TRUE(empty) << message;
    return false;
  }
  static std::filesystem::path PartialOf(std::filesystem::path path) { return path += ".partial"; }

  int kills_wanted_;
  std::mt19937_64 random_{std::random_device()()};
};

TEST_F(CrashTest, BuildsOnSmallAndLargeMaps) {
  const RandomLabels set(1500, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, ValueEncoding::kPacked));
  const std::string digest = set.Build(Path("whole.fkdb"))->digest;
  for (const size_t map_bytes : {size_t{1} << 16, size_t{1} << 30}) {
    KillUntilDone(
        [&](const std::filesystem::path& out) {
          auto writer = LabelFileWriter::Open(out, set.recipe, Options(map_bytes));
          return writer && set.AppendUntil(&*writer, 1500) && writer->Finish(set.keys);
        },
        digest);
  }
}

TEST_F(CrashTest, MergesOnSmallAndLargeMaps) {
  const RandomLabels set(1500, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, ValueEncoding::kPacked));
  const std::string digest = set.Build(Path("whole.fkdb"))->digest;
  std::vector<std::filesystem::path> shards;
  for (int i = 0; i < 2; ++i) {
    SubsetOptions subset;
    for (size_t k = static_cast<size_t>(i); k < set.keys.size(); k += 2) subset.images.push_back(set.keys[k]);
    shards.push_back(Path("shard" + std::to_string(i) + ".fkdb"));
    ASSERT_TRUE(SubsetLabelSet(Path("whole.fkdb"), shards.back(), subset));
  }
  for (const size_t map_bytes : {size_t{1} << 16, size_t{1} << 30}) {
    KillUntilDone(
        [&](const std::filesystem::path& out) {
          RewriteOptions options;
          options.file = Options(map_bytes);
          return MergeLabelSets(shards, out, options).has_value();
        },
        digest);
  }
}

}  // namespace
}  // namespace fkdb
