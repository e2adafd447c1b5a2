// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "app/tls_files.h"
#include "io/clock.h"

/// The options that every client of `varve serve` has.
namespace app {

inline constexpr const char* kDefaultServer = "http://127.0.0.1:8082";

/// --server, --token-file and --token.
void declare_server(CLI::App& command, std::string& server, std::string& token);
/// --tls-certificates of verbs that speak HTTP only.
void declare_server_certificates(CLI::App& command, std::string& certificates);
/// --server-patience of verbs that follow something, whose default is what the variable holds.
void declare_patience(CLI::App& command, io::Duration& patience);
/// --tls-certificates, --tls-psk and --tls-user.
void declare_tls_client(CLI::App& command, TlsClientFiles& files);

/// --connections and --requests, whose defaults are what the variables hold.
void declare_parallel(CLI::App& command, uint32_t& connections, uint32_t& requests);

/// What was not said on the command line: $VARVE_URL, $VARVE_TOKEN or the file $VARVE_TOKEN_FILE.
/// Throws UsageError for a file that holds no token.
void complete_server(std::string& server, std::string& token);

}  // namespace app
