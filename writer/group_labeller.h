// SPDX-License-Identifier: Apache-2.0
// Labels one group: consecutive images whose crops fill whole teacher batches. Of a label map the teacher sees one crop, the image
// as it is, and says something of every cell.
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
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "db/label_set.h"
#include "db/manifest.h"
#include "format/record.h"
#include "format/result.h"
#include "image/augment_sampler.h"
#include "format/crop_sampler.h"
#include "image/data_set.h"
#include "image/partner_images.h"
#include "writer/ensemble.h"
#include "writer/progress.h"

namespace fkdb {

// A label set of the same images that crops come from; neither: all are drawn.
struct StoredCrops {
  const LabelSet* base = nullptr;   // has the first crops of each image, with their labels
  const LabelSet* boxes = nullptr;  // has boxes and flips of all crops to label
};

constexpr uint64_t kAnyBad = std::numeric_limits<uint64_t>::max();

// Images a group.
uint64_t GroupSize(uint32_t batch_size, uint32_t crops_per_image);
// How many crops of an image a teacher sees, of `crops` that are labelled.
inline uint32_t CropsSeen(const LabelSpec& spec, uint32_t crops) { return spec.is_map() ? 1 : crops; }

class GroupLabeller {
 public:
  // `recipe`: spec, sampling, class names and teacher_batch_size are used. With stored.base only the crops
  // beyond its own are labelled, in groups of their own. max_bad: how many images that cannot be read are recorded as
  // skipped, by all that share their counters. partners: of `data`, where several labellers share them. Borrows data set, teachers and label sets.
  // Errors: InvalidArgument (sampling, a teacher's input).
  static Result<GroupLabeller> Make(const DataSet& data, const Ensemble& teachers, const Manifest& recipe,
                                    uint64_t max_bad, const StoredCrops& stored = {},
                                    std::shared_ptr<const PartnerImages> partners = nullptr);

  // The encoded records of images [first, end), which must be one group (or the last one).
  // `counters` may be null; `stop` ends the work early: the result is then
  // empty. One thread at a time; use one labeller a thread.
  // Errors: a bad image (more than max_bad), Mismatch (not the image that stored crops are of), Unsupported
  // (stored crops with operations of another system), non-finite outputs, and those of the teacher.
  Result<std::vector<std::vector<std::byte>>> Label(uint64_t first, uint64_t end,
                                                    LabelCounters* counters,
                                                    const std::atomic<bool>* stop);

  // What went through the teachers.
  const EnsembleBatch& batch() const { return batch_; }

 private:
  GroupLabeller(const DataSet& data, EnsembleBatch batch, const Manifest& recipe, uint64_t max_bad,
                const StoredCrops& stored, CropSampler sampler, AugmentSampler augment_sampler, std::shared_ptr<const PartnerImages> partners);

  tl::unexpected<Error> About(uint64_t ordinal, const Error& error) const;
  // Fills the record's fields that come from the image, and the boxes and flips of its new crops, boxes_ too.
  // No image: it is skipped.
  Result<std::optional<Image>> BeginImage(uint64_t ordinal, Record* record);
  Result<void> DrawCrops(uint64_t ordinal, uint32_t first_crop, Record* record);
  // The operations of one crop.
  Result<std::vector<CropOp>> DrawOps(uint64_t ordinal, uint64_t key_hash, uint32_t crop) const;
  Result<void> TakeCrops(const RecordView& from, Record* record);
  Result<RecordView> StoredOf(const LabelSet& set, uint64_t ordinal) const;
  Result<std::vector<std::byte>> Encode(uint64_t ordinal, const Record& record) const;
  // Crop number `crop` of the image at hand into the batch.
  Result<void> AddCrop(const Image& image, bool flip, std::span<const CropOp> ops, uint32_t crop);
  // Labels the crops in the batch and clears it.
  Result<void> RunBatch(std::vector<Record>* records, uint64_t first);

  struct Slot {
    size_t record;  // of the group
    uint32_t crop;  // of a label map its first cell
  };

  const DataSet& data_;
  LabelSpec spec_;
  AugmentationInfo augmentation_;
  uint64_t max_bad_;
  LabelCounters* counters_ = nullptr;  // of the call at hand
  StoredCrops stored_;
  uint32_t crops_;  // to draw for each image
  bool has_classes_;
  CropSampler sampler_;
  AugmentSampler augment_sampler_;
  std::shared_ptr<const PartnerImages> partners_;
  EnsembleBatch batch_;
  std::vector<Slot> slots_;      // the crops in it
  std::vector<PixelBox> boxes_;  // of the image at hand
  std::vector<std::byte> file_;
};

}  // namespace fkdb
