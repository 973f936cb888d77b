// SPDX-License-Identifier: Apache-2.0
// fkdb-subset: takes images, crops or a smaller encoding of a label set into a new one.
#include "db/rewrite.h"
#include "tools/cli.h"
#include "tools/key_list.h"
#include "tools/made.h"
#include "tools/programs.h"

namespace fkdb {
namespace {

struct Flags : CommonFlags {
  std::string db, out, images;
  SubsetOptions subset;
};

Result<int> Run(Flags& flags) {
  if (!flags.images.empty()) {
    FKDB_ASSIGN(flags.subset.images, ReadKeyList(flags.images));
  }
  return RunRewrite("fkdb-subset", flags, flags.out, &flags.subset,
                    [&] { return SubsetLabelSet(flags.db, flags.out, flags.subset); });
}

}  // namespace
}  // namespace fkdb

int fkdb::RunSubset(int argc, char** argv) {
  fkdb::Flags flags;
  CLI::App app("Makes a smaller label set of a label set: some images, fewer crops, another encoding or kind.", "fkdb-subset");
  AddCommonFlags(app, &flags, "The summary as one line of JSON");
  app.add_option("DB", flags.db, "The label set")->required();
  app.add_option("OUT", flags.out, "The label set to write, NAME.fkdb")->required();
  app.add_option("--images", flags.images, "A text file of the images to keep, one key a line");
  app.add_option("--crops", flags.subset.crops, "Keep the first N crops of each image")->check(CLI::Range(1, 65535));
  app.add_option("--recode", flags.subset.recode,
                 "Another encoding, kind or K, e.g. packed; hard; marginal-smoothing,top-k=3,f16");
  fkdb::AddOutputFlags(app, &flags.subset.file, &flags.subset.provenance);
  return fkdb::RunTool(app, argc, argv, [&] { return fkdb::Run(flags); });
}
