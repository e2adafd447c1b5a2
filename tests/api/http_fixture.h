// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <optional>
#include <string>

#include "api/http_server.h"
#include "api_fixture.h"

/// What the tests of the HTTP server share: the server over real sockets, and a client.
namespace api_tests {

using namespace std::chrono_literals;
using ::testing::NiceMock;

/// A blocking client connection, as dumb as they come.
class Connection {
 public:
  explicit Connection(const std::string& address);  // HOST:PORT, on loopback
  struct Unix {};
  Connection(Unix, const std::string& path);
  Connection(const Connection&) = delete;
  ~Connection();

  void send(const std::string& text);
  /// The head of one answer and its body by Content-Length; "" at the end of the connection.
  std::string receive();
  /// The same of an answer without a body, whatever its Content-Length says.
  std::string receive_head();
  /// What comes until `text` has come, with it; what there is at the end of the connection.
  std::string receive_until(const std::string& text);
  /// Until there is something to read, and reads nothing.
  void wait_for_bytes();
  /// What comes until the end of the connection.
  std::string receive_rest();
  bool is_closed_within(std::chrono::milliseconds patience);

 private:
  void connect(const sockaddr* at, socklen_t size);
  bool more();

  int fd_ = -1;
  std::string got_;
};

std::string get_text(const std::string& target);
std::string post_text(const std::string& target, const std::string& body);
int status_of(const std::string& answer);
Json json_of(const std::string& answer);

class HttpServer : public ::testing::Test {
 protected:
  HttpServer() {
    ON_CALL(engine_, health).WillByDefault(Return(engine::HealthView{true, true, false}));
    ON_CALL(engine_, backup).WillByDefault(Return(running_backup()));
  }
  void serve(api::HttpServerOptions options = {}) {
    if (options.addresses.empty()) options.addresses = {"127.0.0.1:0"};
    server_.emplace(api_, options);
    if (!server_->addresses().empty()) address_ = server_->addresses()[0];
  }
  std::string ask(const std::string& text) {
    Connection connection(address_);
    connection.send(text);
    return connection.receive();
  }

  NiceMock<MockEngine> engine_;
  api::Api api_{engine_, {.version = "1.2.3", .pid = 4242, .now = [] { return sample_time(); }}};
  std::optional<api::HttpServer> server_;
  std::string address_;
};

}  // namespace api_tests
