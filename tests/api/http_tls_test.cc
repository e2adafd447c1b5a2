// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "http_fixture.h"

/// TLS over real sockets; `openssl` makes the certificates and is the client. The rest of it:
/// tests/e2e/test_http_access.py.
namespace api_tests {
namespace {

namespace fs = std::filesystem;

class HttpTls : public HttpServer {
 protected:
  HttpTls() {
    std::string pattern = fs::temp_directory_path() / "varve-https-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
  }
  ~HttpTls() override {
    server_.reset();
    fs::remove_all(directory_);
  }
  void SetUp() override {
    if (std::system("openssl version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no openssl here";
  }

  /// A certificate of that name, signed by itself.
  api::HttpTls made(const std::string& name, api::HttpTlsMode mode = api::HttpTlsMode::on) {
    const std::string base = directory_ + "/" + name;
    const std::string command =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=" +
        name + " -keyout " + base + ".key -out " + base + ".pem 2>/dev/null";
    EXPECT_EQ(std::system(command.c_str()), 0);
    api::HttpTls tls;
    tls.mode = mode;
    tls.ca = tls.certificate = text_of_file(base + ".pem");
    tls.key = text_of_file(base + ".key");
    return tls;
  }
  static std::string text_of_file(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  /// The answer to a GET inside TLS, behind what openssl says of the server's certificate.
  std::string ask_inside_tls(const std::string& target) {
    const std::string command =
        "printf 'GET " + target +
        " HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | "
        "openssl s_client -ign_eof -connect " +
        address_ + " 2>&1";
    FILE* const pipe = ::popen(command.c_str(), "r");
    std::string said;
    std::array<char, 4096> piece;
    for (size_t count; (count = ::fread(piece.data(), 1, piece.size(), pipe)) > 0;) {
      said.append(piece.data(), count);
    }
    ::pclose(pipe);
    return said;
  }
  static bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }

  std::string directory_;
};

TEST_F(HttpTls, OnePortServesBothWhereItIsOn) {
  serve({.tls = made("first")});
  const std::string inside = ask_inside_tls("/livez");
  EXPECT_TRUE(has(inside, "CN = first")) << inside;
  EXPECT_TRUE(has(inside, "HTTP/1.1 200 OK")) << inside;
  EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
}

TEST_F(HttpTls, PlainHttpIsToldThatItIsRequired) {
  serve({.tls = made("first", api::HttpTlsMode::require)});
  EXPECT_TRUE(has(ask_inside_tls("/livez"), "HTTP/1.1 200 OK"));
  const std::string refused = ask(get_text("/livez"));
  EXPECT_EQ(status_of(refused), 400);
  EXPECT_EQ(json_of(refused)["code"], "tls_required");
}

TEST_F(HttpTls, NewConnectionsUseNewCertificatesAndOpenOnesStay) {
  serve({.tls = made("first")});
  Connection open(address_);
  open.send(get_text("/livez"));
  EXPECT_EQ(status_of(open.receive()), 200);
  server_->use_tls(made("second", api::HttpTlsMode::require));
  EXPECT_TRUE(has(ask_inside_tls("/livez"), "CN = second"));
  EXPECT_EQ(status_of(ask(get_text("/livez"))), 400);
  open.send(get_text("/livez"));
  EXPECT_EQ(status_of(open.receive()), 200);
}

TEST_F(HttpTls, CertificatesThatCannotBeUsedChangeNothing) {
  const api::HttpTls good = made("first");
  serve({.tls = good});
  api::HttpTls mixed = good;
  mixed.key = made("second").key;
  EXPECT_THROW(server_->use_tls(mixed), std::runtime_error);
  api::HttpTls none = good;
  none.certificate = "no certificate";
  EXPECT_THROW(server_->use_tls(none), std::runtime_error);
  EXPECT_TRUE(has(ask_inside_tls("/livez"), "CN = first"));
}

TEST_F(HttpTls, WhatBeginsLikeTlsAndIsNoneEndsTheConnection) {
  serve({.tls = made("first"), .request_timeout = 300ms});
  Connection connection(address_);
  connection.send("\x16\x03\x01\x00\x05hello and nothing more");
  connection.receive();  // an alert
  EXPECT_TRUE(connection.is_closed_within(5s));
  EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
}

}  // namespace
}  // namespace api_tests
