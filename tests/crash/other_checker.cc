// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/other_checker.h"

#include <fmt/format.h>

#include <fstream>

#include "tests/support/command.h"

namespace crash {

std::optional<std::string> ask_other_checker(const State& state) {
  const support::TempDir directory;
  for (const auto& [path, node] : state.names) {
    if (node.is_link()) continue;
    const Bytes& bytes = *state.files.at(node.file);
    std::ofstream file(directory.file(path.substr(path.rfind('/') + 1)), std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  for (const auto& [path, node] : state.names) {
    if (!path.ends_with(".qcow2") && !path.ends_with(".partial")) continue;
    const std::string name = directory.file(path.substr(path.rfind('/') + 1));
    const auto answer = support::run_command("qemu-img check -f qcow2 " + name);
    constexpr int kLeaksOnly = 3;
    if (answer.exit_code != 0 && answer.exit_code != kLeaksOnly) {
      return fmt::format("qemu-img check {}: {}", path, answer.output);
    }
  }
  return std::nullopt;
}

}  // namespace crash
