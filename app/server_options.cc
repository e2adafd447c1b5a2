#include "app/server_options.h"

#include <cstdlib>

#include "app/options.h"

namespace app {

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

void complete_server(std::string& server, std::string& token) {
  const auto from_environment = [](std::string& value, const char* name, std::string_view usual) {
    const char* const said = std::getenv(name);
    if (value == usual && said != nullptr) value = said;
  };
  from_environment(server, "VARVE_URL", RestoreOptions().server);
  from_environment(token, "VARVE_TOKEN", "");
}

}  // namespace app
