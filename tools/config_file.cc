// SPDX-License-Identifier: Apache-2.0
#include "tools/config_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>

namespace fkdb {
namespace {

const std::set<std::string, std::less<>> kNotForFiles = {"config", "print-config", "help", "version", "json", "quiet"};

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream in(list);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

// Of a flag, "--name=.." or "--name".
std::string_view NameOf(std::string_view argument) {
  if (!argument.starts_with("--")) return {};
  return argument.substr(2, argument.find('=') - 2);
}

// A value as the command line takes it, or none.
std::optional<std::string> Text(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return fmt::format("{}", number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* truth = node.as_boolean()) return truth->get() ? "true" : "false";
  const auto* list = node.as_array();
  if (list == nullptr) return std::nullopt;
  std::vector<std::string> parts;
  for (const toml::node& part : *list) {
    if (part.is_array()) return std::nullopt;
    const auto text = Text(part);
    if (!text) return std::nullopt;
    parts.push_back(*text);
  }
  return fmt::format("{}", fmt::join(parts, ","));
}

bool IsTomlNumber(const std::string& text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool digits = !text.empty() && text.find_first_not_of("+-.0123456789eE") == std::string::npos;
  const bool large = text.find_first_of(".eE") == std::string::npos && std::abs(number) >= 9e18;  // more than TOML promises
  return error == std::errc() && end == text.data() + text.size() && digits && !large && text.back() != '.' && text.front() != '.';
}

std::string Quoted(const std::string& text) {
  std::ostringstream out;
  out << toml::value<std::string>(text);
  return out.str();
}

// Of an option whose value the command line took as `text`.
std::string TomlValue(const CLI::Option& option, const std::string& text) {
  const bool is_text = option.get_type_name().starts_with("TEXT");
  if (is_text && option.get_delimiter() == '\0') return Quoted(text);
  std::vector<std::string> parts = Split(text);
  if (!is_text && !std::all_of(parts.begin(), parts.end(), IsTomlNumber)) return Quoted(text);
  if (is_text) std::transform(parts.begin(), parts.end(), parts.begin(), Quoted);
  return parts.size() == 1 ? parts[0] : fmt::format("[{}]", fmt::join(parts, ", "));
}

bool IsFlag(const CLI::Option& option) { return option.get_items_expected_max() == 0; }

}  // namespace

ConfigFile::ConfigFile(CLI::App* app, std::string_view program) : app_(app), recipes_(ShippedRecipes(program)) {
  std::vector<std::string_view> names;
  for (const auto& recipe : recipes_) names.push_back(recipe.first);
  app->add_option("--config", name_, fmt::format("Flags from a TOML file, or of a recipe: {}", fmt::join(names, ", ")));
  app->add_flag("--print-config", print_, "Print all flags as such a file, and do nothing");
}

Result<std::vector<std::string>> ConfigFile::Expand(std::vector<std::string> given) {
  for (size_t i = 0; i < given.size(); ++i) {
    const std::string_view name = NameOf(given[i]);
    if (name == "print-config") {
      for (CLI::Option* option : app_->get_options({})) option->required(false);
    }
    if (name != "config") continue;
    const size_t equals = given[i].find('=');
    if (equals != std::string::npos) name_ = given[i].substr(equals + 1);
    else if (i + 1 < given.size()) name_ = given[i + 1];
  }
  if (name_.empty()) return given;
  FKDB_ASSIGN(std::vector<std::string> all, Read(given));
  all.insert(all.end(), given.begin(), given.end());
  return all;
}

Result<std::vector<std::string>> ConfigFile::Read(const std::vector<std::string>& given) {
  std::string text;
  std::error_code ec;
  if (std::ifstream file(name_); file.good() && !std::filesystem::is_directory(name_, ec)) {
    text.assign(std::istreambuf_iterator<char>(file), {});
    if (file.bad()) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot read it", name_));
  } else if (const auto recipe = recipes_.find(name_); recipe != recipes_.end()) {
    text = recipe->second;
  } else {
    std::vector<std::string_view> names;
    for (const auto& each : recipes_) names.push_back(each.first);
    return Fail(ErrorCode::kNotFound, fmt::format("--config {}: no such file, and no such recipe: expected a TOML file or {}", name_, fmt::join(names, ", ")));
  }
  const auto bad = [&](unsigned line, const std::string& what) { return Fail(ErrorCode::kInvalidArgument, fmt::format("{}:{}: {}", name_, line, what)); };

  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line) && line.starts_with('#');) comment_ += line + "\n";
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return bad(error.source().begin.line, std::string(error.description()));
  }
  std::set<std::string_view> overridden;
  for (const std::string& argument : given) overridden.insert(NameOf(argument));
  std::vector<std::string> read;
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    const unsigned line = key.source().begin.line;
    const CLI::Option* option = kNotForFiles.contains(name) ? nullptr : app_->get_option_no_throw("--" + name);
    if (node.is_table() || node.is_array_of_tables()) return bad(line, fmt::format("'{}' is a table: expected flags alone, as epochs = 300", name));
    if (option == nullptr) return bad(line, fmt::format("unknown key '{}': expected the name of a flag; {} --help lists them", name, app_->get_name()));
    const auto value = Text(node);
    if (!value) return bad(line, fmt::format("{}: expected a number, a text, true or false, or a list of these", name));
    if (IsFlag(*option) && !node.is_boolean()) return bad(line, fmt::format("{} = {}: expected true or false", name, *value));
    if (overridden.contains(name)) continue;
    if (*value == (IsFlag(*option) ? "false" : option->get_default_str())) continue;  // given, it might exclude or need others
    lines_[name] = line;
    read.push_back(fmt::format("--{}={}", name, *value));
  }
  return read;
}

std::string ConfigFile::About(const std::string& complaint) const {
  for (const auto& [name, line] : lines_) {
    const size_t at = complaint.find("--" + name);
    if (at == std::string::npos) continue;
    const size_t end = at + 2 + name.size();
    const bool whole = end == complaint.size() || (complaint[end] != '-' && std::isalnum(static_cast<unsigned char>(complaint[end])) == 0);
    if (whole) return fmt::format("{}:{}: {}", name_, line, complaint);
  }
  return complaint;
}

std::string ConfigFile::ToToml() const {
  std::string text = comment_;
  for (const CLI::Option* option : const_cast<const CLI::App*>(app_)->get_options({})) {
    if (option->get_lnames().empty() || kNotForFiles.contains(option->get_lnames()[0])) continue;
    std::string value = IsFlag(*option) ? (option->count() > 0 && option->as<bool>() ? "true" : "false") : option->get_default_str();
    if (!IsFlag(*option)) {
      if (option->count() > 0) value = fmt::format("{}", fmt::join(option->results(), ","));
      else if (value.starts_with('[') && value.ends_with(']')) value = value.substr(1, value.size() - 2);  // a default list
      if (value.empty()) continue;
      value = TomlValue(*option, value);
    }
    text += fmt::format("{} = {}\n", option->get_lnames()[0], value);
  }
  return text;
}

Result<int> ConfigFile::Print() const {
  FKDB_TRY(PrintOut(ToToml()));
  return kExitOk;
}

}  // namespace fkdb
