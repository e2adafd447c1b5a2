// SPDX-License-Identifier: Apache-2.0
#include <exception>

#include "app/command_line.h"
#include "app/failure.h"

int main(int argc, char** argv) {
  try {
    return app::parse_command_line(argc, argv).run();
  } catch (const std::exception& thrown) {
    const app::Failure failure = app::failure_of(thrown);
    app::print_failure(app::wants_json(argc, argv), failure);
    return failure.exit_status;
  }
}
