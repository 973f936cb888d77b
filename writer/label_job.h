// SPDX-License-Identifier: Apache-2.0
// Builds a label set: every image of a data set, M random crops each, labelled by a teacher, into one
// label file. Groups are labelled on several threads and written in order, so that the digest does
// not depend on their number, on kills or on resumes.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "db/label_file_writer.h"
#include "db/label_set.h"
#include "db/manifest.h"
#include "format/result.h"
#include "image/data_set.h"
#include "writer/ensemble.h"
#include "writer/group_labeller.h"
#include "writer/group_run.h"

namespace fkdb {

struct LabelJobOptions {
  // Changes behaviour.
  LabelSpec spec;                 // num_classes is the teacher's, of label maps the grid too
  AugmentationInfo augmentation;  // of label maps, which are of whole images, crops are the cells, and it says how students draw theirs
  // A label set of the same images, recipe and teacher: the output has its crops and augmentation.crops
  // more of each image. Images it skipped stay skipped. Empty: label from the start.
  std::filesystem::path append_to;
  // A label set of the same images: its boxes and flips, as they are stored, are labelled, and no others. Images it skipped stay
  // skipped. Not together with append_to.
  std::filesystem::path boxes_from;
  uint32_t batch_size = 64;  // crops a teacher batch: a different one may give other last bits
  uint64_t max_bad = 0;      // so many images that cannot be read are recorded as skipped; one more stops this run. kAnyBad: any number
  bool use_classes = true;   // the data set's classes are the teacher's; off: images have none
  LabelFileWriterOptions file;
  ProvenanceInfo provenance;

  // Changes performance, never the digest.
  int threads = 1;

  // Called now and then from the calling thread.
  std::function<void(const LabelProgress&)> progress;
  // When it turns true, what is done is committed and the job ends with `interrupted`.
  const std::atomic<bool>* stop = nullptr;
};

struct LabelJobResult {
  Manifest manifest;         // final, unless interrupted
  bool interrupted = false;
  uint64_t images_written = 0;
  LabelProgress progress;
};

// The label set that a job's options name, opened.
struct OpenedCrops {
  std::optional<LabelSet> set;
  StoredCrops crops() const { return {appended ? &*set : nullptr, set && !appended ? &*set : nullptr}; }
  bool appended = false;
};
Result<OpenedCrops> OpenStoredCrops(const LabelJobOptions& options);

// The manifest a job starts from. `stored`: options.append_to or boxes_from, opened. Errors: InvalidArgument (an option
// that makes no sense, teachers whose outputs are not the data set's classes or that do not go together, another
// recipe than that of the crops before), Mismatch (other images than those of stored crops), ResourceExhausted (records over
// 1 GiB).
Result<Manifest> PlanRecipe(const DataSet& data, const Ensemble& teachers, const LabelJobOptions& options,
                            const StoredCrops& stored = {});

// Errors: those of PlanRecipe, LabelFileWriter and GroupLabeller.
Result<LabelJobResult> LabelImages(const DataSet& data, const Ensemble& teachers, const std::filesystem::path& out,
                                   const LabelJobOptions& options);

}  // namespace fkdb
