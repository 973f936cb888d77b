// SPDX-License-Identifier: Apache-2.0
// fkdb-merge: joins the shards of one label set into one file.
#include <fmt/format.h>

#include "db/rewrite.h"
#include "tools/cli.h"
#include "tools/made.h"

namespace fkdb {
namespace {

struct Flags : CommonFlags {
  std::string out;
  std::vector<std::string> inputs;
  RewriteOptions rewrite;
};

Result<int> Run(Flags& flags) {
  StampProvenance("fkdb-merge", &flags.rewrite.provenance);
  Progress progress(flags.quiet || flags.json);
  flags.rewrite.progress = [&](uint64_t done, uint64_t all) {
    progress.Show(fmt::format("{}  {} of {} images", Bar(done, all), done, all));
  };
  flags.rewrite.stop = StopOnSignals();
  const std::vector<std::filesystem::path> inputs(flags.inputs.begin(), flags.inputs.end());
  const auto merged = MergeLabelSets(inputs, flags.out, flags.rewrite);
  progress.Done();
  if (!merged) return Fail(merged.error());
  FKDB_TRY(PrintMade(flags, flags.out, *merged));
  return kExitOk;
}

}  // namespace
}  // namespace fkdb

int main(int argc, char** argv) {
  fkdb::Flags flags;
  CLI::App app("Joins label sets of one recipe and different images into one file; no label is decoded.", "fkdb-merge");
  AddCommonFlags(app, &flags, "The summary as one line of JSON");
  app.add_option("OUT", flags.out, "The label set to write, NAME.fkdb")->required();
  app.add_option("IN", flags.inputs, "The label sets to join")->required();
  fkdb::AddOutputFlags(app, &flags.rewrite.file, &flags.rewrite.provenance);
  return fkdb::RunTool(app, argc, argv, [&] { return fkdb::Run(flags); });
}
