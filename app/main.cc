#include <fmt/format.h>

#include <cstdio>
#include <exception>

#include "app/commands.h"
#include "app/options.h"

namespace {

constexpr int kFailure = 1;
constexpr int kUsage = 2;

struct Run {
  int operator()(const app::ServeOptions& options) const { return app::run_serve(options); }
  int operator()(const app::CheckOptions& options) const { return app::run_check(options); }
  int operator()(const app::CreateOptions& options) const { return app::run_create(options); }
  int operator()(const app::NbdOptions& options) const { return app::run_nbd(options); }
  int operator()(const app::RebuildOptions& options) const { return app::run_rebuild(options); }
  int operator()(const app::RestoreOptions& options) const { return app::run_restore(options); }
  int operator()(const app::PullOptions& options) const { return app::run_pull(options); }
  int operator()(const app::AdoptOptions& options) const { return app::run_adopt(options); }
  int operator()(const app::ReadImageOptions& options) const {
    return app::run_read_image(options);
  }
  int operator()(const app::VerifyOptions& options) const { return app::run_verify(options); }
  int operator()(const app::PrintText& print) const {
    std::fputs(print.text.c_str(), stdout);
    return 0;
  }
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const app::Command command = app::parse_command_line(argc, argv);
    return std::visit(Run(), command);
  } catch (const app::UsageError& error) {
    fmt::print(stderr, "varve: {}\n", error.what());
    return kUsage;
  } catch (const std::exception& failure) {
    fmt::print(stderr, "varve: {}\n", failure.what());
    return kFailure;
  }
}
