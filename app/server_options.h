#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "app/tls_files.h"

/// The options that every client of `varve serve` has.
namespace app {

/// --server and --token.
void declare_server(CLI::App& command, std::string& server, std::string& token);
/// --tls-certificates, --tls-psk and --tls-user.
void declare_tls_client(CLI::App& command, TlsClientFiles& files);

/// What was not said on the command line: $VARVE_URL and $VARVE_TOKEN.
void complete_server(std::string& server, std::string& token);

}  // namespace app
