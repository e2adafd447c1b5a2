#pragma once

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
  bool peer_is_loopback = false;   ///< over TCP from this host, or over the Unix socket
  std::string host = {};           ///< header of that name; "" when absent
  std::string content_type = {};   ///< header of that name; "" when absent
  std::string local_address = {};  ///< where the peer connected to; "" over the Unix socket
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  ///< beyond content type and length
};

}  // namespace api
