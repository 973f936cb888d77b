// SPDX-License-Identifier: Apache-2.0
// The same labelling as label_job.h by several processes, on one machine or many that share a file system: each claims groups of images
// until none is left and writes them into a shard of its own; the first process then joins the shards. What is labelled
// does not depend on who labels it: the digest is that of one process.
//
// Claims live in the store and die with it. What counts is what was committed to the shards: a job that is started again,
// with any number of processes, gathers them and goes on with the rest.
#pragma once

#include <filesystem>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/ensemble.h"
#include "writer/label_job.h"
#include "writer/shared_store.h"

namespace fkdb {

struct SharedJobOptions {
  // Keep the shards, and make OUT the index of a collection of them, instead of copying them into one file.
  bool collection = false;
};

// Every process calls it with the same arguments but its own store. options.file.resume goes on where processes were stopped, whatever
// their number, also where there was one. The manifest is the result's on rank 0 alone; progress is that of all together.
// Errors: those of LabelImages, MergeLabelSets and CollectLabelSets; Incomplete (another process failed: says which, and why),
// InvalidArgument (this process has other options than rank 0: says which), NotFound (the folder of OUT is not that of rank 0).
Result<LabelJobResult> LabelImagesTogether(const DataSet& data, const Ensemble& teachers, const std::filesystem::path& out,
                                           const LabelJobOptions& options, const SharedJobOptions& shared, SharedStore* store);

// For what fails before that: the others need not go on. Of several failures they are told the first. Who holds the store stays until they
// have heard, or for half a minute.
void TellFailure(const Error& error, SharedStore* store);

}  // namespace fkdb
