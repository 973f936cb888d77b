// SPDX-License-Identifier: Apache-2.0
#include "tools/export_command.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace fkdb {

void AddExportCommand(CLI::App& app, ExportFlags* flags) {
  CLI::App* const command = app.add_subcommand("export", "Writes the weights of a training as a safetensors file, under torchvision's or timm's names");
  command->add_option("RUN", flags->run, "Folder of the training: its --out")->required();
  command->add_option("OUT", flags->out, "The file to write")->required();
  command->add_flag("--checkpoint", flags->options.checkpoint, "Those of the last checkpoint (without: only if the training is unfinished)");
  command->add_flag("--overwrite", flags->options.overwrite, "Replace OUT");
  command->fallthrough();  // --json and --quiet
  command->preparse_callback([&app](size_t) {
    for (CLI::Option* const option : app.get_options()) option->required(false);
  });
  flags->command = command;
}

Result<int> RunExport(const CLI::App& app, const ExportFlags& flags, const CommonFlags& common) {
  for (const CLI::Option* const option : app.get_options()) {
    const std::string name = option->get_name();
    if (option->count() > 0 && name != "--json" && name != "--quiet") {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("export: {} is for trainings", name));
    }
  }
  FKDB_ASSIGN(const Exported exported, ExportWeights(flags.run, flags.out, flags.options));
  if (common.json) {
    nlohmann::ordered_json json = {{"out", flags.out}, {"model", exported.model}, {"tensors", exported.tensors}, {"numbers", exported.numbers},
                                   {"finished", exported.finished}};
    if (!exported.finished) json["steps"] = exported.steps;
    FKDB_TRY(PrintOut(json.dump() + "\n"));
  } else if (!common.quiet) {
    const std::string from = exported.finished ? "" : fmt::format(", as of step {}", exported.steps);
    FKDB_TRY(PrintOut(fmt::format("{}: {}, {} tensors, {:.3f} M numbers{}\n", flags.out, exported.model, exported.tensors,
                                  static_cast<double>(exported.numbers) / 1e6, from)));
  }
  return kExitOk;
}

}  // namespace fkdb
