// SPDX-License-Identifier: Apache-2.0
// New label files from finished ones: the shards of one label set joined, or a part of a label set
// taken out, in another encoding or kind if asked. Images are numbered anew in key order, which no
// record notices: none refers to an ordinal. Written like any label file: `.partial`, resumable,
// never half under its final name.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "db/label_file_writer.h"
#include "db/manifest.h"
#include "format/result.h"

namespace fkdb {

struct RewriteOptions {
  LabelFileWriterOptions file;
  ProvenanceInfo provenance;
  // Called now and then, from the calling thread: images written, images in all.
  std::function<void(uint64_t, uint64_t)> progress;
  // When it turns true, what is done is committed and Incomplete is returned.
  const std::atomic<bool>* stop = nullptr;
};

// Each input is a label file or a collection.

// Joins label sets of the same spec, classes, teachers and recipe, and of disjoint images. Records
// are copied as they lie; no label is decoded. Errors: Mismatch (names the two files and the first
// difference, or an image that both have), those of LabelSet and LabelFileWriter.
Result<Manifest> MergeLabelSets(std::span<const std::filesystem::path> inputs, const std::filesystem::path& out,
                                const RewriteOptions& options);

// The same without a copy: writes an index file that names the inputs' files, which together are one
// label set, with the digest a merge would have. Reads every record. There is nothing to resume.
Result<Manifest> CollectLabelSets(std::span<const std::filesystem::path> inputs, const std::filesystem::path& out,
                                  const RewriteOptions& options);

struct SubsetOptions : RewriteOptions {
  std::vector<std::string> images;  // keys to keep, any order; empty: all
  uint32_t crops = 0;               // keep the first so many of each image; 0: all
  std::string recode;               // ParseRecode (format/recode.h); empty: as they are
};

// Errors: NotFound (an image that is not in it), InvalidArgument (an image named twice; a recode that
// cannot be), those of LabelSet and LabelFileWriter.
Result<Manifest> SubsetLabelSet(const std::filesystem::path& input, const std::filesystem::path& out,
                                const SubsetOptions& options);

}  // namespace fkdb
