// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>

#include "nbd/session.h"
#include "tests/crash/image_run.h"

/// How the clients of a run reach the image. Included by tests/crash only.
namespace crash {

class ImageRun::Client {
 public:
  virtual ~Client() = default;
  virtual io::Task<void> write(uint64_t offset, Bytes bytes, bool fua) = 0;
  virtual io::Task<void> zero(uint64_t offset, uint64_t length, bool no_hole) = 0;
  virtual io::Task<void> discard(uint64_t offset, uint64_t length) = 0;
  virtual io::Task<void> flush() = 0;
  virtual io::Task<Bytes> read(uint64_t offset, uint64_t length) = 0;
};

/// Without a wire.
class ImageRun::DirectClient final : public Client {
 public:
  DirectClient(World& world, io::BlockDevice& device) : world_(world), device_(device) {}
  io::Task<void> write(uint64_t offset, Bytes bytes, bool fua) override;
  io::Task<void> zero(uint64_t offset, uint64_t length, bool no_hole) override;
  io::Task<void> discard(uint64_t offset, uint64_t length) override;
  io::Task<void> flush() override;
  io::Task<Bytes> read(uint64_t offset, uint64_t length) override;

 private:
  World& world_;
  io::BlockDevice& device_;
};

/// One connection: requests go out as they come, replies are told apart by their cookies.
class ImageRun::NbdClient final : public Client {
 public:
  NbdClient(World& world, std::unique_ptr<io::Stream> stream);
  io::Task<void> write(uint64_t offset, Bytes bytes, bool fua) override;
  io::Task<void> zero(uint64_t offset, uint64_t length, bool no_hole) override;
  io::Task<void> discard(uint64_t offset, uint64_t length) override;
  io::Task<void> flush() override;
  io::Task<Bytes> read(uint64_t offset, uint64_t length) override;
  /// Takes replies until the stream ends.
  io::Task<void> receive_replies();
  io::Stream& stream() { return *stream_; }

 private:
  struct Asked {
    explicit Asked(io::Executor& executor) : answered(executor) {}
    io::Event answered;
    Bytes data;  // of a READ
    uint32_t error = 0;
  };
  io::Task<Bytes> ask(nbd::Command command, uint16_t flags, uint64_t offset, uint64_t length,
                      Bytes payload, size_t data_bytes);

  World& world_;
  std::unique_ptr<io::Stream> stream_;
  io::Mutex sending_;
  std::map<uint64_t, std::shared_ptr<Asked>> asked_;
  uint64_t cookies_ = 0;
  bool ended_ = false;
};

/// The production export and sessions over simulated streams.
class ImageRun::NbdServer {
 public:
  NbdServer(World& world, io::BlockDevice& device);
  std::unique_ptr<NbdClient> connect();
  /// The clients say goodbye, or vanish; returns when nothing of them is left.
  io::Task<void> stop(std::vector<std::unique_ptr<Client>>& clients, bool vanish);

 private:
  static io::Task<void> serve(std::unique_ptr<io::Stream> stream, nbd::Negotiated negotiated);

  World& world_;
  nbd::Admission admission_;
  std::shared_ptr<nbd::Export> exported_;
  io::TaskScope sessions_;
};

}  // namespace crash
