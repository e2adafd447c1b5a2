// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

/// An HTTP request and its answer as plain values: what the server and the routes hand to each
/// other. Neither socket nor parser is known here.
namespace api {

struct Request {
  std::string method;         ///< "GET", "POST", …
  std::string target;         ///< "/api/v1/backups?limit=5", still percent-encoded
  std::string authorization;  ///< header of that name; "" when absent
  std::string origin;         ///< header of that name; "" when absent
  std::string body;
  bool peer_is_loopback = false;          ///< over TCP from this host, or over the Unix socket
  std::string host = {};                  ///< header of that name; "" when absent
  std::string content_type = {};          ///< header of that name; "" when absent
  std::string local_address = {};         ///< where the peer connected to; "" over the Unix socket
  std::string if_none_match = {};         ///< header of that name; "" when absent
  std::string peer_address = {};          ///< "192.0.2.7"; "" over the Unix socket
  std::optional<uint32_t> peer_uid = {};  ///< over the Unix socket: whose process it is
  std::string peer_certificate = {};      ///< common name of the certificate it proved; "": none
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  ///< beyond content type and length
};

}  // namespace api
