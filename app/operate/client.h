// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/api_call.h"
#include "app/operate/text.h"
#include "app/server_options.h"

namespace app {

/// What every verb that asks a running server understands.
struct ClientOptions {
  std::string server = kDefaultServer, token;
  std::string certificates;  ///< of https: a directory; "": the usual ones
  bool json = false;         ///< print the API's own documents
  bool bytes = false;        ///< sizes as exact bytes
  bool utc = false;          ///< times as RFC 3339 in UTC
};

void declare_client(CLI::App& command, ClientOptions& options);
/// How long a server may be away while something is followed.
inline constexpr std::chrono::seconds kFollowPatience(60);

/// --repository ID.
void declare_repository(CLI::App& command, std::string& repository_id, const std::string& usual);
/// --yes of what cannot be undone.
void declare_yes(CLI::App& command, bool& yes);
/// The footer with what each exit status of a client verb means, after `text`.
void explain_exit(CLI::App& command, const std::string& text = "");

/// Throws UsageError for an empty name.
template <class Options>
Options completed(Options options) {
  complete_server(options.server, options.token);
  return options;
}

/// The API as the verbs ask it. Calls block, and throw what api_call does. One thread.
class Client {
 public:
  explicit Client(const ClientOptions& options)
      : options_(options),
        server_{options.server, options.token, options.certificates},
        style_(style_here(options.bytes, options.utc)) {}

  nlohmann::json get(const std::string& target) const { return call("GET", target); }
  nlohmann::json send(const std::string& method, const std::string& target,
                      const nlohmann::json& body) const {
    return call(method, target, body.dump());
  }
  nlohmann::json remove(const std::string& target) const { return call("DELETE", target); }
  /// The document at a path that is not below /api/v1, whatever its status.
  nlohmann::json get_root(const std::string& target) const;

  const Style& style() const { return style_; }
  const std::string& url() const { return server_.url; }
  const HttpServerAddress& server() const { return server_; }
  bool json() const { return options_.json; }

  /// Whether GET of it is not answered with 404.
  bool is_there(const std::string& target) const;
  /// Whether a backup of that id is known. A VM may be called like one, and is meant if not.
  bool is_backup(const std::string& id) const;
  /// The id of the backup that a POINT names: a backup id, or VM, VM@latest, VM@TIME, VM@ID.
  std::string backup_id_of(const std::string& point) const;

 private:
  nlohmann::json call(const std::string& method, const std::string& target,
                      const std::string& body = "") const;

  const ClientOptions& options_;
  const HttpServerAddress server_;
  const Style style_;
};

/// Prints the document with --json, else the text.
void print(const Client& client, const nlohmann::json& document, const std::string& text);

/// Asks on the terminal; throws CommandFailed when the answer is no, UsageError without a terminal.
void require_yes(bool yes, const std::string& question);

}  // namespace app
