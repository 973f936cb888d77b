// SPDX-License-Identifier: Apache-2.0
// Labels one group: consecutive images whose crops fill whole teacher batches.
//
// A teacher's bits depend on the batch, so batches must not depend on threads, ranks or resumes.
// With M crops an image and batches of B crops, a group is B / gcd(B, M) images: group g holds
// images g x size to (g + 1) x size - 1, its crops in (image, crop) order make M / gcd(B, M) full
// batches, and a group is always computed whole. Only the last group, and one with a skipped
// image, end in a smaller batch.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "db/label_set.h"
#include "db/manifest.h"
#include "format/record.h"
#include "format/result.h"
#include "image/crop_sampler.h"
#include "image/data_set.h"
#include "writer/ensemble.h"

namespace fkdb {

// Images a group.
uint64_t GroupSize(uint32_t batch_size, uint32_t crops_per_image);

class GroupLabeller {
 public:
  // `recipe`: spec, sampling, class names and teacher_batch_size are used. With `base`, a label set
  // of the same images, its crops come first and only those beyond them are labelled, in groups of
  // their own. Borrows data set, teachers and base. Errors: InvalidArgument (sampling, a teacher's input).
  static Result<GroupLabeller> Make(const DataSet& data, const Ensemble& teachers, const Manifest& recipe,
                                    bool skip_bad, const LabelSet* base = nullptr);

  // The encoded records of images [first, end), which must be one group (or the last one).
  // `crops_done` counts up as crops are labelled; `stop` ends the work early: the result is then
  // empty. One thread at a time; use one labeller a thread.
  // Errors: a bad image (without skip_bad), Mismatch (not the image that `base` has labels of),
  // non-finite outputs, and those of the teacher.
  Result<std::vector<std::vector<std::byte>>> Label(uint64_t first, uint64_t end,
                                                    std::atomic<uint64_t>* crops_done,
                                                    const std::atomic<bool>* stop);

  // What went through the teachers.
  const EnsembleBatch& batch() const { return batch_; }

 private:
  GroupLabeller(const DataSet& data, EnsembleBatch batch, const Manifest& recipe, bool skip_bad, const LabelSet* base,
                CropSampler sampler);

  // Fills the record's fields that come from the image, and the boxes and flips of its new crops.
  // No image: it is skipped.
  Result<std::optional<Image>> BeginImage(uint64_t ordinal, Record* record);
  // The image's crops in `base`.
  Result<RecordView> BaseOf(uint64_t ordinal) const;
  Result<std::vector<std::byte>> Encode(uint64_t ordinal, const Record& record) const;
  // Labels the crops in the batch and clears it.
  Result<void> RunBatch(std::vector<Record>* records, uint64_t first);

  struct Slot {
    size_t record;  // of the group
    uint32_t crop;
  };

  const DataSet& data_;
  LabelSpec spec_;
  AugmentationInfo augmentation_;
  bool skip_bad_;
  const LabelSet* base_;
  uint32_t crops_;  // to label of each image
  bool has_classes_;
  CropSampler sampler_;
  EnsembleBatch batch_;
  std::vector<Slot> slots_;  // the crops in it
  std::vector<std::byte> file_;
};

}  // namespace fkdb
