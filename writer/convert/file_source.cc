// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/file_source.h"

#include <fmt/format.h>

#include <utility>

#include "writer/convert/label_files.h"
#include "writer/convert/torch_file.h"

namespace fkdb {
namespace {

using Parse = std::function<Result<ImageLabels>(const PickleValue&)>;

class FileSource : public LabelSource {
 public:
  FileSource(LabelFiles files, Parse parse) : files_(std::move(files)), parse_(std::move(parse)) {
    unlabelled_ = files_.unlabelled();
    strays_ = files_.strays();
  }

  std::string PathOf(uint64_t ordinal) const override { return files_.Expected(ordinal).string(); }

  Result<ImageLabels> Load(uint64_t ordinal) const override {
    FKDB_ASSIGN(const std::filesystem::path path, files_.PathOf(ordinal));
    FKDB_ASSIGN(const TorchFile file, TorchFile::Read(path));
    auto labels = parse_(file.root());
    if (!labels) return Fail(labels.error().code, fmt::format("{}: {}", path.string(), labels.error().message));
    return labels;
  }

 private:
  LabelFiles files_;
  Parse parse_;
};

}  // namespace

Result<std::unique_ptr<LabelSource>> OpenLabelFiles(const std::filesystem::path& root, const std::filesystem::path& folder, const LabelledImages& images,
                                                    const std::string& extension, Parse parse) {
  FKDB_ASSIGN(LabelFiles files, LabelFiles::Find(root, folder, images, extension));
  return std::unique_ptr<LabelSource>(std::make_unique<FileSource>(std::move(files), std::move(parse)));
}

Result<std::vector<uint32_t>> ClassesOf(const Array& array) {
  auto numbers = array.Integers();
  if (!numbers) return Fail(ErrorCode::kCorruption, numbers.error().message + ": expected classes");
  std::vector<uint32_t> classes;
  classes.reserve(numbers->size());
  for (const int64_t number : *numbers) {
    if (number < 0 || number >= kMaxClasses) return Fail(ErrorCode::kCorruption, fmt::format("class {}", number));
    const uint32_t limit = array.dtype() == DType::kF16 ? kHalfClasses - 1 : array.dtype() == DType::kBf16 ? 256 : kMaxClasses;
    if (number >= limit) {
      return Fail(ErrorCode::kUnsupported,
                  fmt::format("class {} as {}, which has no room for classes above {}: it may be a neighbour. Make the labels again in float32",
                              number, array.dtype() == DType::kF16 ? "float16" : "bfloat16", limit));
    }
    classes.push_back(static_cast<uint32_t>(number));
  }
  return classes;
}

}  // namespace fkdb
