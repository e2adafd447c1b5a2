#include "app/verify_options.h"

#include "app/server_options.h"
#include "engine/values/point_name.h"

namespace app {

void declare_verify(CLI::App& command, VerifyArguments& arguments) {
  VerifyOptions& options = arguments.options;
  command.add_option("VM[@POINT]", options.vm_name,
                     "the VM's registered name: all its points; with POINT (a backup id, an RFC\n"
                     "3339 time, or latest) that point and all that it stands on");
  command.add_flag("--all", arguments.all, "every point of every VM");
  command
      .add_option("--skip-days", options.skip_days,
                  "leave out what was found sound within so many days")
      ->type_name("N");
  command
      .add_option("--reader", arguments.reader,
                  "who reads the content: varve, libqcow, or both (default); what libqcow cannot\n"
                  "read, varve does in any case")
      ->type_name("READER")
      ->check(CLI::IsMember({"varve", "libqcow", "both"}));
  command.add_option("--rate", arguments.rate, "bytes read a second at most, with K, M or G")
      ->type_name("SIZE");
  command.add_flag("--json", options.json, "print one JSON object a line, errors too");
  declare_server(command, options.server, options.token);
  command.footer(
      "Tables, sidecar, manifest and the content of each stored cluster are compared with what "
      "was\n"
      "sent. A signal cancels it.\n"
      "Exit status: 0 all is sound, 1 failed, 2 wrong usage, 3 another verification is running,\n"
      "4 no such VM or point, 5 damage was found.");
}

VerifyOptions checked(VerifyArguments arguments) {
  VerifyOptions options = std::move(arguments.options);
  complete_server(options.server, options.token);
  if (options.vm_name.empty() != arguments.all) {
    throw UsageError("varve verify: one of VM and --all is needed");
  }
  const auto [name, point] = engine::split_point(options.vm_name);
  options.vm_name = name;
  options.point = point;
  if (arguments.reader != "both") options.readers = {arguments.reader};
  if (!arguments.rate.empty()) options.bytes_per_second = parse_size(arguments.rate);
  return options;
}

}  // namespace app
