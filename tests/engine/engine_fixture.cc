// SPDX-License-Identifier: Apache-2.0
#include "tests/engine/engine_fixture.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

namespace engine_test {

PortNumbers free_ports(uint16_t count) {
  std::random_device random;
  const auto first = static_cast<uint16_t>(20000 + random() % 30000);
  return {first, static_cast<uint16_t>(first + count - 1)};
}

Hub::Hub(std::string where, std::function<void(EngineOptions&)> adjust)
    : directory(std::move(where)),
      control_(std::make_unique<io::RingThread>("control")),
      data_(std::make_unique<io::RingThread>("data")) {
  EngineOptions options;
  options.version = "test";
  options.pid = ::getpid();
  options.catalogue_path = directory + "/catalogue.db";
  options.repository_path = directory + "/repository";
  options.ports = free_ports(8);
  options.named_secrets["vc1"] = {.username = "reader", .password = "secret"};
  options.space_reserve_bytes = 0;
  options.watch_interval = std::chrono::milliseconds(20);
  options.retry_interval = std::chrono::milliseconds(20);
  if (adjust) adjust(options);
  on_data([&]() -> io::Task<void> {
    server_ = std::make_unique<nbd::Server>(data_->ring(), exports);
    co_return;
  });
  const io::Runtime data = data_->runtime();
  const io::Runtime home = control_->runtime();
  clock = std::make_unique<HeldClock>(home.clock);
  data_files_ = std::make_unique<support::FaultyFileSystem>(data.files, faults);
  impl = std::make_unique<EngineImpl>(
      EngineParts{.home = {home.executor, *clock, home.files, home.buffers, home.random},
                  .data = {{data.executor, data.clock, *data_files_, data.buffers, data.random}},
                  .server_thread = data_->ring(),
                  .server = *server_,
                  .exports = exports,
                  .node = node,
                  .notifier = &told,
                  .reached = [this](std::string_view step) { reached(step); }},
      options);
}

void Hub::stop() {
  if (!impl) return;
  impl->stop();
  on_data([&]() -> io::Task<void> {
    co_await server_->stop();
    server_.reset();
  });
  impl.reset();
  data_->stop();
  control_->stop();
}

Writer::Writer(Hub& hub, const std::string& export_name)
    : hub_(hub), export_(hub.exports.find(export_name)) {
  if (!export_) throw std::runtime_error("no export " + export_name);
}

Writer::~Writer() { disconnect(); }

bool Writer::connect() {
  auto result = export_->connect();
  if (!std::holds_alternative<nbd::ConnectionPlace>(result)) return false;
  place_.emplace(std::move(std::get<nbd::ConnectionPlace>(result)));
  return true;
}

void Writer::disconnect() { place_.reset(); }

void Writer::write(uint64_t offset, const std::string& bytes) {
  hub_.on_data([&]() -> io::Task<void> {
    io::Buffer buffer = co_await export_->home().buffers.acquire(bytes.size(), offset);
    std::memcpy(buffer.data(), bytes.data(), bytes.size());
    co_await export_->device().write(offset, std::move(buffer));
  });
}

void EngineTest::restart(std::function<void(EngineOptions&)> adjust) {
  hub.reset();
  hub = std::make_unique<Hub>(temp.path(), std::move(adjust));
  hub->start();
}

void EngineTest::register_vm(const std::string& name, size_t disk_count, uint64_t disk_bytes) {
  PutVmContext request;
  request.vm_name = name;
  request.vm_path = "/DC1/vm/" + name;
  request.vcenter_host = "vc1.example";
  request.credentials.kind = CredentialsChange::Kind::reference;
  request.credentials.reference = "vc1";
  for (size_t i = 0; i < disk_count; ++i) {
    request.disks.push_back(
        {.disk_id = "disk-" + std::to_string(2000 + i), .capacity_bytes = disk_bytes});
  }
  engine().put_vm(request);
}

BackupView EngineTest::start(const std::string& vm_name, BackupType type,
                             const std::string& repository) {
  return engine().start_backup(
      {.vm_name = vm_name, .backup_type = type, .repository_id = repository});
}

void EngineTest::fill(const BackupView& backup, const std::string& bytes, int serial) {
  for (const JobDisk& disk : backup.job.disks) {
    Writer writer(*hub, disk.export_name);
    ASSERT_TRUE(writer.connect());
    writer.write(0, bytes);
    complete(backup, disk.index, change_id(disk.index, serial));
  }
}

CompletedDisk EngineTest::complete(const BackupView& backup, uint32_t disk,
                                   const std::string& change_id) {
  return engine().complete({.backup_id = backup.job.id, .change_id = change_id, .disk_id = disk});
}

BackupView EngineTest::back_up(const std::string& vm_name, BackupType type,
                               const std::string& bytes, int serial) {
  const BackupView backup = start(vm_name, type);
  fill(backup, bytes, serial);
  return backup;
}

std::vector<std::string> EngineTest::repository_files() const {
  const std::filesystem::path root = temp.file("repository");
  for (;;) {
    try {
      std::vector<std::string> files;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
        const std::string path = entry.path().lexically_relative(root);
        if (!path.starts_with(".varve")) files.push_back(path);
      }
      std::sort(files.begin(), files.end());
      return files;
    } catch (const std::filesystem::filesystem_error&) {
      // The engine has removed a directory meanwhile.
    }
  }
}

void EngineTest::expect_nothing_left() {
  EXPECT_TRUE(engine().exports().empty());
  EXPECT_TRUE(engine().ports().allocations.empty());
  EXPECT_TRUE(hub->exports.list().empty());
  for (const std::string& path : repository_files()) {
    EXPECT_FALSE(path.ends_with(".partial")) << path;
  }
  // What is derived from the catalogue may be being written at this moment.
  EXPECT_TRUE(wait_until([&] {
    const auto files = repository_files();
    return std::none_of(files.begin(), files.end(),
                        [](const std::string& path) { return path.ends_with(".new"); });
  }));
}

bool EngineTest::wait_until(const std::function<bool()>& condition,
                            std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace engine_test
