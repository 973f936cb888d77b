// SPDX-License-Identifier: Apache-2.0
// Where the bytes of a label file go, what the paper's Table 2 would count for the same labels, and
// how sure and how right the teacher was.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "format/result.h"
#include "reader/reader.h"

namespace fkdb {

struct AuditReport {
  uint64_t images = 0;
  uint64_t skipped = 0;
  uint64_t crops = 0;
  uint64_t file_bytes = 0;
  double bytes_per_crop = 0;  // file_bytes / crops

  // Bytes by part; they add up to file_bytes.
  struct Part {
    std::string name;
    uint64_t bytes;
  };
  std::vector<Part> parts;

  // The paper's count for the same N, M, K, C: 4 bytes for each number, no file format.
  struct Table2Row {
    std::string kind;  // "hard", "smoothing", "marginal K=5", "marginal K=10", "full"; ReLabel's: "label map K=5", "label map full"
    double numbers_per_crop;  // D_label + 5: box and flip, as Table 2 counts them; a label map's cells, shared by M crops
    double bytes;
  };
  std::vector<Table2Row> table2;
  double table2_bytes_per_crop = 0;  // for this label set's own kind

  // Over all crops of images with a class; of no meaning (0) without classes or for logits.
  uint64_t labelled_crops = 0;
  double teacher_agreement = 0;  // share of crops whose top-1 is the image's class
  double mean_entropy = 0;       // nats, of the recovered label
  double mean_top1 = 0;          // mean of the largest probability
  double mean_tail = 0;          // mean probability outside the stored K
  // Crops by the entropy of their label, in equal steps from 0 to ln C, the most there can be.
  std::vector<uint64_t> entropy_histogram;
  // Crops by their top-1 class, of the classes that have any.
  uint64_t classes_seen = 0;
  uint64_t fewest_crops = 0, median_crops = 0, most_crops = 0;
  double distinct_classes = 0;   // mean number of classes an image's stored indices name; 0 without indices
  uint64_t duplicate_images = 0; // images whose file is, byte for byte, that of an earlier one

  // What labels like these would take for other data sets: as many crops an image, as many bytes a crop.
  struct Projection {
    std::string data_set;
    uint64_t images;
    double bytes;
  };
  std::vector<Projection> projections;
};

// Reads every record. Errors: Corruption, NotFound.
Result<AuditReport> Audit(const Reader& reader);

// What fkdb-audit --json prints, one line.
std::string ToJson(const AuditReport& report);

// Table 2's rows for N images of M crops and C classes, and of label maps of so many cells: the paper's are 15 x 15.
std::vector<AuditReport::Table2Row> Table2(double images, double crops_per_image, double num_classes, double cells = 15 * 15);

}  // namespace fkdb
