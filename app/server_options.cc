#include "app/server_options.h"

#include <fmt/format.h>

#include <cstdlib>

#include "app/options.h"

namespace app {
namespace {

constexpr uint32_t kConnectionsMax = 16, kRequestsMax = 64;

}  // namespace

void declare_server(CLI::App& command, std::string& server, std::string& token) {
  command
      .add_option("--server", server,
                  "the API of varve serve (default $VARVE_URL, else http://127.0.0.1:8082)")
      ->type_name("URL");
  command.add_option("--token", token, "its token (default $VARVE_TOKEN)")->type_name("TEXT");
}

void declare_tls_client(CLI::App& command, TlsClientFiles& files) {
  command
      .add_option("--tls-certificates", files.certificates,
                  "for nbds: ca-cert.pem, and client-cert.pem with client-key.pem (default: what\n"
                  "the system trusts)")
      ->type_name("DIR");
  command.add_option("--tls-psk", files.psk, "for nbds: a file of pre-shared keys")
      ->type_name("FILE");
  command.add_option("--tls-user", files.user, "whose key of it (default: the only one's)")
      ->type_name("NAME");
}

void declare_parallel(CLI::App& command, uint32_t& connections, uint32_t& requests) {
  command
      .add_option("--connections", connections,
                  fmt::format("NBD connections (default {})", connections))
      ->type_name("N");
  command
      .add_option("--requests", requests,
                  fmt::format("requests under way on each (default {})", requests))
      ->type_name("N");
}

void check_parallel(uint32_t connections, uint32_t requests) {
  if (connections < 1 || connections > kConnectionsMax) {
    throw UsageError(fmt::format("--connections must be 1 to {}", kConnectionsMax));
  }
  if (requests < 1 || requests > kRequestsMax) {
    throw UsageError(fmt::format("--requests must be 1 to {}", kRequestsMax));
  }
}

void complete_server(std::string& server, std::string& token) {
  const auto from_environment = [](std::string& value, const char* name, std::string_view usual) {
    const char* const said = std::getenv(name);
    if (value == usual && said != nullptr) value = said;
  };
  from_environment(server, "VARVE_URL", RestoreOptions().server);
  from_environment(token, "VARVE_TOKEN", "");
}

}  // namespace app
