// SPDX-License-Identifier: Apache-2.0
#include "app/options.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "app/settings.h"
#include "tests/app/parse.h"

namespace app {
namespace {

using namespace std::chrono_literals;

std::string refusal(std::vector<const char*> arguments) {
  try {
    parse<ServeOptions>(std::move(arguments));
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

class Config : public ::testing::Test {
 protected:
  Config() {
    std::string pattern = std::filesystem::temp_directory_path() / "varve-app-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    path_ = directory_ + "/varve.toml";
  }
  ~Config() override { std::filesystem::remove_all(directory_); }
  void write(const std::string& text) const {
    std::ofstream(path_) << text;
    std::filesystem::permissions(path_, std::filesystem::perms(0600));
  }
  ServeOptions serve(std::vector<const char*> more = {}) const {
    std::vector<const char*> arguments = {"serve", "--config", path_.c_str()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return parse<ServeOptions>(arguments);
  }
  std::string refused(const std::string& text) const {
    write(text);
    return refusal({"serve", "--config", path_.c_str()});
  }
  std::string directory_, path_;
};

TEST(Values, DurationsTakeTheirUnits) {
  EXPECT_EQ(parse_duration("90s"), 90s);
  EXPECT_EQ(parse_duration("10m"), 10min);
  EXPECT_EQ(parse_duration("1h"), 1h);
  EXPECT_EQ(parse_duration("250ms"), 250ms);
  EXPECT_EQ(parse_duration("0"), 0s);
  for (const char* wrong :
       {"", "s", "90", "1 h", "-1s", "1y", "99999999999999999999s", "9999999999d"}) {
    EXPECT_THROW(parse_duration(wrong), UsageError) << wrong;
  }
}

TEST(Values, SizesArePowersOf1024) {
  EXPECT_EQ(parse_size("512"), 512u);
  EXPECT_EQ(parse_size("64K"), 65536u);
  EXPECT_EQ(parse_size("16T"), uint64_t{1} << 44);
  EXPECT_EQ(parse_size("10g"), uint64_t{10} << 30);
  EXPECT_EQ(parse_size("64MiB"), 64u << 20);
  EXPECT_EQ(parse_size("1GiB"), 1u << 30);
  for (const char* wrong : {"", "K", "1.5G", "-1", "1X", "99999999999P"}) {
    EXPECT_THROW(parse_size(wrong), UsageError) << wrong;
  }
}

TEST(Values, SizesWithAnotherLetterBArePowersOf1000) {
  EXPECT_EQ(parse_size("10GB"), 10000000000u);
  EXPECT_EQ(parse_size("5kB"), 5000u);
  EXPECT_EQ(parse_size("7B"), 7u);
  for (const char* wrong : {"10GX", "10Gi", "10iB", "10GBB", "20000PB"}) {
    EXPECT_THROW(parse_size(wrong), UsageError) << wrong;
  }
}

TEST(Values, AddressesOfLoopbackNeedOnlyAPort) {
  EXPECT_EQ(io::to_text(parse<ServeOptions>({"serve", "--http", ":8083"}).http), "127.0.0.1:8083");
  EXPECT_EQ(io::to_text(parse<ServeOptions>({"serve", "--http", "8083"}).http), "127.0.0.1:8083");
  EXPECT_EQ(io::to_text(parse<ServeOptions>({"serve", "--nbd", ":1,tls=off"}).nbd[0]),
            "127.0.0.1:1");
  EXPECT_EQ(refusal({"serve", "--http", "localhost"}),
            "--http: \"localhost\" is not an address; write HOST:PORT or, for loopback, PORT: "
            "127.0.0.1:8082 or 8082");
  EXPECT_EQ(refusal({"serve", "--http", "99999"}),
            "--http: \"99999\" is not a number from 0 to 65535");
}

TEST(CommandLine, ServeNeedsNoOption) {
  const auto options = parse<ServeOptions>({"serve"});
  EXPECT_EQ(io::to_text(options.http), "127.0.0.1:8082");
  ASSERT_EQ(options.nbd.size(), 2u);
  EXPECT_EQ(io::to_text(options.nbd[0]), "127.0.0.1:10809");
  EXPECT_EQ(io::to_text(options.nbd[1]), "[::1]:10809");
  EXPECT_EQ(options.engine.ports->first, 10100);
  EXPECT_EQ(options.engine.ports->last, 10200);
  EXPECT_EQ(options.engine.node_url, "http://localhost:9081");
  EXPECT_FALSE(options.engine.repository_path.empty());
}

TEST(CommandLine, EverySettingOfServeCanBeGiven) {
  const auto options = parse<ServeOptions>(
      {"serve", "--nbd",          "127.0.0.1:1", "--nbd",           "[::1]:2",    "--ports",
       "none",  "--targets",      "names",       "--node-url",      "",           "--point-idle",
       "7s",    "--stall",        "5s",          "--threads",       "3",          "--log-format",
       "json",  "--log-level",    "debug",       "--failed-images", "quarantine", "--space-reserve",
       "10M",   "--commit-bytes", "64M"});
  EXPECT_EQ(options.nbd.size(), 2u);
  EXPECT_FALSE(options.engine.ports.has_value());
  EXPECT_EQ(options.engine.targets, engine::TargetsMode::names);
  EXPECT_EQ(options.engine.node_url, "");
  EXPECT_EQ(options.engine.timeouts.stall, io::Duration(5s));
  EXPECT_EQ(options.engine.point_idle, io::Duration(7s));
  EXPECT_EQ(options.threads, 3u);
  EXPECT_EQ(options.log.format, io::LogFormat::json);
  EXPECT_EQ(options.engine.failed_images, engine::FailedImages::quarantine);
  EXPECT_EQ(options.engine.space_reserve_bytes, 10u << 20);
  EXPECT_EQ(options.engine.commit_bytes, 64u << 20);
}

TEST(CommandLine, WhatIsProvenAndHowFastCanBeSaid) {
  const auto options = parse<ServeOptions>(
      {"serve", "--scrub-interval", "7d", "--scrub-rate", "32M", "--verify-restores", "false"});
  EXPECT_EQ(options.engine.scrub_interval, io::Duration(7 * 24h));
  EXPECT_EQ(options.engine.scrub_bytes_per_second, 32u << 20);
  EXPECT_FALSE(options.engine.verify_restores);
  const auto usual = parse<ServeOptions>({"serve"});
  EXPECT_EQ(usual.engine.scrub_interval, io::Duration::zero());
  EXPECT_EQ(usual.engine.scrub_bytes_per_second, 64u << 20);
  EXPECT_TRUE(usual.engine.verify_restores);
}

TEST(CommandLine, WhoIsToldOfWhatCanBeSaid) {
  using enum engine::NotificationEvent;
  const auto options = parse<ServeOptions>(
      {"serve", "--expected-interval", "25h", "--notify-url", "https://a.example/x?y=1",
       "--notify-url", "http://[::1]:80", "--notify-command", "logger \"$VARVE_TEXT\"",
       "--notify-on", "completed,overdue"});
  EXPECT_EQ(options.engine.expected_interval, 25h);
  EXPECT_EQ(options.notify.urls.size(), 2u);
  EXPECT_EQ(options.notify.commands, std::vector<std::string>{"logger \"$VARVE_TEXT\""});
  EXPECT_EQ(options.notify.on, (std::set{completed, overdue}));
  const auto usual = parse<ServeOptions>({"serve"});
  EXPECT_EQ(usual.engine.expected_interval, 0s);
  EXPECT_EQ(usual.notify.on, (std::set{failed, damaged, space, unavailable, overdue}));
  EXPECT_EQ(parse<ServeOptions>({"serve", "--notify-on", "all"}).notify.on.size(), 7u);
  EXPECT_TRUE(parse<ServeOptions>({"serve", "--notify-on", "none"}).notify.on.empty());
  EXPECT_EQ(refusal({"serve", "--notify-on", "failed,done"}),
            "--notify-on: \"done\" is not one of completed, failed, cancelled, damaged, space, "
            "unavailable, overdue, all, none");
  EXPECT_EQ(refusal({"serve", "--notify-url", "ftp://a"}),
            "--notify-url: it begins with neither http:// nor https://; write http://HOST[:PORT]/PATH or "
            "https://HOST[:PORT]/PATH");
}

TEST(CommandLine, AWrongValueIsRefusedWithItsOption) {
  EXPECT_EQ(refusal({"serve", "--ports", "10200-10100"}),
            "--ports: \"10100\" is not a number from 10200 to 65535");
  EXPECT_EQ(refusal({"serve", "--targets", "both"}),
            "--targets: \"both\" is not one of names, ports");
  EXPECT_EQ(refusal({"nbd", "x.qcow2", "--port", "99999"}),
            "--port: \"99999\" is not a number from 0 to 65535");
  EXPECT_NE(refusal({"serve", "--nonsense"}), "");
}

TEST(CommandLine, CreateNeedsASizeOrAParent) {
  EXPECT_EQ(parse<CreateOptions>({"create", "x.qcow2", "10G"}).size_bytes, uint64_t{10} << 30);
  EXPECT_EQ(parse<CreateOptions>({"create", "x.qcow2", "--backing", "y.qcow2"}).backing, "y.qcow2");
  EXPECT_THROW(parse<CreateOptions>({"create", "x.qcow2"}), UsageError);
  EXPECT_THROW(parse<CreateOptions>({"create"}), UsageError);
}

TEST(CommandLine, NbdTakesTheOptionsOfQemuNbd) {
  const auto options = parse<NbdOptions>({"nbd", "x.qcow2", "-k", "/tmp/s", "-x", "disk", "-r"});
  EXPECT_EQ(options.socket, "/tmp/s");
  EXPECT_EQ(options.export_name, "disk");
  EXPECT_TRUE(options.read_only);
  EXPECT_EQ(parse<NbdOptions>({"nbd", "x.qcow2", "-p", "0", "-b", "::1"}).bind, "::1");
  EXPECT_THROW(parse<NbdOptions>({"nbd", "x.qcow2", "-k", "s", "-p", "1"}), UsageError);
}

TEST(CommandLine, NbdServesForAsLongAsItIsTold) {
  const auto options = parse<NbdOptions>(
      {"nbd", "x.qcow2", "-e", "3", "--run", "true", "-P", "/p", "-D", "a disk", "-t"});
  EXPECT_EQ(options.connections_max, 3u);
  EXPECT_EQ(options.run, "true");
  EXPECT_EQ(options.pid_file, "/p");
  EXPECT_EQ(options.description, "a disk");
  EXPECT_FALSE(options.place_is_given);
  EXPECT_EQ(parse<NbdOptions>({"nbd", "x.qcow2", "--shared=0"}).connections_max, 1024u);
  EXPECT_TRUE(parse<NbdOptions>({"nbd", "x.qcow2", "--fork", "-k", "-"}).fork);
  EXPECT_TRUE(parse<NbdOptions>({"nbd", "x.qcow2", "-p", "0"}).place_is_given);
  EXPECT_TRUE(parse<NbdOptions>({"nbd", "-L", "-k", "/s"}).list);
  EXPECT_EQ(refusal({"nbd"}), "varve nbd: FILE is required");
  EXPECT_NE(refusal({"nbd", "x.qcow2", "-L"}), "");
  EXPECT_NE(refusal({"nbd", "x.qcow2", "--run", "true", "--fork"}), "");
  EXPECT_NE(refusal({"nbd", "x.qcow2", "-e", "1025"}), "");
}

TEST(CommandLine, NbdSaysWhatToDoInsteadOfWhatItHasNot) {
  EXPECT_EQ(refusal({"nbd", "x.qcow2", "-s"}),
            "varve nbd has no -s,--snapshot: make an overlay and serve that: varve create "
            "OVERLAY.qcow2 --backing FILE");
  for (const char* option : {"--snapshot", "-c/dev/nbd0", "--tls-creds=x", "--cache=none",
                             "--discard=unmap", "-o5", "-Bb", "--vsock", "--single"}) {
    EXPECT_NE(refusal({"nbd", "x.qcow2", option}).find("varve nbd has no"), std::string::npos)
        << option;
  }
  EXPECT_EQ(parse<NbdOptions>({"nbd", "x.qcow2", "-f", "qcow2"}).file, "x.qcow2");
  EXPECT_NE(refusal({"nbd", "x.raw", "-f", "raw"}).find("qemu-nbd or nbdkit"), std::string::npos);
}

TEST(CommandLine, NoHoleTakesNoSpaceUnlessToldTo) {
  EXPECT_FALSE(parse<NbdOptions>({"nbd", "x.qcow2"}).no_hole_allocates);
  EXPECT_FALSE(parse<NbdOptions>({"nbd", "x.qcow2", "--no-hole=zero"}).no_hole_allocates);
  EXPECT_TRUE(parse<NbdOptions>({"nbd", "x.qcow2", "--no-hole=allocate"}).no_hole_allocates);
  EXPECT_NE(refusal({"nbd", "x.qcow2", "--no-hole=yes"}).find("neither zero nor allocate"),
            std::string::npos);
}

TEST(CommandLine, HowMuchACrashMayCostIsAnOptionOfBothServers) {
  const auto options =
      parse<NbdOptions>({"nbd", "x.qcow2", "--commit-interval", "250ms", "--commit-bytes", "8M"});
  EXPECT_EQ(options.commit_interval, io::Duration(250ms));
  EXPECT_EQ(options.commit_bytes, 8u << 20);
  EXPECT_EQ(parse<NbdOptions>({"nbd", "x.qcow2"}).commit_bytes, 256u << 20);
  EXPECT_EQ(parse<ServeOptions>({"serve"}).engine.commit_bytes, 256u << 20);
  EXPECT_EQ(parse<ServeOptions>({"serve"}).engine.space_reserve_bytes, std::nullopt);
  for (const char* wrong : {"0", "1K", "1T", "many"}) {
    EXPECT_NE(refusal({"serve", "--commit-bytes", wrong}), "") << wrong;
  }
}

TEST(CommandLine, CheckTakesAnImageOrANameOfTheCatalogue) {
  const auto options =
      parse<CheckOptions>({"check", "backup-vm-1", "--json", "--catalogue", "/c.db"});
  EXPECT_EQ(options.target, "backup-vm-1");
  EXPECT_EQ(options.catalogue, "/c.db");
  EXPECT_TRUE(options.json);
  EXPECT_THROW(parse<CheckOptions>({"check"}), UsageError);
  EXPECT_NE(parse<PrintText>({"check", "--help"}).text.find("3 leaked clusters only"),
            std::string::npos);
}

TEST(CommandLine, HelpAndVersionAreTexts) {
  EXPECT_NE(parse<PrintText>({"--version"}).text.find("io_uring tier: "), std::string::npos);
  EXPECT_NE(parse<PrintText>({"serve", "--help"}).text.find("--commit-interval"),
            std::string::npos);
  EXPECT_NE(parse<PrintText>({}).text.find("serve"), std::string::npos);
  EXPECT_EQ(parse<PrintText>({"help"}).text, parse<PrintText>({"--help"}).text);
}

TEST(CommandLine, AMistakeNamesTheHelpThatAnswersIt) {
  EXPECT_EQ(refusal({"frob"}), "unknown command 'frob'; see varve --help");
  EXPECT_EQ(refusal({"serve", "--nonsense"}),
            "varve serve: unknown option '--nonsense'; see varve serve --help");
}

TEST_F(Config, SettingsAndSecretsAreReadAndOptionsWin) {
  write(
      "repository = \"/backup\"\nthreads = 2\nnbd = [\"127.0.0.1:0\", \"[::1]:0\"]\n"
      "allow_plain = true\ncommit_interval = \"2s\"\n"
      "[secrets.vc1]\nusername = \"u\"\npassword = \"p\"\n");
  const auto options = serve({"--threads", "5"});
  EXPECT_EQ(options.engine.repository_path, "/backup");
  EXPECT_EQ(options.threads, 5u);
  EXPECT_EQ(options.nbd.size(), 2u);
  EXPECT_TRUE(options.allow_plain);
  EXPECT_EQ(options.engine.commit_interval, io::Duration(2s));
  EXPECT_EQ(options.engine.named_secrets.at("vc1").password, "p");
}

TEST_F(Config, CheckAndRebuildFindWhatServeWouldUse) {
  write("repository = \"/backup//points/\"\ncatalogue = \"/backup/c.db\"\n");
  const char* const config = path_.c_str();
  EXPECT_EQ(parse<CheckOptions>({"check", "backup-1", "--config", config}).config, path_);
  EXPECT_EQ(parse<RebuildOptions>({"rebuild", "--config", config}).config, path_);
  EXPECT_EQ(configured(path_).engine.repository_path, "/backup/points");
  EXPECT_EQ(configured(path_).engine.catalogue_path, "/backup/c.db");
  EXPECT_THROW(configured(path_ + ".missing"), UsageError);
}

TEST_F(Config, MistakesAreNamedWithFileAndLine) {
  EXPECT_EQ(refused("threads = 2\nthread = 3\n"), path_ + ":2: unknown setting \"thread\"");
  EXPECT_EQ(refused("repository = [\"a\", \"b\"]\n"), path_ + ":1: \"repository\" takes one value");
  EXPECT_EQ(refused("stall = \"soon\"\n"),
            path_ + ":1: stall: \"soon\" is not understood; write it like 90s, 10m or 1h");
  EXPECT_EQ(refused("[secrets.vc1]\nusername = \"u\"\n"),
            path_ + ":1: secret \"vc1\" needs username and password");
  EXPECT_NE(refused("threads = = 2\n").find(path_ + ":1: "), std::string::npos);
  EXPECT_EQ(refusal({"serve", "--config", "/nonexistent/varve.toml"}),
            "read /nonexistent/varve.toml: No such file or directory");
}

TEST_F(Config, ANumberWhereATextIsMeantIsRefused) {
  EXPECT_EQ(refused("\nrepository = 5\n"), path_ + ":2: \"repository\" must be a text in quotes");
  EXPECT_EQ(refused("tls = true\n"), path_ + ":1: \"tls\" must be a text in quotes");
  EXPECT_EQ(refused("allow_plain = 1\n"), path_ + ":1: \"allow_plain\" must be true or false");
  EXPECT_EQ(refused("threads = 1.5\n"),
            path_ + ":1: \"threads\" must be a whole number, or a text in quotes");
  write("threads = 2\nspace_reserve = 1048576\nstall = 0\nwrite_elision = false\n");
  EXPECT_EQ(serve().engine.space_reserve_bytes, 1u << 20);
}

TEST_F(Config, SecretsInAFileThatOthersMayReadAreRefused) {
  for (const char* text :
       {"[secrets.vc1]\nusername = \"u\"\npassword = \"p\"\n", "api_token = \"t\"\n",
        "notify_url = \"https://hooks.example.com/T0/s3cret\"\n"}) {
    write(text);
    std::filesystem::permissions(path_, std::filesystem::perms(0640));
    EXPECT_NO_THROW(serve());
    std::filesystem::permissions(path_, std::filesystem::perms(0644));
    EXPECT_EQ(refusal({"serve", "--config", path_.c_str()}),
              path_ +
                  " holds secrets and may be read or changed by others than its owner and group "
                  "(mode 0644); chmod 0640 it");
  }
}

TEST_F(Config, EveryDefaultIsShownAsItWouldBeSaid) {
  ServeOptions usual = parse<ServeOptions>({"serve"});
  for (const Setting& setting : serve_settings()) {
    if (!setting.show) continue;
    const Setting::Values shown = setting.show(usual);
    if (shown.empty() || shown == Setting::Values{""}) continue;
    ServeOptions said = usual;
    setting.apply(said, shown);
    EXPECT_EQ(setting.show(said), shown) << setting.name;
  }
}

TEST_F(Config, WhereEachValueComesFromIsKnown) {
  write("stall = \"5m\"\nthreads = 2\n");
  const auto options = serve({"--threads", "5"});
  EXPECT_EQ(options.said.at("stall").origin, path_ + ":1");
  EXPECT_EQ(options.said.at("threads").origin, kCommandLine);
  EXPECT_FALSE(options.said.contains("nbd"));
}

/// A variable of a service, as systemd sets it.
class ServiceVariable {
 public:
  ServiceVariable(std::string name, const std::string& value) : name_(std::move(name)) {
    ::setenv(name_.c_str(), value.c_str(), 1);
  }
  ServiceVariable(const ServiceVariable&) = delete;
  ~ServiceVariable() { ::unsetenv(name_.c_str()); }

 private:
  std::string name_;
};

TEST_F(Config, TheStateDirectoryOfAServiceIsTheFirstOfThose) {
  const ServiceVariable variable("STATE_DIRECTORY", "/var/lib/one:/var/lib/two");
  EXPECT_EQ(default_state_directory(), "/var/lib/one");
  EXPECT_EQ(parse<ServeOptions>({"serve"}).engine.catalogue_path, "/var/lib/one/catalogue.db");
}

TEST_F(Config, CredentialsOfTheServiceAreDefaultsThatTheFileOverrules) {
  std::ofstream(directory_ + "/varve.api-token") << "from systemd\n";
  std::ofstream(directory_ + "/server-cert.pem") << "";
  const ServiceVariable variable("CREDENTIALS_DIRECTORY", directory_);
  auto options = parse<ServeOptions>({"serve"});
  EXPECT_EQ(options.api_token, "from systemd");
  EXPECT_EQ(options.tls.certificates, directory_);
  EXPECT_EQ(options.said.at("api-token").origin, "credential varve.api-token");
  write("api_token = \"from the file\"\ntls_psk = \"$CREDENTIALS_DIRECTORY/keys\"\n");
  options = serve();
  EXPECT_EQ(options.api_token, "from the file");
  EXPECT_EQ(options.tls.psk, directory_ + "/keys");
}

}  // namespace
}  // namespace app
