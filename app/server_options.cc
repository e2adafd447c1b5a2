// SPDX-License-Identifier: Apache-2.0
#include "app/server_options.h"

#include <fmt/format.h>

#include <cstdlib>

#include "app/numbers.h"
#include "app/options.h"
#include "app/setting_kinds.h"

namespace app {
namespace {

constexpr uint32_t kConnectionsMax = 16, kRequestsMax = 64;
constexpr const char* kServerGroup = "Server";

/// As the server reads its own: whoever reads the token may do what its holder may. Throws
/// UsageError.
std::string token_of_file(const std::string& path) {
  const std::string text = read_private_file(path, nullptr);
  std::string token = text.substr(0, text.find('\n'));
  while (!token.empty() && (token.back() == '\r' || token.back() == ' ')) token.pop_back();
  if (token.empty()) throw UsageError(path + " holds no token in its first line");
  return token;
}

}  // namespace

void declare_server(CLI::App& command, std::string& server, std::string& token) {
  command
      .add_option(
          "--server", server,
          fmt::format("varve serve: http(s)://HOST:PORT, or unix:PATH of its --http-socket\n"
                      "(default $VARVE_URL, else {})",
                      kDefaultServer))
      ->type_name("URL")
      ->group(kServerGroup);
  auto* const file = add_value(
      command, "--token-file", [&token](const std::string& path) { token = token_of_file(path); },
      "file whose first line is its token, mode 0600 (default $VARVE_TOKEN, else the\n"
      "file $VARVE_TOKEN_FILE)",
      "FILE");
  file->group(kServerGroup);
  command
      .add_option("--token", token, "its token, which other users of this machine can see in ps")
      ->type_name("TEXT")
      ->group(kServerGroup)
      ->excludes(file);
}

void declare_server_certificates(CLI::App& command, std::string& certificates) {
  command
      .add_option("--tls-certificates", certificates,
                  "for https: ca-cert.pem, and client-cert.pem with client-key.pem (default:\n"
                  "$VARVE_TLS_CERTIFICATES, else what the system trusts)")
      ->type_name("DIR")
      ->group(kServerGroup);
}

void declare_patience(CLI::App& command, io::Duration& patience) {
  add_value(
      command, "--server-patience",
      [&patience](const std::string& text) { patience = parse_duration(text); },
      fmt::format("how long the server may be away before following fails (default {})",
                  duration_value(patience)),
      "DURATION");
}

void declare_tls_client(CLI::App& command, TlsClientFiles& files) {
  command
      .add_option("--tls-certificates", files.certificates,
                  "for https and nbds: ca-cert.pem, and client-cert.pem with client-key.pem\n"
                  "(default: $VARVE_TLS_CERTIFICATES, else what the system trusts)")
      ->type_name("DIR");
  command.add_option("--tls-psk", files.psk, "for nbds: a file of pre-shared keys")
      ->type_name("FILE");
  command.add_option("--tls-user", files.user, "whose key of it (default: the only one's)")
      ->type_name("NAME");
}

void declare_parallel(CLI::App& command, uint32_t& connections, uint32_t& requests) {
  add_number(command, "--connections", connections, 1, kConnectionsMax,
             fmt::format("NBD connections (default {})", connections));
  add_number(command, "--requests", requests, 1, kRequestsMax,
             fmt::format("requests under way on each (default {})", requests));
}

void complete_server(std::string& server, std::string& token) {
  const auto said = [](const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? std::string() : std::string(value);
  };
  if (const std::string url = said("VARVE_URL"); server == kDefaultServer && !url.empty()) {
    server = url;
  }
  if (token.empty()) token = said("VARVE_TOKEN");
  if (const std::string path = said("VARVE_TOKEN_FILE"); token.empty() && !path.empty()) {
    token = token_of_file(path);
  }
}

}  // namespace app
