#include "tests/nbd/handshake_fixture.h"

// The server of a build without GnuTLS (meson -Dtls=disabled): tls_none.cc is linked here in place
// of the other tls_*.cc files.

namespace nbd {
namespace {

class BuildWithoutTls : public HandshakeTest {};

TEST_F(BuildWithoutTls, StarttlsIsAnsweredThatThePlatformLacksIt) {  // T1
  connect();
  EXPECT_EQ(ask(Option::starttls, Bytes(1)).type, OptionReply::err_invalid);  // O5
  const OptionAnswer answer = ask(Option::starttls);
  EXPECT_EQ(answer.type, OptionReply::err_platform);
  EXPECT_EQ(answer.text(), "this server is built without TLS");
  expect_alive();
}

TEST_F(BuildWithoutTls, ClientsAreServedInTheClear) {
  connect();
  structured();
  EXPECT_EQ(go("vm1-1-disk0").back().type, OptionReply::ack);
  EXPECT_TRUE(negotiated().rules.structured_replies);
}

TEST_F(BuildWithoutTls, CredentialsAreRefusedWithASentence) {
  EXPECT_FALSE(TlsServer::available());
  try {
    TlsServer::make({});
    ADD_FAILURE() << "credentials were taken";
  } catch (const std::runtime_error& refusal) {
    EXPECT_STREQ(refusal.what(), "this varve was built without TLS; build it with GnuTLS");
  }
}

}  // namespace
}  // namespace nbd
