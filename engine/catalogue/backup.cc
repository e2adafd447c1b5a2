// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/backup.h"

#include <fmt/format.h>

#include <cerrno>
#include <stdexcept>

#include "engine/catalogue/db.h"
#include "engine/catalogue/schema.h"
#include "io/failure.h"
#include "io/file.h"
#include "io/outcome.h"

namespace engine {
namespace {

void copy_and_check(const std::string& catalogue, const std::string& copy) {
  {
    Db db(catalogue, DbAccess::read_only);
    Stmt(db, "VACUUM INTO ?", copy).run();
  }
  Db db(copy, DbAccess::read_only);
  const std::vector<std::string> problems = integrity_problems(db);
  if (!problems.empty()) {
    throw std::runtime_error(
        fmt::format("the copy of catalogue '{}' is damaged: {}", catalogue, problems.front()));
  }
}

/// Under a name of its own, made private before SQLite writes to it.
io::Task<void> make_copy(io::Runtime runtime, std::string catalogue, std::string copy) {
  const auto file = co_await runtime.files.open(copy, io::OpenMode::create_private);
  copy_and_check(catalogue, copy);
  co_await file->sync();
}

}  // namespace

io::Task<void> backup_catalogue(io::Runtime runtime, std::string catalogue, std::string target,
                                bool replace) {
  const auto there = co_await runtime.files.status(target, false);
  if (there && !replace) throw io::failure("make", target, EEXIST);  // before the work
  const std::string copy = io::temporary_path(runtime.random, target);
  io::Outcome<> made = co_await io::attempt([&] { return make_copy(runtime, catalogue, copy); });
  if (!made.failed()) {
    made = co_await io::attempt([&] { return runtime.files.rename(copy, target, replace); });
  }
  if (made.failed()) {
    co_await io::attempt([&] { return runtime.files.remove(copy); });
  }
  made.take();
  co_await runtime.files.sync_directory(io::parent_path(target));
}

}  // namespace engine
