// SPDX-License-Identifier: Apache-2.0
#include "app/options.h"

#include <fmt/format.h>

#include "app/declare.h"
#include "app/numbers.h"
#include "app/settings.h"

namespace app {
namespace {

void declare_config(CLI::App& command, std::string& config_file) {
  command
      .add_option("--config", config_file,
                  fmt::format("TOML file (default {} if it exists)", kDefaultConfigFile))
      ->type_name("FILE");
}

}  // namespace

void declare_serve(CLI::App& command, ServeArguments& arguments) {
  declare_config(command, arguments.config_file);
  for (const Setting& setting : serve_settings()) {
    const std::string option = "--" + setting.name;
    if (setting.is_flag) {
      command
          .add_flag_callback(
              option, [&arguments, &setting] { arguments.values[setting.name] = {"true"}; },
              setting.help)
          ->group(setting.group);
      continue;
    }
    command
        .add_option_function<std::vector<std::string>>(
            option,
            [&arguments, &setting](const std::vector<std::string>& values) {
              arguments.values[setting.name] = values;
            },
            setting.help)
        ->type_name(setting.metavar)
        ->group(setting.group)
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(setting.repeatable ? CLI::MultiOptionPolicy::TakeAll
                                                 : CLI::MultiOptionPolicy::TakeLast);
  }
}

ServeOptions checked(ServeArguments arguments) { return serve_options(arguments); }

void declare_create(CLI::App& command, CreateArguments& arguments) {
  CreateOptions& options = arguments.options;
  command.add_option("FILE", options.file, "image to make; must not exist")->required();
  command.add_option("SIZE", arguments.size,
                     "virtual size: bytes, or with K, M, G, T (of 1024; KB, MB, GB, TB of 1000)");
  command.add_option("--backing", options.backing, "parent image, in the same directory")
      ->type_name("PARENT");
  command.add_flag("--json", options.json, "print one JSON object, errors too");
  command.add_flag("--bytes", options.bytes, "print the size as exact bytes");
}

CreateOptions checked(CreateArguments arguments) {
  if (!arguments.size.empty()) {
    arguments.options.size_bytes = parse_size(arguments.size);
  } else if (arguments.options.backing.empty()) {
    throw UsageError("varve create: SIZE is needed unless --backing is given");
  }
  return std::move(arguments.options);
}

void declare_check(CLI::App& command, CheckOptions& options) {
  command
      .add_option("TARGET", options.target,
                  "a QCOW2 image, its sidecar (.qcow2.json), or a backup id or image id of the\n"
                  "catalogue; parents are checked too")
      ->required();
  command.add_flag("--json", options.json, "print one JSON object, errors too");
  command
      .add_option("--catalogue", options.catalogue,
                  "the catalogue to look names up in (default: that of `varve serve`)")
      ->type_name("FILE");
  declare_config(command, options.config);
  command.footer(
      "Exit status: 0 clean, 1 cannot be opened (an image or a parent of it), 2 wrong usage,\n"
      "3 leaked clusters only, 4 errors in tables, refcounts or the chain. Changes nothing.");
}

void declare_rebuild(CLI::App& command, RebuildOptions& options) {
  command
      .add_option("--repository", options.repository,
                  "the repository whose files are read (default: that of `varve serve`)")
      ->type_name("DIR");
  command
      .add_option("--repository-id", options.repository_id,
                  "its id in the catalogue (default 1); added when it is not known")
      ->type_name("ID");
  command
      .add_option("--catalogue", options.catalogue,
                  "the catalogue to fill, made when missing (default: that of `varve serve`)")
      ->type_name("FILE");
  command.add_flag("--json", options.json, "print one JSON object, errors too");
  declare_config(command, options.config);
  command.footer(
      "For a catalogue that is lost: images and their sidecars are the truth. A backup is taken\n"
      "over when all its disks and parents are present; what the catalogue knows already stays.\n"
      "Stop `varve serve` first. VMs need their credentials again afterwards.\n"
      "Exit status: 0 all taken over, 1 failed, 2 wrong usage, 3 something was left out.");
}

void declare_read_image(CLI::App& command, ReadImageOptions& options) {
  command.add_option("IMAGE", options.image, "an image")->required();
  add_number(command, "--cluster-bytes", options.cluster_bytes, 512, uint64_t{2} << 20,
             "bytes of a cluster")
      ->required();
  add_number(command, "--parent", options.parent, 1, INT32_MAX, "the process that asks")
      ->required();
}

}  // namespace app
