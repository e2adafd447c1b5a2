// SPDX-License-Identifier: Apache-2.0
#include "app/verify_options.h"

#include "app/numbers.h"
#include "app/server_options.h"
#include "engine/values/point_name.h"

namespace app {

void declare_verify(CLI::App& command, VerifyArguments& arguments) {
  VerifyOptions& options = arguments.options;
  command.add_option("VM[@POINT]", options.vm_name,
                     "the VM's registered name: all its points; with POINT (a backup id, an RFC\n"
                     "3339 time, or latest) that point and all that it stands on");
  command.add_flag("--all", arguments.all, "every point of every VM");
  add_number(command, "--skip-days", options.skip_days, 0, UINT32_MAX,
             "leave out what was found sound within so many days");
  add_value(
      command, "--reader",
      [&arguments](const std::string& text) {
        arguments.reader = one_of<std::string>(
            text, {{"varve", "varve"}, {"libqcow", "libqcow"}, {"both", "both"}});
      },
      "who reads the content: varve, libqcow, or both (default); what libqcow cannot\n"
      "read, varve does in any case",
      "READER");
  command.add_option("--rate", arguments.rate, "bytes read a second at most, with K, M or G")
      ->type_name("SIZE");
  declare_patience(command, options.server_patience);
  command.add_flag("--json", options.json, "print one JSON object a line, errors too");
  declare_server(command, options.server, options.token);
  declare_server_certificates(command, options.certificates);
  command.footer(
      "Tables, sidecar, manifest and the content of each stored cluster are compared with what "
      "was\n"
      "sent. A signal cancels it.\n"
      "Exit status: 0 all is sound, 1 failed, 2 wrong usage, 10 no such VM or point, 11 another\n"
      "verification is running, 12 refused by access, 13 damage was found, 130 interrupted.");
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
