// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "nbd/handshake.h"
#include "tests/nbd/wire.h"
#include "tests/support/memory_device.h"
#include "tests/support/ring_fixture.h"

namespace nbd {

using wire::OptionAnswer;

/// One handshake at a time on a table of two exports. The test is the client, step by step.
class HandshakeTest : public support::RingTest {
 protected:
  HandshakeTest() {
    ingest_ = add({.name = "vm1-1-disk0", .description = "first disk"});
    point_ = add({.name = "vm1/disk-0@p1", .kind = ExportKind::point, .read_only = true});
  }
  ~HandshakeTest() override {
    client_.reset();
    run(scope_.join());
    outcome_.reset();
    for (const auto& exported : all_) run(exported->join());
  }

  std::shared_ptr<Export> add(ExportSpec spec) {
    auto exported = Export::make(std::move(spec), device_, runtime());
    table_.add(exported);
    all_.push_back(exported);
    return exported;
  }

  /// Starts a handshake and takes the greeting.
  void connect(Visibility visible, uint32_t client_flags = 3) {
    client_.reset();
    run(scope_.join());
    outcome_.reset();
    dropped_.clear();
    ended_ = false;
    auto [server, client] = wire::socket_pair(ring());
    client_ = std::make_unique<wire::Client>(ring(), std::move(client));
    scope_.spawn(shake_hands(std::move(server), std::move(visible)));
    EXPECT_EQ(wire::to_hex(client_->receive(18)), "4e42444d4147494349484156454f50540003");
    Bytes flags(4);
    io::store_be(flags.data(), client_flags);
    client_->send(flags);
  }
  void connect(uint32_t client_flags = 3) {
    connect(Visibility::all(table_, default_export_), client_flags);
  }

  OptionAnswer ask(const Bytes& option) {
    client_->send(option);
    return client_->receive_answer();
  }
  OptionAnswer ask(Option option, const Bytes& data = {}) {
    return ask(wire::option(option, data));
  }
  /// All replies up to the final one.
  std::vector<OptionAnswer> ask_all(Option option, const Bytes& data = {}) {
    client_->send(wire::option(option, data));
    std::vector<OptionAnswer> answers;
    do {
      answers.push_back(client_->receive_answer());
    } while (answers.back().type != OptionReply::ack &&
             number_of(answers.back().type) < 0x80000000);
    return answers;
  }
  std::vector<OptionAnswer> go(const std::string& name, std::vector<uint16_t> wanted = {}) {
    return ask_all(Option::go, InfoRequest{name, std::move(wanted)}.encode());
  }
  void structured() { EXPECT_EQ(ask(Option::structured_reply).type, OptionReply::ack); }
  std::vector<OptionAnswer> contexts(Option option, const std::string& name,
                                     std::vector<std::string> queries) {
    return ask_all(option, MetaContextRequest{name, std::move(queries)}.encode());
  }
  static std::vector<std::string> names(const std::vector<OptionAnswer>& answers) {
    std::vector<std::string> found;
    for (const OptionAnswer& answer : answers) {
      if (answer.type == OptionReply::meta_context) {
        found.push_back(wire::to_text(std::span(answer.data).subspan(4)));
      }
    }
    return found;
  }
  /// The client can go on: the next option is answered.
  void expect_alive() { EXPECT_EQ(ask(wire::option(4711)).type, OptionReply::err_unsup); }
  /// The connection ends without another byte, for that reason.
  void expect_drop(const std::string& reason) {
    EXPECT_TRUE(client_->ends());
    run(scope_.join());
    EXPECT_EQ(dropped_, reason);
    EXPECT_FALSE(outcome_);
  }
  Negotiated& negotiated() {
    run(scope_.join());
    return outcome_.value();
  }

  HandshakeSettings settings_;
  Admission admission_;
  std::string default_export_;
  support::MemoryDevice device_{1000001};
  ExportTable table_;
  std::vector<std::shared_ptr<Export>> all_;
  std::shared_ptr<Export> ingest_, point_;
  std::unique_ptr<wire::Client> client_;
  io::TaskScope scope_;
  std::optional<Negotiated> outcome_;
  std::string dropped_;
  bool ended_ = false;

 private:
  io::Task<void> shake_hands(std::unique_ptr<io::Socket> socket, Visibility visible) {
    Handshake handshake(ring(), ring(), *socket, std::move(visible), admission_, settings_);
    try {
      outcome_ = co_await handshake.run();
    } catch (const ProtocolError& reason) {
      dropped_ = reason.what();
    }
    ended_ = true;
  }
};

}  // namespace nbd
