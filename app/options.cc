#include "app/options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "app/nbd_options.h"
#include "app/pull/options.h"
#include "app/restore/options.h"
#include "app/settings.h"
#include "app/verify_options.h"

namespace app {
namespace {

constexpr const char* kDefaultConfigFile = "/etc/varve/varve.toml";

void declare_config(CLI::App& command, std::string& config_file) {
  command
      .add_option("--config", config_file,
                  fmt::format("TOML file (default {} if it exists)", kDefaultConfigFile))
      ->type_name("FILE");
}

/// What the command line says of each setting of `varve serve`.
struct ServeArguments {
  std::string config_file;
  std::map<std::string, std::vector<std::string>> values;
};

void declare_serve(CLI::App& command, ServeArguments& arguments) {
  declare_config(command, arguments.config_file);
  for (const Setting& setting : serve_settings()) {
    const std::string option = "--" + setting.name;
    if (setting.is_flag) {
      command.add_flag_callback(
          option, [&arguments, &setting] { arguments.values[setting.name] = {"true"}; },
          setting.help);
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
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(setting.repeatable ? CLI::MultiOptionPolicy::TakeAll
                                                 : CLI::MultiOptionPolicy::TakeLast);
  }
}

void apply(ServeOptions& options, const std::string& source,
           const std::map<std::string, std::vector<std::string>>& values) {
  for (const Setting& setting : serve_settings()) {
    const auto found = values.find(setting.name);
    if (found == values.end()) continue;
    try {
      setting.apply(options, found->second);
    } catch (const UsageError& error) {
      throw UsageError(fmt::format("{}{}: {}", source, setting.name, error.what()));
    }
  }
}

/// What the command line says wins over the file.
ServeOptions serve_options(const ServeArguments& arguments) {
  ServeOptions options;
  std::string config = arguments.config_file;
  if (config.empty() && ::access(kDefaultConfigFile, F_OK) == 0) config = kDefaultConfigFile;
  if (!config.empty()) {
    ConfigFile file = read_config_file(config);
    apply(options, config + ": ", file.values);
    options.engine.named_secrets = std::move(file.secrets);
  }
  apply(options, "--", arguments.values);
  engine::EngineOptions& engine = options.engine;
  if (engine.repository_path.empty()) {
    engine.repository_path = default_state_directory() + "/repository";
  }
  if (engine.catalogue_path.empty()) {
    engine.catalogue_path = default_state_directory() + "/catalogue.db";
  }
  engine.repository_path = absolute_path(engine.repository_path);
  engine.catalogue_path = absolute_path(engine.catalogue_path);
  if (options.nbd.empty()) options.nbd = {{{"127.0.0.1", 10809}}, {{"::1", 10809}}};
  return options;
}

void declare_create(CLI::App& command, CreateOptions& options, std::string& size) {
  command.add_option("FILE", options.file, "image to make; must not exist")->required();
  command.add_option("SIZE", size, "virtual size: bytes, or with K, M, G, T");
  command.add_option("--backing", options.backing, "parent image, in the same directory")
      ->type_name("PARENT");
}

void declare_check(CLI::App& command, CheckOptions& options) {
  command
      .add_option("TARGET", options.target,
                  "a QCOW2 image, its sidecar (.qcow2.json), or a backup id or image id of the\n"
                  "catalogue; parents are checked too")
      ->required();
  command.add_flag("--json", options.json, "print one JSON object");
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
  declare_config(command, options.config);
  command.footer(
      "For a catalogue that is lost: images and their sidecars are the truth. A backup is taken\n"
      "over when all its disks and parents are present; what the catalogue knows already stays.\n"
      "Stop `varve serve` first. VMs need their credentials again afterwards.\n"
      "Exit status: 0 all taken over, 1 failed, 2 wrong usage, 3 something was left out.");
}

void declare_read_image(CLI::App& command, ReadImageOptions& options) {
  command.add_option("IMAGE", options.image, "an image")->required();
  command.add_option("--cluster-bytes", options.cluster_bytes, "bytes of a cluster")
      ->required()
      ->check(CLI::Range(uint64_t{512}, uint64_t{2} << 20));
  command.add_option("--parent", options.parent, "the process that asks")->required();
}

}  // namespace

ServeOptions configured(const std::string& config_file) { return serve_options({config_file, {}}); }

Command parse_command_line(int argc, const char* const* argv) {
  CLI::App app(
      "varve - an NBD server with a QCOW2 writer, for backups that are not lost.\n"
      "`varve serve` needs no option; see `varve COMMAND --help` for the rest.",
      "varve");
  app.set_help_flag("-h,--help", "print this text");
  bool print_version = false;
  app.add_flag("-V,--version", print_version, "print version, features and the io_uring tier");
  app.require_subcommand(0, 1);

  CLI::App& serve = *app.add_subcommand("serve", "run the backup server: HTTP API and NBD");
  ServeArguments serve_arguments;
  declare_serve(serve, serve_arguments);
  CLI::App& create = *app.add_subcommand("create", "make an empty QCOW2 image");
  CreateOptions create_options;
  std::string create_size;
  declare_create(create, create_options, create_size);
  CLI::App& check = *app.add_subcommand("check", "check an image or a backup, and its parents");
  CheckOptions check_options;
  declare_check(check, check_options);
  CLI::App& rebuild =
      *app.add_subcommand("rebuild", "make a lost catalogue anew from a repository's files");
  RebuildOptions rebuild_options;
  declare_rebuild(rebuild, rebuild_options);
  CLI::App& pull =
      *app.add_subcommand("pull", "back up disks that are read from NBD exports, files or devices");
  PullArguments pull_arguments;
  declare_pull(pull, pull_arguments);
  CLI::App& adopt = *app.add_subcommand("adopt", "make points of QCOW2 images that others made");
  AdoptArguments adopt_arguments;
  declare_adopt(adopt, adopt_arguments);
  CLI::App& restore =
      *app.add_subcommand("restore", "copy a restore point to a file, a device or an NBD server");
  RestoreOptions restore_options;
  declare_restore(restore, restore_options);
  CLI::App& verify = *app.add_subcommand("verify", "prove that backups are what was sent");
  VerifyArguments verify_arguments;
  declare_verify(verify, verify_arguments);
  CLI::App& nbd = *app.add_subcommand("nbd", "serve one QCOW2 image over NBD, as qemu-nbd does");
  NbdOptions nbd_options;
  declare_nbd(nbd, nbd_options);
  CLI::App& read_image = *app.add_subcommand("read-image", "")->group("");  // not for people
  ReadImageOptions read_image_options;
  declare_read_image(read_image, read_image_options);
  const CLI::App& help = *app.add_subcommand("help", "print this text");
  const std::string help_text = app.help();  // once a command is parsed, help() is that command's

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    // CLI11 leaves the help to the innermost command that was named.
    const auto named = app.get_subcommands();
    return PrintText{named.empty() ? app.help() : named.front()->help("varve")};
  } catch (const CLI::ParseError& error) {
    const auto named = app.get_subcommands();
    throw UsageError(fmt::format("{}; see varve {}--help", error.what(),
                                 named.empty() ? "" : named.front()->get_name() + " "));
  }
  if (help.parsed()) return PrintText{help_text};
  if (print_version) return PrintText{version_text()};
  if (serve.parsed()) return serve_options(serve_arguments);
  if (create.parsed()) {
    if (!create_size.empty()) create_options.size_bytes = parse_size(create_size);
    if (create_size.empty() && create_options.backing.empty()) {
      throw UsageError("varve create: SIZE is needed unless --backing is given");
    }
    return create_options;
  }
  if (check.parsed()) return check_options;
  if (rebuild.parsed()) return rebuild_options;
  if (pull.parsed()) return checked(std::move(pull_arguments));
  if (adopt.parsed()) return checked(std::move(adopt_arguments));
  if (restore.parsed()) return checked(std::move(restore_options));
  if (verify.parsed()) return checked(std::move(verify_arguments));
  if (read_image.parsed()) return read_image_options;
  if (nbd.parsed()) return checked(std::move(nbd_options));
  return PrintText{app.help()};
}

}  // namespace app
