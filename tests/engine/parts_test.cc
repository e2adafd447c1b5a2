// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include <random>

#include "engine/catalogue/secrets.h"
#include "engine/ingest/coverage.h"
#include "engine/ingest/speed_meter.h"
#include "engine/repository/storage.h"
#include "tests/engine/engine_fixture.h"
#include "tests/support/ring_fixture.h"

namespace engine_test {
namespace {

using namespace std::chrono_literals;

TEST(CoverageOfADisk, EqualsThatOfAFlatModel) {
  std::mt19937 random(7);
  Coverage coverage;
  std::vector<bool> model(4096);
  for (int i = 0; i < 4000; ++i) {
    const uint64_t offset = random() % model.size();
    const uint64_t length = random() % std::min<uint64_t>(40, model.size() - offset);
    const bool adds = i < 2000 || random() % 2 == 0;
    adds ? coverage.add(offset, length) : coverage.subtract(offset, length);
    std::fill_n(model.begin() + static_cast<ptrdiff_t>(offset), length, adds);
    ASSERT_EQ(coverage.covered_bytes(), std::count(model.begin(), model.end(), true));
    std::vector<bool> again(model.size());
    for (const auto& range : coverage.ranges()) {
      std::fill_n(again.begin() + static_cast<ptrdiff_t>(range.offset), range.length, true);
    }
    ASSERT_EQ(again, model);
    const uint64_t from = random() % model.size();
    const uint64_t bytes = random() % (model.size() - from);
    const auto begin = model.begin() + static_cast<ptrdiff_t>(from);
    uint64_t within = 0;
    for (const auto& range : coverage.within(from, bytes)) within += range.length;
    ASSERT_EQ(within, std::count(begin, begin + static_cast<ptrdiff_t>(bytes), true));
    ASSERT_EQ(coverage.intersects(from, bytes), within > 0);
  }
}

TEST(Speed, IsMeasuredOverTheLastTenSeconds) {
  SpeedMeter meter;
  io::SteadyTime now{};
  uint64_t bytes = 0;
  EXPECT_EQ(meter.bytes_per_second(), 0u);
  for (int second = 0; second <= 30; ++second, now += 1s) meter.note(now, bytes += 100);
  EXPECT_EQ(meter.bytes_per_second(), 100u);
  for (int second = 0; second <= 10; ++second, now += 1s) meter.note(now, bytes);
  EXPECT_LE(meter.bytes_per_second(), 10u);
  meter.note(now, 0);
  EXPECT_EQ(meter.bytes_per_second(), 0u) << "the exports have ended";
}

TEST(SpaceReserve, IsOnePercentOfSmallDisks) {
  EXPECT_EQ(reserve_of(100 << 20, std::nullopt), 1u << 20);
  EXPECT_EQ(reserve_of(uint64_t{1} << 50, std::nullopt), 1u << 30);
  EXPECT_EQ(reserve_of(100 << 20, 20 << 20), 20u << 20);
  EXPECT_EQ(reserve_of(uint64_t{1} << 50, 0), 0u);
}

class SecretsTest : public support::RingTest {
 protected:
  Secrets open() { return run(Secrets::open(runtime(), path_, {{"vc1", {"named", "pw1"}}})); }
  support::TempDir temp_;
  std::string path_ = temp_.file("catalogue.db.secrets");
};

TEST_F(SecretsTest, AreKeptInAFileThatOnlyTheOwnerMayRead) {
  Secrets secrets = open();
  run(secrets.store("ctx-a", {"u", "p\"w"}));
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  Vm vm;
  vm.context_id = "ctx-a";
  vm.credentials.kind = CredentialsRef::Kind::inline_secret;
  EXPECT_EQ(open().find(vm), (Credentials{"u", "p\"w"}));
  run(secrets.remove("ctx-a"));
  EXPECT_FALSE(open().find(vm));
  vm.credentials = {CredentialsRef::Kind::reference, "vc1"};
  EXPECT_EQ(open().find(vm)->username, "named");
  EXPECT_FALSE(open().is_missing(vm));
  vm.credentials.ref = "vc2";
  EXPECT_FALSE(open().find(vm));
  EXPECT_TRUE(open().is_missing(vm));
  EXPECT_FALSE(open().is_missing(Vm{})) << "it refers to none";
}

TEST_F(SecretsTest, ManyAtTheSameTimeTakeTurns) {
  constexpr int kWriters = 16;
  Secrets secrets = open();
  const auto store_all = [&]() -> io::Task<void> {
    return io::run_scoped([&](io::TaskScope& scope) -> io::Task<void> {
      for (int number = 0; number < kWriters; ++number) {
        scope.spawn(secrets.store("ctx-" + std::to_string(number), {"u", std::to_string(number)}));
      }
      co_return;
    });
  };
  run(store_all());
  const Secrets after = open();
  for (int number = 0; number < kWriters; ++number) {
    Vm vm;
    vm.context_id = "ctx-" + std::to_string(number);
    vm.credentials.kind = CredentialsRef::Kind::inline_secret;
    EXPECT_EQ(after.find(vm), (Credentials{"u", std::to_string(number)}));
  }
}

TEST_F(SecretsTest, WhatAKilledProcessHasLeftIsRemoved) {
  std::ofstream(path_ + ".new") << "{\"ctx\":{\"password\":\"hunter2\"";
  std::ofstream(path_ + ".1f2e3d.new") << "hunter2";
  std::ofstream(temp_.file("catalogue.db.other.new")) << "not of the secrets";
  open();
  EXPECT_FALSE(std::filesystem::exists(path_ + ".new"));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".1f2e3d.new"));
  EXPECT_TRUE(std::filesystem::exists(temp_.file("catalogue.db.other.new")));
}

TEST_F(SecretsTest, ADamagedFileIsRefusedWithoutQuotingIt) {
  std::ofstream(path_) << "{\"ctx\":{\"password\":\"hunter2\"";
  try {
    open();
    FAIL();
  } catch (const std::exception& failure) {
    EXPECT_EQ(std::string(failure.what()).find("hunter2"), std::string::npos);
  }
}

using Repositories = EngineTest;

TEST_F(Repositories, TheFirstOneWorksWithoutConfigurationAndIsMeasured) {
  const RepositoryView first = engine().repository("1");
  EXPECT_EQ(first.repository.directory, temp.file("repository"));
  EXPECT_GT(engine().repository_storage("1").total_bytes, 0u);
  EXPECT_FALSE(first.abilities) << "not tested yet";
  const RepositoryTest test = engine().test_repository("1");
  EXPECT_TRUE(test.passed) << test.error_details;
  ASSERT_TRUE(test.abilities);
  EXPECT_TRUE(test.abilities->locks);
  EXPECT_EQ(engine().repository("1").abilities, test.abilities) << "the catalogue keeps it";
  EXPECT_TRUE(repository_files().empty());
  EXPECT_EQ(refusal_of([&] { engine().repository("2"); }), "repository_not_found");
}

TEST_F(Repositories, AreTestedWhenTheyAreRegistered) {
  const std::string directory = temp.file("second");
  const RepositoryView made =
      engine().create_repository({.id = "two",
                                  .name = "second",
                                  .type = RepositoryType::local,
                                  .config_json = R"({"path":")" + directory + R"("})",
                                  .directory = directory});
  ASSERT_TRUE(made.abilities);
  EXPECT_TRUE(made.abilities->symbolic_links);
}

TEST_F(Repositories, ANetworkRepositoryMustBeAMountPoint) {
  const NewRepository request{.name = "nas",
                              .type = RepositoryType::nfs,
                              .config_json = R"({"mount_point":")" + temp.path() + R"("})",
                              .directory = temp.path()};
  EXPECT_NE(refusal_of([&] { engine().create_repository(request); }), "");
  const RepositoryTest test = engine().test_repository(request);
  EXPECT_FALSE(test.passed);
  EXPECT_NE(test.error_details.find("mount"), std::string::npos);
}

}  // namespace
}  // namespace engine_test
