// SPDX-License-Identifier: Apache-2.0
// One teacher, or several that label together: a crop's label is the weighted average of what they say of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/label_spec.h"
#include "format/result.h"
#include "image/crop_inputs.h"
#include "writer/teacher.h"

namespace fkdb {

// What of several teachers is averaged.
enum class Average {
  kProbabilities,  // after each one's softmax at the label set's temperature
  kLogits,
};

std::string_view Name(Average average);  // "probabilities", "logits"
Result<Average> ParseAverage(std::string_view name);

// Borrows the teachers.
struct Ensemble {
  struct Member {
    const Teacher* teacher;
    double weight = 1;  // of all weights together
  };
  std::vector<Member> members;
  Average average = Average::kProbabilities;

  Ensemble(const Teacher& teacher) : members{{&teacher, 1}} {}  // NOLINT: a teacher is an ensemble of one
  explicit Ensemble(std::vector<Member> several, Average averaged = Average::kProbabilities)
      : members(std::move(several)), average(averaged) {}

  uint32_t num_outputs() const { return members[0].teacher->num_outputs(); }
  std::optional<Grid> grid() const { return members[0].teacher->grid(); }
  std::string name() const;  // "a.pt" or "a.pt, b.pt"
};

// Whether these teachers can make such labels together. Errors: InvalidArgument (no teacher, a weight that is not positive,
// other widths or grids; logits asked of probabilities; maps for labels of crops, or none for label maps), says of which teacher.
Result<void> CheckEnsemble(const Ensemble& ensemble, const LabelSpec& spec);

// The inputs that its teachers want, each once, and which of them each teacher sees.
struct EnsembleInputs {
  explicit EnsembleInputs(const Ensemble& ensemble);

  std::vector<InputSpec> specs;
  std::vector<size_t> of_member;
};

// Rows that inputs of n crops have: those behind the crops are zeros.
size_t PaddedRows(size_t n);

// What an ensemble says of crops whose inputs are made. Keeps its memory: one object a thread.
class EnsembleOutputs {
 public:
  // The ensemble was checked; borrows its teachers.
  EnsembleOutputs(const Ensemble& ensemble, float temperature);

  // Asks the teachers. inputs: of each spec of EnsembleInputs (PaddedRows(n), channels, height, width). Errors: the teachers'.
  Result<void> Run(std::span<const float* const> inputs, size_t n);
  OutputKind kind() const;
  // What Run gives of each crop: of label maps the cells, otherwise 1.
  size_t rows_per_crop() const { return rows_per_crop_; }
  // Row i after Run: (C); not all finite if a teacher's were not what they should be, which Culprit then names.
  std::span<const float> output(size_t i) const;
  const Teacher& Culprit(size_t i) const;

  // Of all rows so far, those for which member m's logits were a distribution: all of them, if it ends in a softmax.
  size_t distributions(size_t m) const { return distributions_[m]; }

 private:
  std::span<const float> OutputOf(size_t m, size_t i) const;
  bool IsGood(size_t m, size_t i) const;
  void AverageRow(size_t i);

  Ensemble ensemble_;
  float temperature_;
  size_t rows_per_crop_;
  std::vector<size_t> input_of_;             // of each member
  std::vector<std::vector<float>> outputs_;  // of each member (PaddedRows(n) * rows_per_crop, C)
  std::vector<size_t> distributions_;        // of each member
  std::vector<float> mean_;                  // (n * rows_per_crop, C), of several
  std::vector<float> row_;                   // (C)
  std::vector<double> sum_;                  // (C)
};

// A batch of crops on its way through an ensemble: their inputs and what it says of them. Keeps its memory: one object a thread.
class EnsembleBatch {
 public:
  // For up to `size` crops. The ensemble was checked; borrows its teachers. Errors: InvalidArgument (an input: CropInputs::Make).
  static Result<EnsembleBatch> Make(const Ensemble& ensemble, float temperature, size_t size);

  uint32_t channels() const { return inputs_[0].make.channels(); }
  size_t size() const { return size_; }
  bool full() const { return size_ == max_size_; }
  void Clear() { size_ = 0; }
  // One more crop, while it is not full. box: in the image. Errors: CropInputs::Run's; it was not added then.
  Result<void> Add(const Image& image, const PixelBox& box, bool flip, std::span<const CropOp> ops, const PartnerImages& partners);

  // Asks the teachers. Errors: theirs.
  Result<void> Run();
  const EnsembleOutputs& outputs() const { return outputs_; }

 private:
  struct Input {
    CropInputs make;
    std::vector<float> batch;  // (size rounded up, channels, height, width)
  };
  EnsembleBatch(const Ensemble& ensemble, float temperature, size_t size) : max_size_(size), outputs_(ensemble, temperature) {}

  size_t max_size_, size_ = 0;
  std::vector<Input> inputs_;
  EnsembleOutputs outputs_;
};

}  // namespace fkdb
