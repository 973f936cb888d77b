// SPDX-License-Identifier: Apache-2.0
// What a label set says about itself: its spec, where its images and labels came from, and what it
// holds. Stored as JSON in the file's `meta` database; FORMAT.md lists the fields.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/augment_policy.h"
#include "format/label_spec.h"
#include "format/result.h"

namespace fkdb {

constexpr uint32_t kFormatVersion = 1;

struct DataSetInfo {
  std::string name;
  std::string layout;        // "folder", "webdataset" or "idx"
  uint64_t num_images = 0;
  uint32_t channels = 3;     // 1 or 3, of the decoded images
  std::string key_list_sha256;  // of the keys in order, each followed by a zero byte; hex
  std::vector<std::string> class_names;  // in index order; empty if images have no class
  bool operator==(const DataSetInfo&) const = default;
};

// How a crop became a teacher's input.
struct TeacherInputInfo {
  uint32_t height = 0, width = 0;  // pixels
  std::string interpolation;
  std::vector<double> mean, std;  // (channels), of values in 0 to 1
  bool operator==(const TeacherInputInfo&) const = default;
};

struct TeacherInfo {
  std::string name;    // as the user gave it
  std::string sha256;  // of the teacher's file, hex
  double weight = 0;   // of several teachers; 0: there is one
  std::string output;  // "probabilities"; empty: logits
  std::string autocast;  // "bf16" or "fp16": the type of its products, on a GPU; empty: that of the teacher's file
  TeacherInputInfo input;  // of one that saw something else than the label set's own input (AugmentationInfo); else of height 0
  bool operator==(const TeacherInfo&) const = default;
};

// An input of an average.
struct AveragedInfo {
  std::string digest;
  double weight = 0;
  bool operator==(const AveragedInfo&) const = default;
};

// How crops were sampled and turned into the teacher's input.
constexpr const char* kHighByte = "high-byte";  // value >> 8

struct AugmentationInfo {
  uint32_t crops = 0;  // M, regions an image
  uint64_t seed = 0;
  std::array<double, 2> scale = {0.08, 1};         // of the image's area
  std::array<double, 2> ratio = {3. / 4, 4. / 3};  // width / height
  double flip_probability = 0.5;
  uint32_t input_height = 224;
  uint32_t input_width = 224;
  std::string interpolation = "bilinear";
  std::string resampling = "pillow-integer-horizontal-first";  // image/resample.h, PassOrder
  std::string exif = "ignored";
  std::string wide_samples;  // what became of 16-bit samples: kHighByte; empty where images can have none
  std::vector<double> mean;  // (channels), of values in 0 to 1
  std::vector<double> std;   // (channels)
  AugmentPolicy policy;      // of what else is drawn for a crop, of input_height x input_width pixels
  bool operator==(const AugmentationInfo&) const = default;
};

struct ProvenanceInfo {
  std::string tool;     // "fkdb-write 0.1.0"
  std::string created;  // UTC, ISO 8601
  std::string licence;
  std::string notes;
};

struct Manifest {
  // The recipe: fixed when writing starts; a resumed build must ask for the same.
  LabelSpec spec;
  DataSetInfo data_set;
  std::vector<TeacherInfo> teachers;
  std::string teacher_average;  // "probabilities" or "logits" of several teachers; empty: there is one
  AugmentationInfo augmentation;
  uint32_t teacher_batch_size = 0;
  std::string imported_from;  // the format that the labels were converted from ("fkd"); empty if they were made here
  std::string imported_sample;  // XXH3-64 of the first image's labels as they came, hex: tells apart what one resumes with
  std::vector<AveragedInfo> averaged;  // the label sets whose average this is; or empty
  std::string boxes_from;  // digest of the label set whose boxes and flips these are; empty: they were drawn for it
  std::string extends;  // digest of the label set that the first crops of each image are from; or empty

  // The outcome: counts so far, and once finished the digest.
  uint64_t num_images = 0;  // records, skipped ones included
  uint64_t num_crops = 0;
  std::vector<uint64_t> skipped;  // ordinals of images without crops, ascending
  std::string contents_sha256;    // of the images' sizes and files, in hex; empty where they are not known
  std::string digest;             // "sha256:.." (db/digest.h); empty until finished
  bool complete = false;

  ProvenanceInfo provenance;
};

// Two-space indented JSON.
std::string ToJson(const Manifest& manifest);
// features: those the caller knows. Errors: Corruption (not a manifest; names the field), Unsupported
// (newer version, another feature).
Result<Manifest> ParseManifest(std::string_view json, std::span<const std::string_view> features = {});

// What the shards of one label set have in common: everything but which images they hold.
Manifest WithoutImages(Manifest manifest);

// The first difference between two recipes, e.g. "labels.top_k: 5 in the file, 10 asked for";
// empty if there is none.
struct DifferenceWords {
  std::string_view stored = "in the file";
  std::string_view wanted = "asked for";
};
std::string RecipeDifference(const Manifest& stored, const Manifest& wanted, const DifferenceWords& words = {});

}  // namespace fkdb
