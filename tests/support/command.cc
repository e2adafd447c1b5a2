// SPDX-License-Identifier: Apache-2.0
#include "tests/support/command.h"

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <system_error>

namespace support {

namespace {

std::string quoted(const std::string& word) {
  std::string result = "'";
  for (const char c : word) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

CommandResult run_command(const std::vector<std::string>& arguments, int patience_seconds) {
  std::string line = "exec timeout -s KILL " + std::to_string(patience_seconds);
  for (const std::string& argument : arguments) line += " " + quoted(argument);
  FILE* const pipe = ::popen((line + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw std::system_error(errno, std::generic_category(), "popen");
  CommandResult result;
  char piece[4096];
  while (const size_t bytes = std::fread(piece, 1, sizeof piece, pipe)) {
    result.output.append(piece, bytes);
  }
  result.exit_code = exit_code_of(::pclose(pipe));
  return result;
}

CommandResult run_command(const std::string& words, int patience_seconds) {
  std::istringstream in(words);
  std::vector<std::string> arguments;
  for (std::string word; in >> word;) arguments.push_back(word);
  return run_command(arguments, patience_seconds);
}

TempDir::TempDir() {
  std::string name = std::filesystem::temp_directory_path().string() + "/varve-test-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) {
    throw std::system_error(errno, std::generic_category(), "mkdtemp " + name);
  }
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace support
