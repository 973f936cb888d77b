// SPDX-License-Identifier: Apache-2.0
// Builds a label set from whatever labels images, one after the other in key order: other people's
// training loops, converters. label_job.h is the one that also runs the teacher.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "db/label_file_writer.h"
#include "db/manifest.h"
#include "format/record.h"
#include "format/result.h"
#include "format/crop_sampler.h"
#include "writer/crop_output.h"

namespace fkdb {

class LabelWriter {
 public:
  // keys: of all images, any order. Of `recipe` the number of images and the hash of their keys are set
  // here; augmentation.crops is what every image gets. Errors: InvalidArgument (the spec; a key that comes
  // twice or is empty; the sampling), ResourceExhausted (records over 1 GiB), and those of LabelFileWriter.
  static Result<LabelWriter> Open(const std::filesystem::path& path, Manifest recipe, std::vector<std::string> keys,
                                  const LabelFileWriterOptions& options = {});

  const std::vector<std::string>& keys() const { return keys_; }   // in the order in which they are written
  uint64_t num_images() const { return writer_.num_images(); }     // written, those of an earlier run included
  const Manifest& recipe() const { return recipe_; }

  // The crops that the recipe's seed and sampling give this image: a function of the key, its size and they.
  // Errors: NotFound (a key that is not among the keys).
  Result<std::vector<SampledCrop>> Sample(std::string_view key, uint32_t width, uint32_t height) const;

  // The next image: its size, class, content hash (zero: unknown), boxes and flips, and the teacher's outputs
  // for them, outputs (M, C). Errors: InvalidArgument (not the next key; not M crops; a box outside the image;
  // a class without a name; another number of outputs), Model (outputs that are no logits or distributions),
  // and those of LabelFileWriter. Nothing is written after an error.
  Result<void> Append(std::string_view key, Record record, std::span<const float> outputs, size_t num_outputs, OutputKind kind);
  // The next image has no labels, and why.
  Result<void> Skip(std::string_view key, std::string_view reason);

  Result<void> Flush() { return writer_.Flush(); }
  // Errors: Incomplete (images are missing: names the next), and those of LabelFileWriter.
  Result<Manifest> Finish();

 private:
  LabelWriter(Manifest recipe, std::vector<std::string> keys, CropSampler sampler, LabelFileWriter writer);
  Result<void> CheckNext(std::string_view key) const;

  Manifest recipe_;
  std::vector<std::string> keys_;
  CropSampler sampler_;
  LabelFileWriter writer_;
};

}  // namespace fkdb
