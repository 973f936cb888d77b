// SPDX-License-Identifier: Apache-2.0
#include "db/write_images.h"

#include <fmt/format.h>

#include <utility>

#include "db/label_file_writer.h"
#include "db/sha256.h"

namespace fkdb {
namespace {

std::vector<std::string> KeysOf(const std::vector<SourceImage>& images) {
  std::vector<std::string> keys;
  keys.reserve(images.size());
  for (const SourceImage& image : images) keys.push_back(image.key);
  return keys;
}

}  // namespace

Manifest OutputRecipe(Manifest recipe, const std::vector<SourceImage>& images, const RewriteOptions& options) {
  recipe.data_set.num_images = images.size();
  recipe.data_set.key_list_sha256 = Sha256OfKeys(KeysOf(images));
  recipe.provenance = options.provenance;
  recipe.num_images = recipe.num_crops = 0;
  recipe.skipped.clear();
  recipe.contents_sha256.clear();
  recipe.digest.clear();
  recipe.complete = false;
  return recipe;
}

Result<Manifest> WriteImages(const std::filesystem::path& out, Manifest recipe, const std::vector<SourceImage>& images,
                             const RewriteOptions& options,
                             const std::function<Result<std::vector<std::byte>>(const SourceImage&)>& record) {
  FKDB_ASSIGN(LabelFileWriter writer, LabelFileWriter::Open(out, OutputRecipe(std::move(recipe), images, options), options.file));
  for (uint64_t i = writer.num_images(); i < images.size(); ++i) {
    if (options.stop && options.stop->load()) {
      FKDB_TRY(writer.Flush());
      return Fail(ErrorCode::kIncomplete, fmt::format("stopped after {} of {} images; the same command with --resume continues", i, images.size()));
    }
    FKDB_ASSIGN(std::vector<std::byte> bytes, record(images[i]));
    FKDB_TRY(writer.Append(std::move(bytes)));
    if (options.progress && i % 256 == 0) options.progress(i, images.size());
  }
  return writer.Finish(KeysOf(images));
}

}  // namespace fkdb
