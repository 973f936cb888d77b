#include <algorithm>
#include <cstdio>
#include "format/recover.h"
#include "reader/label_batch.h"

int main(int argc, char** argv) {
  const auto reader = fkdb::Reader::Open(argc > 1 ? argv[1] : "labels.fkdb");
  if (!reader) return std::fprintf(stderr, "%s\n", reader.error().message.c_str()), 1;
  const uint32_t crops[] = {0, 3};  // two stored crops of image 7, mapped, not copied, until here
  const fkdb::CropRequest request = {7, crops};
  fkdb::LabelBatch batch;
  if (auto filled = fkdb::FillBatch(*reader, {&request, 1}, &batch); !filled) return 1;
  fkdb::LabelArrays labels;  // (2, K) indices and values, and the first crop's C probabilities
  batch.Expand(&labels);
  const fkdb::LabelSpec& spec = reader->spec();
  std::vector<float> dense(spec.num_classes);
  fkdb::RecoverCrop(spec, std::span(labels.indices).first(spec.num_indices()),
                    std::span(labels.values).first(spec.num_values()), /*tau=*/1, dense);
  const auto best = std::max_element(dense.begin(), dense.end());
  std::printf("top-1 of image 7's first crop, of %llu images: class %td, p %.3f\n",
              (unsigned long long)reader->num_images(), best - dense.begin(), *best);
}
