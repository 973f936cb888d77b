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
  fkdb::LabelArrays labels;  // from 14 bytes a crop to (2, K) indices and values, and on to C probabilities of the first
  batch.Expand(&labels);
  const uint32_t k = reader->spec().top_k;
  std::vector<float> dense(reader->spec().num_classes);
  fkdb::RecoverCrop(reader->spec(), {labels.indices.data(), k}, {labels.values.data(), k}, /*tau=*/1, dense);
  std::printf("top-1 of %llu images' crop: class %u, p %.3f\n", (unsigned long long)reader->num_images(),
              labels.indices[0], dense[labels.indices[0]]);
}
