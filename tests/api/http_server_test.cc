// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <thread>

#include "http_fixture.h"

/// The server over real sockets: addresses, connections and what is no HTTP. A52.
namespace api_tests {
namespace {

// A52
TEST_F(HttpServer, Port0IsAnyFreePortAndItsRealNumberIsTold) {
  serve();
  EXPECT_TRUE(address_.starts_with("127.0.0.1:"));
  EXPECT_NE(address_, "127.0.0.1:0");
  const std::string answer = ask(get_text("/health"));
  EXPECT_EQ(status_of(answer), 200);
  EXPECT_EQ(json_of(answer)["service"], "varve");
  EXPECT_NE(answer.find("Content-Type: application/json\r\n"), std::string::npos);
}

TEST_F(HttpServer, SeveralAddressesAreServed) {
  serve({.addresses = {"127.0.0.1:0", "127.0.0.1:0"}});
  ASSERT_EQ(server_->addresses().size(), 2u);
  for (const std::string& address : server_->addresses()) {
    address_ = address;
    EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
  }
}

TEST_F(HttpServer, AnAddressInUseIsNamedInTheError) {
  serve();
  try {
    const api::HttpServer second(api_, {.addresses = {address_}});
    FAIL() << "two servers on " << address_;
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::address_in_use);
    EXPECT_EQ(std::string(error.what()), "listen on " + address_ + ": Address already in use");
  }
}

TEST_F(HttpServer, AnAddressThatIsNoneIsRefused) {
  for (const char* address :
       {"8082", "127.0.0.1", "127.0.0.1:", ":8082", "127.0.0.1:http:x", "x y:1"}) {
    EXPECT_THROW(api::HttpServer(api_, {.addresses = {address}}), std::invalid_argument) << address;
  }
}

TEST_F(HttpServer, AConnectionIsKeptForSeveralRequests) {
  serve();
  Connection connection(address_);
  for (int i = 0; i < 3; ++i) {
    connection.send(get_text("/api/v1/backups/a"));
    EXPECT_EQ(json_of(connection.receive())["backup_id"], "backup-pgtest1-1759913694");
  }
  connection.send(get_text("/livez") + get_text("/readyz"));  // pipelined
  EXPECT_EQ(json_of(connection.receive())["status"], "alive");
  EXPECT_EQ(json_of(connection.receive())["status"], "ready");
}

TEST_F(HttpServer, ConnectionCloseAndHttp10EndTheConnection) {
  serve();
  for (const char* text : {"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                           "GET /livez HTTP/1.0\r\n\r\n"}) {
    Connection connection(address_);
    connection.send(text);
    EXPECT_EQ(status_of(connection.receive()), 200);
    EXPECT_TRUE(connection.is_closed_within(5s));
  }
}

// A33
TEST_F(HttpServer, ABodyOfOneMebibyteIsTakenAndAByteMoreIsRefused) {
  serve();
  std::string seen;
  EXPECT_CALL(engine_, cancel).WillOnce([&](const std::string&, const std::string& reason) {
    seen = reason;
  });
  const std::string frame = R"({"reason":""})";
  const std::string text((1 << 20) - frame.size(), 'x');
  EXPECT_EQ(status_of(ask(post_text("/api/v1/backups/a/cancel", R"({"reason":")" + text + "\"}"))),
            200);
  EXPECT_EQ(seen, text);
  const std::string answer =
      ask(post_text("/api/v1/backups/a/cancel", R"({"reason":"x)" + text + "\"}"));
  EXPECT_EQ(status_of(answer), 413);
  const Json problem = json_of(answer);
  EXPECT_EQ(problem["error"], "request body too large");
  EXPECT_EQ(problem["instance"], "/api/v1/backups/a/cancel");
  EXPECT_NE(answer.find("application/problem+json"), std::string::npos);
}

TEST_F(HttpServer, AChunkedBodyIsLimitedToo) {
  serve({.body_bytes_max = 100});
  std::string text =
      "POST /api/v1/backups HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 5; ++i) text += "20\r\n" + std::string(32, 'x') + "\r\n";
  EXPECT_EQ(status_of(ask(text + "0\r\n\r\n")), 413);
}

TEST_F(HttpServer, ExpectContinueIsAnsweredBeforeTheBody) {
  serve();
  EXPECT_CALL(engine_, cancel("a", "x"));
  Connection connection(address_);
  const std::string body = R"({"reason":"x"})";
  connection.send(
      "POST /api/v1/backups/a/cancel HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(connection.receive(), "HTTP/1.1 100 Continue\r\n\r\n");
  connection.send(body);
  EXPECT_EQ(status_of(connection.receive()), 200);
}

// A33
TEST_F(HttpServer, WhatIsNoHttpGetsAProblemAndTheEndOfTheConnection) {
  serve();
  for (const std::string text : {"hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                                 "POST /api/v1/backups HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                                 "GET /\x01 HTTP/1.1\r\n\r\n"}) {
    Connection connection(address_);
    connection.send(text);
    const std::string answer = connection.receive();
    EXPECT_EQ(status_of(answer), 400) << text;
    EXPECT_EQ(json_of(answer)["error"], "malformed request") << text;
    EXPECT_TRUE(connection.is_closed_within(5s)) << text;
  }
  const std::string large = "GET / HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n";
  EXPECT_EQ(status_of(ask(large)), 431);
}

TEST_F(HttpServer, HeadIsAnsweredAsGetIsButWithoutTheBody) {
  serve();
  for (const char* target : {"/health", "/api/v1/backups/a", "/nowhere"}) {
    const std::string get = ask(get_text(target));
    Connection connection(address_);
    connection.send("HEAD" + get_text(target).substr(3) + get_text("/livez"));
    // Its Content-Length is that of the body which is not there.
    EXPECT_EQ(connection.receive_head(), get.substr(0, get.find("\r\n\r\n") + 4)) << target;
    EXPECT_EQ(json_of(connection.receive())["status"], "alive");
  }
}

TEST_F(HttpServer, EveryAnswerHasADate) {
  serve();
  for (const std::string& text :
       {get_text("/livez"), get_text("/nowhere"), std::string("x\r\n\r\n")}) {
    EXPECT_NE(ask(text).find("Date: Wed, 08 Oct 2025 08:54:54 GMT\r\n"), std::string::npos) << text;
  }
}

TEST_F(HttpServer, WhatTheClientHasAlreadyIsNotSentAgain) {
  serve();
  const std::string answer = ask(get_text("/api/v1/backups/a"));
  const size_t at = answer.find("ETag: ") + 6;
  const std::string tag = answer.substr(at, answer.find("\r\n", at) - at);
  Connection connection(address_);
  connection.send("GET /api/v1/backups/a HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: " + tag +
                  "\r\n\r\n" + get_text("/livez"));
  const std::string known = connection.receive();
  EXPECT_EQ(status_of(known), 304);
  EXPECT_NE(known.find("ETag: " + tag), std::string::npos);
  EXPECT_EQ(known.find("Content-Length"), std::string::npos);
  EXPECT_EQ(json_of(connection.receive())["status"], "alive");
}

// The token is asked for by peer, and a TCP peer from this host is loopback.
TEST_F(HttpServer, TheAuthorizationHeaderReachesTheApi) {
  const api::Api secured(engine_,
                         {.tokens = one_token("t0ken"), .now = [] { return sample_time(); }});
  const api::HttpServer server(secured, {.addresses = {"127.0.0.1:0"}});
  address_ = server.addresses()[0];
  const std::string path = "/api/v1/backups";
  EXPECT_EQ(status_of(ask(get_text(path))), 401);
  EXPECT_EQ(status_of(ask("GET " + path + " HTTP/1.1\r\nAuthorization: Bearer t0ken\r\n\r\n")),
            200);
  EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
}

TEST_F(HttpServer, ManyRequestsSideBySideAreAllAnswered) {
  serve();
  std::vector<std::thread> clients;
  std::atomic<int> answered = 0;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&] {
      Connection connection(address_);
      for (int n = 0; n < 20; ++n) {
        connection.send(get_text("/api/v1/backups/a"));
        answered += status_of(connection.receive()) == 200;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 320);
}

}  // namespace
}  // namespace api_tests
