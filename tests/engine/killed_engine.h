// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <utility>

#include "tests/engine/engine_fixture.h"

namespace engine_test {

namespace fs = std::filesystem;

/// An engine that can be killed at every step: a copy of its directory is taken there, and a second
/// engine comes up on the copy.
class KilledEngine : public EngineTest {
 protected:
  /// Copies state and repository the `occurrence`-th time that a step is reached, as a kill -9
  /// there would leave them.
  void copy_at(std::string step, int occurrence) {
    copied_ = false;
    hub->reached = [this, step = std::move(step), occurrence,
                    seen = 0](std::string_view reached) mutable {
      if (reached != step || ++seen != occurrence) return;
      fs::remove_all(copy_path());
      fs::create_directory(copy_path());
      for (const char* const name : {"catalogue.db", "catalogue.db-wal", "repository", "away"}) {
        if (!fs::exists(temp.file(name))) continue;
        fs::copy(temp.file(name), copy_path() + "/" + name,
                 fs::copy_options::recursive | fs::copy_options::copy_symlinks);
      }
      copied_ = true;
    };
  }
  std::string copy_path() const { return kill_dir_.path() + "/state"; }

  /// The killed state in the place of the old one, without an engine.
  void put_copy_in_place() {
    hub->reached = [](std::string_view) {};
    hub.reset();
    for (const auto& entry : fs::directory_iterator(temp.path())) fs::remove_all(entry.path());
    for (const auto& entry : fs::directory_iterator(copy_path())) {
      fs::rename(entry.path(), temp.path() + "/" + entry.path().filename().string());
    }
  }
  /// With an engine that has recovered on it.
  void come_up_on_copy() {
    put_copy_in_place();
    restart();
  }

  void expect_sound(const std::string& vm_name, uint32_t disk, size_t points) {
    const ChainView chain = engine().chain({.vm_name = vm_name, .disk_id = disk});
    EXPECT_EQ(chain.points.size(), points);
    for (const ChainPoint& point : chain.points) {
      const auto check = support::run_command("qemu-img check " + point.point.image_path);
      EXPECT_TRUE(check.ok()) << check.output;
      EXPECT_TRUE(fs::exists(point.point.image_path + ".json"));
      EXPECT_EQ(fs::file_size(point.point.image_path), point.point.file_bytes);
    }
  }

  bool copied_ = false;
  support::TempDir kill_dir_;
};

}  // namespace engine_test
