// SPDX-License-Identifier: Apache-2.0
#include "app/reload.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/app/parse.h"

namespace app {
namespace {

/// A server that has read a file, and two parts of it that can follow changes.
class Reload : public ::testing::Test {
 protected:
  Reload() {
    std::string pattern = std::filesystem::temp_directory_path() / "varve-reload-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    path_ = directory_ + "/varve.toml";
    write("stall = \"5m\"\n");
  }
  ~Reload() override { std::filesystem::remove_all(directory_); }
  void write(const std::string& text) const { std::ofstream(path_) << text; }

  Reloadable part(const std::string& setting) {
    return {{setting},
            [this, setting](const ServeOptions& fresh) -> std::optional<std::function<void()>> {
              if (setting == refuses_) throw UsageError("no");
              if (setting == waits_) return std::nullopt;
              return [this, setting, stall = fresh.engine.timeouts.stall] {
                changed_.push_back(setting);
                stall_ = stall;
              };
            }};
  }
  /// What the log says of one reload.
  std::string reload() {
    changed_.clear();
    ::testing::internal::CaptureStderr();
    reloader().reload();
    return ::testing::internal::GetCapturedStderr();
  }
  Reloader& reloader() {
    if (!reloader_) {
      auto options = parse<ServeOptions>({"serve", "--config", path_.c_str()});
      reloader_.emplace(std::move(options), std::vector{part("stall"), part("nbd-idle")});
    }
    return *reloader_;
  }

  std::string directory_, path_, refuses_, waits_;
  std::vector<std::string> changed_;
  io::Duration stall_{};
  std::optional<Reloader> reloader_;
};

TEST_F(Reload, EveryPartFollowsTheNewOptions) {
  reloader();
  write("stall = \"7m\"\nthreads = 3\n");
  const std::string log = reload();
  EXPECT_EQ(changed_, (std::vector<std::string>{"stall", "nbd-idle"}));
  EXPECT_EQ(stall_, io::Duration(std::chrono::minutes(7)));
  EXPECT_NE(log.find("changed and in force: stall\n"), std::string::npos) << log;
  EXPECT_NE(log.find("restart: threads\n"), std::string::npos) << log;
  const std::string again = reload();
  EXPECT_NE(again.find("no setting has changed that takes effect"), std::string::npos) << again;
  EXPECT_NE(again.find("restart: threads\n"), std::string::npos) << again;
}

TEST_F(Reload, NothingChangesWhenOnePartCannotFollow) {
  reloader();
  refuses_ = "nbd-idle";
  write("stall = \"7m\"\n");
  const std::string log = reload();
  EXPECT_TRUE(changed_.empty());
  EXPECT_NE(log.find("nothing has changed: no\n"), std::string::npos) << log;
}

TEST_F(Reload, APartThatCannotFollowWhileItRunsWaitsForTheNextStart) {
  reloader();
  waits_ = "stall";
  write("stall = \"7m\"\n");
  const std::string log = reload();
  EXPECT_EQ(changed_, std::vector<std::string>{"nbd-idle"});
  EXPECT_NE(log.find("restart: stall\n"), std::string::npos) << log;
}

TEST_F(Reload, AFileThatIsGoneChangesNothing) {
  reloader();
  std::filesystem::remove(path_);
  const std::string log = reload();
  EXPECT_TRUE(changed_.empty());
  EXPECT_NE(log.find("read " + path_ + ": No such file or directory"), std::string::npos) << log;
}

/// Without --config the file is read where it usually is, if there is one: it must not go
/// unnoticed.
TEST_F(Reload, TheUsualFileThatIsGoneChangesNothing) {
  const std::string usual = "/etc/varve/varve.toml";
  if (std::filesystem::exists(usual)) GTEST_SKIP() << usual << " is there";
  auto options = parse<ServeOptions>({"serve"});
  options.config_file = usual;
  reloader_.emplace(std::move(options), std::vector{part("stall")});
  const std::string log = reload();
  EXPECT_TRUE(changed_.empty());
  EXPECT_NE(log.find("nothing has changed: " + usual + " is gone"), std::string::npos) << log;
}

}  // namespace
}  // namespace app
