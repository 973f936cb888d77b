// SPDX-License-Identifier: Apache-2.0
// Labels filed by batch, as dataset distillation has them: which images a batch is of stands in another file.
// A batch is a list, as torch.save writes it:
//
//   coords      f4 or f2 (B, 4)   as FKD's
//   flip        b1 (B,)
//   rand        only with RandAugment: for each operation (index (B,), applied (B,), value (B,)) of its own list
//   mix_index   (B,) or None      who in the batch is mixed in
//   mix_lambda  number or None    of the whole batch
//   mix_bbox    [top, left, bottom, right] in pixels of the input, or None: mixup
//   output      f4 or f2 (B, C): logits (SRe2L, CDA) or softmax (HALD); or (B, K): the K largest logits (LPQLD), with
//   indices     i2 (B, K)
//
//   system  files                                   order of the images
//   sre2l   epoch_E/batch_N.tar, a batch            a file the user gives: ids of each epoch
//   lpqld   batch_N.tar, a batch                    sampler_indices_batch.json: {"N": [ids]}
//   hald    epoch_E.tar, a list of batches          sampler_indices_dict.pt: {"E": [ids]}
//
// ids count images in ImageFolder's order.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/label_source.h"

namespace fkdb {

enum class BatchSystem : uint8_t { kSre2l, kLpqld, kHald };

struct BatchFilesOptions {
  std::filesystem::path order;         // kSre2l: JSON {"E": [ids]}, or torch.save of such a dict or of a tensor (E, images)
  float temperature = 1;               // kLpqld with K: of the softmax that makes probabilities of the K logits
  uint64_t memory_bytes = 4ull << 30;  // for labels on their way from batches to images: less means more passes over the files
  int threads = 1;
};

// Borrows the data set. Errors: NotFound (no batches, no order), Mismatch (an order that is not of these images or batches), those of reading.
Result<std::unique_ptr<LabelSource>> OpenBatchFiles(BatchSystem system, const std::filesystem::path& root, const LabelledImages& images,
                                                    const BatchFilesOptions& options);

}  // namespace fkdb
