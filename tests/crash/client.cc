// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/client.h"

#include <system_error>

#include "io/big_endian.h"
#include "tests/crash/stream.h"

namespace crash {

io::Task<void> ImageRun::DirectClient::write(uint64_t offset, Bytes bytes, bool fua) {
  io::Buffer buffer = co_await world_.buffers.acquire(bytes.size(), offset % 4096);
  std::copy(bytes.begin(), bytes.end(), buffer.data());
  co_await device_.write(offset, std::move(buffer));
  if (fua) co_await device_.flush();
}

io::Task<void> ImageRun::DirectClient::zero(uint64_t offset, uint64_t length, bool no_hole) {
  const auto mode = no_hole ? io::ZeroMode::no_hole : io::ZeroMode::may_unmap;
  co_await device_.write_zeroes(offset, length, mode);
}

io::Task<void> ImageRun::DirectClient::discard(uint64_t offset, uint64_t length) {
  co_await device_.discard(offset, length);
}

io::Task<void> ImageRun::DirectClient::flush() { co_await device_.flush(); }

io::Task<Bytes> ImageRun::DirectClient::read(uint64_t offset, uint64_t length) {
  Bytes bytes(length);
  co_await device_.read(offset, bytes);
  co_return bytes;
}

ImageRun::NbdClient::NbdClient(World& world, std::unique_ptr<io::Stream> stream)
    : world_(world), stream_(std::move(stream)), sending_(world.scheduler) {}

io::Task<Bytes> ImageRun::NbdClient::ask(nbd::Command command, uint16_t flags, uint64_t offset,
                                         uint64_t length, Bytes payload, size_t data_bytes) {
  const uint64_t cookie = ++cookies_;
  const auto asked = std::make_shared<Asked>(world_.scheduler);
  asked->data.resize(data_bytes);
  asked_[cookie] = asked;
  const auto header = nbd::Request{flags, command, cookie, offset, length}.encode();
  {
    const io::Grant turn = co_await sending_.lock();
    const iovec pieces[] = {io::as_iovec(header), io::as_iovec(payload)};
    co_await stream_->send(std::span(pieces).first(payload.empty() ? 1 : 2));
  }
  if (!ended_) co_await asked->answered.wait();
  if (ended_) throw std::system_error(ECONNRESET, std::generic_category(), "ask the server");
  if (asked->error != 0) {
    throw std::system_error(EIO, std::generic_category(),
                            "the server answers " + std::to_string(asked->error));
  }
  co_return std::move(asked->data);
}

io::Task<void> ImageRun::NbdClient::receive_replies() {
  try {
    std::array<std::byte, nbd::SimpleReply::kWireBytes> wire;
    while (co_await io::receive_exactly(*stream_, wire)) {
      const auto reply = nbd::SimpleReply::decode(wire);
      const auto found = asked_.find(reply.cookie);
      if (found == asked_.end()) throw std::logic_error("a reply to nothing");
      const auto asked = found->second;
      asked->error = static_cast<uint32_t>(reply.error);
      if (asked->error == 0 && !asked->data.empty()) {
        co_await io::receive_exactly(*stream_, asked->data);
      }
      asked_.erase(reply.cookie);
      asked->answered.set();
    }
  } catch (const std::system_error&) {
    // The stream was cut; whoever waits is told below.
  }
  ended_ = true;
  for (const auto& [cookie, asked] : asked_) asked->answered.set();
}

io::Task<void> ImageRun::NbdClient::write(uint64_t offset, Bytes bytes, bool fua) {
  const uint64_t length = bytes.size();
  const uint16_t flags = fua ? nbd::kFlagFua : 0;
  co_await ask(nbd::Command::write, flags, offset, length, std::move(bytes), 0);
}

io::Task<void> ImageRun::NbdClient::zero(uint64_t offset, uint64_t length, bool no_hole) {
  const uint16_t flags = no_hole ? nbd::kFlagNoHole : 0;
  co_await ask(nbd::Command::write_zeroes, flags, offset, length, {}, 0);
}

io::Task<void> ImageRun::NbdClient::discard(uint64_t offset, uint64_t length) {
  co_await ask(nbd::Command::trim, 0, offset, length, {}, 0);
}

io::Task<void> ImageRun::NbdClient::flush() { co_await ask(nbd::Command::flush, 0, 0, 0, {}, 0); }

io::Task<Bytes> ImageRun::NbdClient::read(uint64_t offset, uint64_t length) {
  co_return co_await ask(nbd::Command::read, 0, offset, length, {}, length);
}

ImageRun::NbdServer::NbdServer(World& world, io::BlockDevice& device) : world_(world) {
  nbd::ExportSpec spec;
  spec.name = "disk";
  exported_ = nbd::Export::make(std::move(spec), device, world.runtime());
}

std::unique_ptr<ImageRun::NbdClient> ImageRun::NbdServer::connect() {
  auto [server, client] = stream_pair(world_.scheduler);
  auto place = exported_->connect();
  nbd::Negotiated negotiated{nbd::AdmissionSlot(admission_),
                             std::move(std::get<nbd::ConnectionPlace>(place)),
                             nbd::Negotiation(),
                             {}};
  sessions_.spawn(serve(std::move(server), std::move(negotiated)));
  auto connected = std::make_unique<NbdClient>(world_, std::move(client));
  sessions_.spawn(connected->receive_replies());
  return connected;
}

io::Task<void> ImageRun::NbdServer::serve(std::unique_ptr<io::Stream> stream,
                                          nbd::Negotiated negotiated) {
  nbd::Session session(std::move(stream), std::move(negotiated), {}, {});
  co_await session.serve();
}

io::Task<void> ImageRun::NbdServer::stop(std::vector<std::unique_ptr<Client>>& clients,
                                         bool vanish) {
  for (const auto& client : clients) {
    io::Stream& stream = static_cast<NbdClient&>(*client).stream();
    if (vanish) {
      stream.abort();
    } else {
      co_await stream.finish_sending();
    }
  }
  co_await sessions_.join();
  co_await exported_->join();
}

}  // namespace crash
