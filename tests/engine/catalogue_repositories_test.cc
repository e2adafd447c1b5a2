// SPDX-License-Identifier: Apache-2.0
#include "tests/engine/catalogue_fixture.h"

namespace engine {
namespace {

class CatalogueRepositories : public CatalogueTest {
 protected:
  static Repository nfs(const std::string& id) {
    Repository repository;
    repository.id = id;
    repository.name = "name of " + id;
    repository.type = RepositoryType::nfs;
    repository.enabled = false;
    repository.config_json = R"({"server":"s"})";
    repository.directory = "/mnt/" + id;
    repository.is_immutable = true;
    repository.min_retention_days = 30;
    return repository;
  }
};

TEST_F(CatalogueRepositories, ARepositoryComesBack) {
  catalogue().repositories.insert(nfs("2"), now());
  open();
  const Repository back = catalogue().repositories.find("2").value();
  EXPECT_EQ(back.name, "name of 2");
  EXPECT_EQ(back.type, RepositoryType::nfs);
  EXPECT_FALSE(back.enabled);
  EXPECT_EQ(back.config_json, R"({"server":"s"})");
  EXPECT_EQ(back.directory, "/mnt/2");
  EXPECT_TRUE(back.is_immutable);
  EXPECT_EQ(back.min_retention_days, 30);
  EXPECT_FALSE(back.storage);
  EXPECT_EQ(back.created_at, now());
  EXPECT_FALSE(catalogue().repositories.find("3"));
}

TEST_F(CatalogueRepositories, WhatTheLastTestHasFoundComesBack) {
  catalogue().repositories.insert(nfs("2"), now());
  EXPECT_FALSE(catalogue().repositories.abilities("2")) << "not tested yet";
  StorageAbilities found{.direct_io = true, .locks = true};
  catalogue().repositories.set_abilities("2", found);
  found.punch_holes = true;
  catalogue().repositories.set_abilities("2", found);
  open();
  EXPECT_EQ(catalogue().repositories.abilities("2"), found);
}

TEST_F(CatalogueRepositories, NameAndIdAreUnique) {
  catalogue().repositories.insert(nfs("2"), now());
  Repository twin = nfs("3");
  twin.name = "name of 2";
  EXPECT_EQ(refused([&] { catalogue().repositories.insert(twin, now()); }),
            refusals::repository_name_taken().code);
  twin.id = "2";
  twin.name = "other";
  EXPECT_EQ(refused([&] { catalogue().repositories.insert(twin, now()); }),
            refusals::repository_id_taken().code);
  twin = nfs("1");
  twin.name = "name of 2";
  EXPECT_EQ(refused([&] { catalogue().repositories.update(twin, now()); }),
            refusals::repository_name_taken().code);
}

TEST_F(CatalogueRepositories, FiltersCombine) {
  catalogue().repositories.insert(nfs("2"), now());
  const auto ids = [&](const RepositoryFilter& filter) {
    std::vector<std::string> ids;
    for (const Repository& one : catalogue().repositories.list(filter)) ids.push_back(one.id);
    return ids;
  };
  using Ids = std::vector<std::string>;
  EXPECT_EQ(ids({}), (Ids{"1", "2"}));
  EXPECT_EQ(ids({RepositoryType::nfs, std::nullopt}), Ids{"2"});
  EXPECT_EQ(ids({std::nullopt, true}), Ids{"1"});
  EXPECT_EQ(ids({RepositoryType::nfs, true}), Ids{});
}

TEST_F(CatalogueRepositories, ValuesAndMeasuresAreReplaced) {
  Repository one = nfs("1");
  catalogue().repositories.update(one, tick());
  catalogue().repositories.set_storage("1", {1000, 400, 600, now()});
  const Repository back = catalogue().repositories.find("1").value();
  EXPECT_EQ(back.directory, "/mnt/1");
  EXPECT_EQ(back.updated_at, now());
  ASSERT_TRUE(back.storage);
  EXPECT_EQ(back.storage->total_bytes, 1000u);
  EXPECT_EQ(back.storage->used_bytes, 400u);
  EXPECT_EQ(back.storage->available_bytes, 600u);
  EXPECT_EQ(back.storage->measured_at, now());
  EXPECT_EQ(refused([&] { catalogue().repositories.update(nfs("9"), now()); }),
            refusals::unknown_repository("9").code);
}

TEST_F(CatalogueRepositories, ARepositoryWithBackupsStays) {
  const Vm vm = add_vm("a");
  const std::string has_backups = refusals::repository_has_backups("").code;
  const Job job = start(vm, BackupType::full);
  EXPECT_EQ(refused([&] { catalogue().repositories.erase("1"); }), has_backups);
  catalogue().jobs.end(job.id, JobState::cancelled, "", now());
  backup(vm, BackupType::full, 1);
  EXPECT_EQ(catalogue().repositories.backup_count("1"), 1u);
  EXPECT_EQ(refused([&] { catalogue().repositories.erase("1"); }), has_backups);
  EXPECT_EQ(refused([&] { catalogue().repositories.erase("9"); }),
            refusals::unknown_repository("9").code);
}

TEST_F(CatalogueRepositories, ARepositoryWithFailedJobsOnlyGoesWithTheirRows) {
  const Job job = start(add_vm("a"), BackupType::full);
  catalogue().jobs.end(job.id, JobState::failed, "broken", now());
  catalogue().repositories.erase("1");
  EXPECT_FALSE(catalogue().repositories.find("1"));
  EXPECT_FALSE(catalogue().jobs.find(job.id));
  EXPECT_TRUE(catalogue().integrity_problems().empty());
}

}  // namespace
}  // namespace engine
