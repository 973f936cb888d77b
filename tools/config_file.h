// SPDX-License-Identifier: Apache-2.0
// A program's flags from a file: TOML whose keys are the flags' names. What stands on the command line wins.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tools/cli.h"

namespace fkdb {

// The texts of trainer/recipes by name, those of one program: "train" or "write".
std::map<std::string_view, std::string_view> ShippedRecipes(std::string_view program);

class ConfigFile : public MoreArguments {
 public:
  // Adds --config, which takes the recipes shipped for `program` too, and --print-config.
  ConfigFile(CLI::App* app, std::string_view program);

  // With --print-config no flag is required any more. Errors: NotFound, InvalidArgument (TOML that cannot be read, a key that is
  // no flag's, a value that is none: names file and line).
  Result<std::vector<std::string>> Expand(std::vector<std::string> given) override;
  std::string About(const std::string& complaint) const override;

  bool print() const { return print_; }
  // All flags, after they were parsed, as such a file; without those that have no value.
  std::string ToToml() const;
  Result<int> Print() const;

 private:
  Result<std::vector<std::string>> Read(const std::vector<std::string>& given);

  CLI::App* app_;
  const std::map<std::string_view, std::string_view> recipes_;
  std::string name_, comment_;  // what the file says of itself at its head
  bool print_ = false;
  std::map<std::string, unsigned> lines_;  // where the file sets a flag
};

}  // namespace fkdb
