// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/database.h"

#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

namespace crash {

namespace {

std::function<void()> on_commit;
std::function<bool()> refuses_commit;

int before_commit(void*) { return refuses_commit && refuses_commit() ? 1 : 0; }

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void put(const std::string& path, const std::string& content) {
  std::filesystem::remove(path);
  if (!content.empty()) std::ofstream(path, std::ios::binary) << content;
}

/// A statement has ended: a transaction too, unless it stands inside one or only reads.
int statement_ended(unsigned, void* database, void* statement, void* /*nanoseconds*/) {
  auto* const ended = static_cast<sqlite3_stmt*>(statement);
  const char* const text = sqlite3_sql(ended);
  const std::string_view sql = text == nullptr ? "" : text;
  const bool writes = sql == "COMMIT" || sqlite3_stmt_readonly(ended) == 0;
  const bool outside = sqlite3_get_autocommit(static_cast<sqlite3*>(database)) != 0;
  if (writes && outside && on_commit) on_commit();
  return 0;
}

/// SQLite calls this for each connection that is opened.
int watch_connection(sqlite3* database, const char**, const void*) {
  sqlite3_commit_hook(database, before_commit, nullptr);
  return sqlite3_trace_v2(database, SQLITE_TRACE_PROFILE, statement_ended, database);
}

void (*const kEntry)() = reinterpret_cast<void (*)()>(&watch_connection);

}  // namespace

DatabaseFiles read_database(const std::string& path) {
  return {content_of(path), content_of(path + "-wal")};
}

void restore_database(const std::string& path, const DatabaseFiles& files) {
  put(path, files.main);
  put(path + "-wal", files.log);
  put(path + "-shm", "");
}

CommitWatch::CommitWatch(std::function<void()> committed, std::function<bool()> refuses) {
  refuses_commit = std::move(refuses);
  on_commit = std::move(committed);
  sqlite3_auto_extension(kEntry);
}

CommitWatch::~CommitWatch() {
  sqlite3_cancel_auto_extension(kEntry);
  on_commit = nullptr;
  refuses_commit = nullptr;
}

}  // namespace crash
