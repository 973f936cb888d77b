// SPDX-License-Identifier: Apache-2.0
// fkdb-merge: joins the shards of one label set, into one file or behind one index file; or averages label sets of the same crops.
#include "db/average.h"
#include "db/rewrite.h"
#include "tools/cli.h"
#include "tools/made.h"
#include "tools/programs.h"

namespace fkdb {
namespace {

struct Flags : CommonFlags {
  std::string out;
  std::vector<std::string> inputs;
  bool collection = false, average = false;
  AverageOptions rewrite;
};

Result<int> Run(Flags& flags) {
  const std::vector<std::filesystem::path> inputs(flags.inputs.begin(), flags.inputs.end());
  return RunRewrite("fkdb-merge", flags, flags.out, &flags.rewrite, [&] {
    if (flags.average) return AverageLabelSets(inputs, flags.out, flags.rewrite);
    return (flags.collection ? CollectLabelSets : MergeLabelSets)(inputs, flags.out, flags.rewrite);
  });
}

}  // namespace
}  // namespace fkdb

int fkdb::RunMerge(int argc, char** argv) {
  fkdb::Flags flags;
  CLI::App app("Joins label sets of one recipe and different images into one, no label changes; or averages label sets of the same crops.", "fkdb-merge");
  AddCommonFlags(app, &flags, "The summary as one line of JSON");
  app.add_option("OUT", flags.out, "The label set to write, NAME.fkdb")->required();
  app.add_option("IN", flags.inputs, "The label sets to join")->required();
  auto* collection = app.add_flag("--collection", flags.collection,
                                  "Copy nothing: OUT becomes a small index file that names the inputs, which stay where they are");
  auto* average = app.add_flag("--average", flags.average,
                               "Average labels of the same images and crops (fkdb-write --boxes-from): an ensemble of their teachers")
                      ->excludes(collection);
  app.add_option("--weights", flags.rewrite.weights, "Of each input in the average (equal)")->delimiter(',')->allow_extra_args(false)->needs(average);
  fkdb::AddOutputFlags(app, &flags.rewrite.file, &flags.rewrite.provenance);
  return fkdb::RunTool(app, argc, argv, [&] { return fkdb::Run(flags); });
}
