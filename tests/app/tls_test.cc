// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "app/options.h"
#include "app/psk_file.h"
#include "tests/app/parse.h"

// What the command line says about TLS, and the files it names.

namespace app {
namespace {

using nbd::TlsMode;

TlsOptions with_keys(std::optional<TlsMode> mode = {}) {
  TlsOptions options;
  options.mode = mode;
  options.psk = "keys.psk";
  return options;
}
constexpr bool kAllowPlain = true;
const ListenerTls kLoopback{"--nbd 127.0.0.1:1", true, std::nullopt};
const ListenerTls kElsewhere{"--nbd 192.0.2.1:1", false, std::nullopt};

TEST(TlsModes, OnLoopbackFollowTheCredentials) {  // T1
  EXPECT_EQ(tls_mode_of({}, false, kLoopback), TlsMode::off);
  EXPECT_EQ(tls_mode_of(with_keys(), false, kLoopback), TlsMode::on);
  EXPECT_EQ(tls_mode_of(with_keys(TlsMode::off), false, kLoopback), TlsMode::off);
  EXPECT_EQ(tls_mode_of(with_keys(TlsMode::require), false, kLoopback), TlsMode::require);
}

TEST(TlsModes, BeyondLoopbackRequireUnlessPlainIsAllowed) {  // T3, L1
  EXPECT_EQ(tls_mode_of(with_keys(), false, kElsewhere), TlsMode::require);
  EXPECT_EQ(tls_mode_of(with_keys(), kAllowPlain, kElsewhere), TlsMode::on);
  EXPECT_EQ(tls_mode_of({}, kAllowPlain, kElsewhere), TlsMode::off);
  EXPECT_THROW(tls_mode_of({}, false, kElsewhere), UsageError);
  EXPECT_THROW(tls_mode_of(with_keys(TlsMode::off), false, kElsewhere), UsageError);
  EXPECT_THROW(tls_mode_of(with_keys(TlsMode::on), false, kElsewhere), UsageError);
  EXPECT_EQ(tls_mode_of(with_keys(TlsMode::on), kAllowPlain, kElsewhere), TlsMode::on);
}

TEST(TlsModes, OfOneListenerWinOverTheGeneralOne) {
  ListenerTls listener = kLoopback;
  listener.own = TlsMode::require;
  EXPECT_EQ(tls_mode_of(with_keys(TlsMode::off), false, listener), TlsMode::require);
  listener = kElsewhere;
  listener.own = TlsMode::on;
  EXPECT_THROW(tls_mode_of(with_keys(TlsMode::require), false, listener), UsageError);
}

TEST(TlsModes, NeedCredentials) {
  TlsOptions options;
  options.mode = TlsMode::on;
  EXPECT_THROW(tls_mode_of(options, false, kLoopback), UsageError);
  options.mode = TlsMode::require;
  EXPECT_THROW(tls_mode_of(options, kAllowPlain, kElsewhere), UsageError);
}

TEST(TlsOptionsOf, ServeAndNbdHaveTheSameNames) {
  const auto serve = parse<ServeOptions>({"serve",
                                          "--tls",
                                          "require",
                                          "--tls-certificates",
                                          "/c",
                                          "--tls-psk",
                                          "/k",
                                          "--tls-verify-peer",
                                          "--tls-allowed-name",
                                          "a",
                                          "--tls-allowed-name",
                                          "b*",
                                          "--ports-tls",
                                          "off",
                                          "--nbd",
                                          "192.0.2.1:5,tls=on",
                                          "--nbd",
                                          "127.0.0.1:6",
                                          "--export-access",
                                          "name",
                                          "--allow-address",
                                          "192.0.2.0/24",
                                          "--buffer-memory",
                                          "256M"});
  const auto nbd =
      parse<NbdOptions>({"nbd", "x.qcow2", "--tls", "require", "--tls-certificates", "/c",
                         "--tls-psk", "/k", "--tls-verify-peer", "--tls-allowed-name", "a",
                         "--tls-allowed-name", "b*", "--allow-address", "192.0.2.0/24"});
  for (const TlsOptions& tls : {serve.tls, nbd.tls}) {
    EXPECT_EQ(tls.mode, TlsMode::require);
    EXPECT_EQ(tls.certificates, "/c");
    EXPECT_EQ(tls.psk, "/k");
    EXPECT_TRUE(tls.verify_peer);
    EXPECT_EQ(tls.allowed_names, (std::vector<std::string>{"a", "b*"}));
  }
  for (const io::Networks& allowed : {serve.allowed, nbd.allowed}) {
    EXPECT_TRUE(allowed.contains("192.0.2.9:1"));
    EXPECT_FALSE(allowed.contains("198.51.100.1:1"));
  }
  EXPECT_EQ(serve.ports_tls, TlsMode::off);
  EXPECT_EQ(io::to_text(serve.nbd.at(0)), "192.0.2.1:5");
  EXPECT_EQ(serve.nbd.at(0).tls, TlsMode::on);
  EXPECT_FALSE(serve.nbd.at(1).tls.has_value());
  EXPECT_EQ(serve.engine.export_access, nbd::ExportAccess::by_name);
  EXPECT_EQ(serve.buffer_memory_bytes, 256u << 20);
}

TEST(TlsOptionsOf, NonsenseIsRefused) {
  EXPECT_THROW(parse<ServeOptions>({"serve", "--nbd", "127.0.0.1:5,tls=maybe"}), UsageError);
  EXPECT_THROW(parse<ServeOptions>({"serve", "--export-access", "everybody"}), UsageError);
  EXPECT_THROW(parse<ServeOptions>({"serve", "--buffer-memory", "255M"}), UsageError);
  EXPECT_THROW(parse<ServeOptions>({"serve", "--allow-address", "somewhere"}), UsageError);
  EXPECT_THROW(parse<NbdOptions>({"nbd", "x", "--allow-address", "somewhere"}), UsageError);
}

class PskFiles : public ::testing::Test {
 protected:
  PskFiles() {
    char name[] = "/tmp/varve-psk-XXXXXX";
    directory_ = ::mkdtemp(name);
    path_ = directory_ + "/keys.psk";
  }
  ~PskFiles() override { std::filesystem::remove_all(directory_); }
  void write(const std::string& text, mode_t mode = 0600) {
    std::ofstream(path_) << text;
    ::chmod(path_.c_str(), mode);
  }
  static PskFile::Key bytes(std::initializer_list<int> values) {
    PskFile::Key key;
    for (const int value : values) key.push_back(static_cast<std::byte>(value));
    return key;
  }
  std::string directory_, path_;
};

TEST_F(PskFiles, HoldTheKeysOfTheirUsers) {  // T9
  write("# made by hand\nalice:00ff10\r\n\nbackup-vm-1:AbCd\nalice:01");
  PskFile file(path_);
  EXPECT_EQ(file.find("backup-vm-1"), bytes({0xab, 0xcd}));
  EXPECT_EQ(file.find("alice"), bytes({1}));  // the last line counts
  EXPECT_EQ(file.find("bob"), std::nullopt);
  EXPECT_EQ(file.find(""), std::nullopt);
}

TEST_F(PskFiles, AreReadAgainWhenTheyChange) {
  write("alice:01\n");
  PskFile file(path_);
  write("bob:02\n");
  EXPECT_EQ(file.find("alice"), std::nullopt);
  EXPECT_EQ(file.find("bob"), bytes({2}));
}

TEST_F(PskFiles, ThatCannotBeUsedAnyMoreLetNobodyIn) {
  write("alice:01\n");
  PskFile file(path_);
  write("alice:01\nbroken\n");
  EXPECT_EQ(file.find("alice"), std::nullopt);
  write("alice:01\n", 0644);
  EXPECT_EQ(file.find("alice"), std::nullopt);
  std::filesystem::remove(path_);
  EXPECT_EQ(file.find("alice"), std::nullopt);
  write("alice:01\n");
  EXPECT_EQ(file.find("alice"), bytes({1}));
}

TEST_F(PskFiles, OfOthersOrOfNonsenseAreRefused) {
  for (const mode_t mode : {0640, 0604, 0620, 0602}) {
    write("alice:01\n", mode);
    EXPECT_THROW(PskFile{path_}, UsageError) << mode;
  }
  for (const char* text : {"alice", "alice:", "alice:1", "alice:0g", ":01", "alice:-1"}) {
    write(text);
    EXPECT_THROW(PskFile{path_}, UsageError) << text;
  }
}

}  // namespace
}  // namespace app
