// SPDX-License-Identifier: Apache-2.0
#include "trainer/teacher_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace fkdb {
namespace {

using Json = nlohmann::json;

constexpr const char* kFields = "input_size, interpolation, mean, std, output";
constexpr uint64_t kMostPixels = 1 << 14;  // a side
constexpr double kLeastStd = 1e-4, kMostStd = 10;
constexpr std::streamsize kMostBytes = 1 << 16;

// Reads one card; says which file and field is wrong.
class CardReader {
 public:
  CardReader(const std::filesystem::path& path, TeacherCard* card) : path_(path), card_(*card) {}

  Result<void> Read(const Json& json) {
    if (!json.is_object()) return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: expected a JSON object with any of {}", path_.string(), kFields));
    for (const auto& [field, value] : json.items()) FKDB_TRY(ReadField(field, value));
    return {};
  }

 private:
  Result<void> ReadField(const std::string& field, const Json& value) {
    if (field == "crop_pct" || field == "crop_mode") return {};
    if (field == "input_size") return ReadSize(value);
    if (field == "mean" || field == "std") {
      const bool numbers = value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& v) { return v.is_number(); });
      const size_t channels = card_.input.mean.size();
      if (!numbers || value.size() != channels) return Bad(field, value, fmt::format("a list of {}, one for each channel of the images", channels));
      const auto list = value.get<std::vector<double>>();
      const double least = field == "mean" ? 0 : kLeastStd, most = field == "mean" ? 1 : kMostStd;
      if (std::any_of(list.begin(), list.end(), [&](double v) { return !(v >= least && v <= most); })) {
        return Bad(field, value, fmt::format("numbers from {} to {}: pixel values count from 0 to 1", least, most));
      }
      (field == "mean" ? card_.input.mean : card_.input.std) = list;
      return {};
    }
    if (field == "interpolation") {
      if (value == "bilinear" || value == "bicubic") {
        FKDB_ASSIGN(card_.input.interpolation, ParseInterpolation(value.get<std::string>()));
        return {};
      }
      return Bad(field, value, "\"bilinear\" or \"bicubic\"");
    }
    if (field == "output") {
      if (value != "logits" && value != "probabilities") return Bad(field, value, "\"logits\" or \"probabilities\"");
      card_.output = value == "logits" ? OutputKind::kLogits : OutputKind::kProbabilities;
      return {};
    }
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: field '{}' is not known: expected {}", path_.string(), field, kFields));
  }

  Result<void> ReadSize(const Json& value) {
    const auto is_side = [](const Json& v) { return v.is_number_unsigned() && v.get<uint64_t>() >= 1 && v.get<uint64_t>() <= kMostPixels; };
    Json sides = value.is_number() ? Json::array({value, value}) : value;
    if (sides.is_array() && sides.size() == 3 && sides[0] == card_.input.mean.size()) sides.erase(0);
    if (!sides.is_array() || sides.size() != 2 || !is_side(sides[0]) || !is_side(sides[1])) {
      return Bad("input_size", value, fmt::format("N, [H, W] or [{}, H, W] of 1 to {} pixels", card_.input.mean.size(), kMostPixels));
    }
    card_.input.height = sides[0].get<uint32_t>();
    card_.input.width = sides[1].get<uint32_t>();
    card_.says_size = true;
    return {};
  }

  tl::unexpected<Error> Bad(const std::string& field, const Json& value, const std::string& expected) const {
    std::string found = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (found.size() > 60) found = found.substr(0, 57) + "...";
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: field '{}' is {}: expected {}", path_.string(), field, found, expected));
  }

  const std::filesystem::path& path_;
  TeacherCard& card_;
};

}  // namespace

Result<TeacherCard> ReadTeacherCard(const std::filesystem::path& file, const InputSpec& otherwise) {
  TeacherCard card = {otherwise};
  std::filesystem::path path = file;
  path += ".json";
  std::error_code ec;
  if (std::filesystem::symlink_status(path, ec).type() == std::filesystem::file_type::not_found) return card;
  std::string text(kMostBytes, '\0');
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot open it", path.string()));
  stream.read(text.data(), kMostBytes);
  if (stream.gcount() == kMostBytes) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: longer than {} bytes: expected a few fields ({})", path.string(), kMostBytes, kFields));
  }
  text.resize(static_cast<size_t>(stream.gcount()));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  FKDB_TRY(CardReader(path, &card).Read(json.is_discarded() ? Json() : json));
  return card;
}

}  // namespace fkdb
