// SPDX-License-Identifier: Apache-2.0
// Makes a label file of labels that are in somebody else's form (label_source.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "db/label_file_writer.h"
#include "db/manifest.h"
#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/label_source.h"

namespace fkdb {

struct ConvertProgress {
  uint64_t images = 0, all_images = 0;  // those of earlier runs included
  uint64_t images_read = 0;             // by this run
  double seconds = 0;
};

struct ConvertOptions {
  // Changes behaviour. What is not given is what loses nothing.
  std::string format;                    // for the manifest: "fkd"
  std::filesystem::path source;          // where the labels are; reasons that are recorded leave it out
  std::optional<LabelKind> kind;         // needed where the labels don't tell
  std::optional<uint32_t> top_k;         // other labels are refused
  uint32_t num_classes = 0;              // C
  float temperature = 1;                 // of the teacher's softmax, for the manifest
  std::optional<ValueEncoding> values;   // f16 if all values are float16, f32 otherwise
  std::optional<BoxEncoding> boxes;      // pixel if that is exact for most images, otherwise fractions. kPixel: even where it is not
  std::optional<uint32_t> crops;         // the first so many of each image; all of them
  AugmentationInfo augmentation;         // how students are to see the crops; crops is set here
  bool use_classes = true;               // the data set's classes are the labels'; off: images have none
  bool skip_bad = false;                 // record images without usable labels as skipped instead of stopping
  bool dry_run = false;                  // everything but writing
  LabelFileWriterOptions file;
  std::vector<TeacherInfo> teachers;
  ProvenanceInfo provenance;

  // Changes performance, never the digest.
  int threads = 1;

  std::function<void(const ConvertProgress&)> progress;
  const std::atomic<bool>* stop = nullptr;
};

// What happened, or would: counted over the images that this run read.
struct ConvertSummary {
  Manifest manifest;          // final; of a dry run or an interrupted one: the recipe
  bool interrupted = false;
  uint64_t images_written = 0;
  uint64_t images = 0, crops = 0;
  uint64_t record_bytes = 0;
  uint64_t boxes = 0, rounded_boxes = 0;  // rounded: of no whole pixels, under boxes = kPixel
  uint64_t sorted_crops = 0;              // whose values were not in descending order
  uint64_t dropped_crops = 0;             // beyond options.crops
  uint64_t short_images = 0;              // with fewer crops than the others
  NameList refused;                       // "key: why"
  std::optional<Error> first_refusal;
  NameList strays;                        // labels without an image
  double seconds = 0;
};

// Errors: Mismatch (images without labels, unless skip_bad), InvalidArgument (an option that makes no sense, or
// that the labels need), those of the source with the image's key, and those of LabelFileWriter.
Result<ConvertSummary> ConvertLabels(LabelSource& source, const DataSet& data, const std::filesystem::path& out,
                                     const ConvertOptions& options);

}  // namespace fkdb
