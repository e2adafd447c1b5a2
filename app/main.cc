// SPDX-License-Identifier: Apache-2.0
#include <exception>

#include "app/command_line.h"
#include "app/failure.h"
#include "app/interruption.h"

int main(int argc, char** argv) {
  try {
    const app::Invocation invocation = app::parse_command_line(argc, argv);
    if (!invocation.is_server) app::when_interrupted(app::wants_json(argc, argv), "interrupted");
    const int status = invocation.run();
    app::require_output_written();
    return status;
  } catch (const std::exception& thrown) {
    const app::Failure failure = app::failure_of(thrown);
    app::print_failure(app::wants_json(argc, argv), failure);
    return failure.exit_status;
  }
}
