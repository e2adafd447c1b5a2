// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "io/networks.h"
#include "nbd/server.h"
#include "tests/nbd/wire.h"
#include "tests/support/memory_device.h"
#include "tests/support/ring_fixture.h"

// Who may see and open what: rows T1 to T3, T7, T9, T11, and allowed addresses.

namespace nbd {
namespace {

class Access : public support::RingTest {
 protected:
  Access() {
    open_ = add({.name = "open-disk0", .owner = "backup-open-1"});
    named_ = add({.name = "s3cret-disk0", .access = ExportAccess::by_name, .owner = "backup-a-1"});
    owned_ = add({.name = "b-disk0", .access = ExportAccess::owner, .owner = "backup-b-1"});
  }
  ~Access() override {
    if (server_) run(server_->stop());
    for (const auto& exported : all_) run(exported->join());
  }
  std::shared_ptr<Export> add(ExportSpec spec) {
    all_.push_back(Export::make(std::move(spec), device_, runtime()));
    table_.add(all_.back());
    return all_.back();
  }
  static std::string listed(const Visibility& view) {
    std::string names;
    for (auto next = view.next_after(""); next; next = view.next_after(next->name())) {
      names += next->name() + " ";
    }
    return names;
  }

  TlsAccess tls(TlsMode mode) {
    TlsSettings settings;
    settings.psk = [](const std::string&) { return std::optional<Bytes>(Bytes(16)); };
    return {mode, TlsServer::make(settings)};
  }
  std::unique_ptr<wire::Client> dial(TlsAccess access) {
    settings_.drain_grace = std::chrono::milliseconds(50);
    server_ = std::make_unique<Server>(ring(), table_, settings_);
    auto listener = io::Listener::tcp(ring(), {"127.0.0.1", 0});
    const uint16_t port = listener->port();
    server_->listen(std::move(listener), {}, std::move(access));
    return std::make_unique<wire::Client>(ring(), run(io::connect_tcp(ring(), "127.0.0.1", port)));
  }
  std::unique_ptr<wire::Client> greeted(TlsAccess access) {
    auto client = dial(std::move(access));
    client->receive(18);
    client->send(wire::from_hex("00000003"));
    return client;
  }

  support::MemoryDevice device_{4096};
  ExportTable table_;
  std::vector<std::shared_ptr<Export>> all_;
  std::shared_ptr<Export> open_, named_, owned_;
  ServerSettings settings_;
  std::unique_ptr<Server> server_;
};

TEST_F(Access, AnybodySeesWhatIsOpenAndOpensWhatHeCanName) {
  const Visibility view = Visibility::all(table_);
  EXPECT_EQ(listed(view), "open-disk0 ");
  EXPECT_EQ(view.find("open-disk0"), open_);
  EXPECT_EQ(view.find("s3cret-disk0"), named_);
  EXPECT_EQ(view.find("b-disk0"), nullptr);
}

TEST_F(Access, AJobSeesItsOwnAndNothingElse) {  // T9, T11
  const Visibility view = Visibility::all(table_).seen_by("backup-b-1");
  EXPECT_EQ(listed(view), "b-disk0 ");
  EXPECT_EQ(view.find("b-disk0"), owned_);
  EXPECT_EQ(view.find("open-disk0"), nullptr);
  EXPECT_EQ(view.find("s3cret-disk0"), nullptr);
  EXPECT_EQ(listed(Visibility::all(table_).seen_by("backup-a-1")), "s3cret-disk0 ");
  EXPECT_EQ(listed(Visibility::all(table_).seen_by("backup-gone-1")), "");
}

TEST_F(Access, ASecretNameIsNotOpenedByTheEmptyOne) {
  EXPECT_EQ(Visibility::only(named_).find(""), nullptr);
  EXPECT_EQ(Visibility::only(named_).find("s3cret-disk0"), named_);
  EXPECT_EQ(listed(Visibility::only(named_)), "");
  EXPECT_EQ(Visibility::all(table_, "s3cret-disk0").find(""), nullptr);
  EXPECT_EQ(Visibility::only(open_).find(""), open_);
}

TEST_F(Access, BoundExportsWantTlsBeforeTheyAreUnknown) {  // T2
  const auto client = greeted(tls(TlsMode::on));
  for (const char* name : {"b-disk0", "nobody"}) {
    client->send(wire::option(Option::go, InfoRequest{name, {}}.encode()));
    EXPECT_EQ(client->receive_answer().type, OptionReply::err_tls_reqd) << name;
  }
  client->send(wire::option(Option::export_name, wire::from_text("b-disk0")));
  EXPECT_TRUE(client->ends());
}

TEST_F(Access, WhereTlsIsOffBoundExportsDoNotExist) {  // T1
  const auto client = greeted({});
  client->send(wire::option(Option::go, InfoRequest{"b-disk0", {}}.encode()));
  EXPECT_EQ(client->receive_answer().type, OptionReply::err_unknown);
  client->send(wire::option(Option::starttls));
  EXPECT_EQ(client->receive_answer().type, OptionReply::err_policy);
}

TEST_F(Access, SilenceInTheTlsHandshakeDrops) {  // T7
  settings_.handshake.option_patience = std::chrono::milliseconds(100);
  const auto client = greeted(tls(TlsMode::require));
  client->send(wire::option(Option::starttls));
  EXPECT_EQ(client->receive_answer().type, OptionReply::ack);
  EXPECT_TRUE(client->ends());
  run(server_->stop());
  EXPECT_EQ(server_->counters().dropped, 1u);
  server_.reset();
}

TEST_F(Access, StopDoesNotWaitForATlsHandshake) {  // X10, Q11
  const auto client = greeted(tls(TlsMode::require));
  client->send(wire::option(Option::starttls));
  EXPECT_EQ(client->receive_answer().type, OptionReply::ack);
  const io::SteadyTime start = ring().now();
  run(server_->stop());
  server_.reset();
  EXPECT_LT(ring().now() - start, std::chrono::seconds(2));
}

TEST_F(Access, OtherAddressesAreTurnedAwayAtTheDoor) {
  settings_.allowed.add("192.0.2.0/24");
  const auto client = dial({});
  EXPECT_TRUE(client->ends());
  EXPECT_EQ(server_->counters().turned_away, 1u);
}

TEST_F(Access, AllowedAddressesAreServed) {
  settings_.allowed.add("127.0.0.0/8");
  EXPECT_EQ(dial({})->receive(18).size(), 18u);
}

}  // namespace
}  // namespace nbd
