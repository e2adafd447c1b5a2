#include "bench/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "io/address.h"
#include "io/big_endian.h"
#include "io/failure.h"

namespace bench {
namespace {

io::OwnedFd connect(const Server& server) {
  const bool local = !server.unix_path.empty();
  const io::HostPort tcp = local ? io::HostPort{} : io::parse_host_port(server.tcp);
  const io::SocketAddress address = local ? io::SocketAddress::unix_path(server.unix_path)
                                          : io::SocketAddress::tcp(tcp.host, tcp.port);
  io::OwnedFd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), address.get(), address.length) != 0) {
    throw io::failure("connect to", address.text(), errno);
  }
  const int on = 1;
  if (!local) ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

}  // namespace

Connection::Connection(const Server& server) : fd_(connect(server)) {
  std::array<std::byte, nbd::Greeting::kWireBytes> greeting;
  receive(greeting);
  std::vector<std::byte> hello(4 + nbd::OptionHeader::kWireBytes + server.export_name.size());
  io::BigEndianWriter out(hello);
  out.put(uint32_t{nbd::kFixedNewstyle | nbd::kNoZeroes});
  const auto name_bytes = static_cast<uint32_t>(server.export_name.size());
  out.put_bytes(nbd::OptionHeader{nbd::Option::export_name, name_bytes}.encode());
  out.put_text(server.export_name);
  send({{hello.data(), hello.size()}});
  std::array<std::byte, 10> answer;
  receive(answer);
  size_ = io::load_be<uint64_t>(answer.data());
}

uint64_t Connection::request(nbd::Command command, uint64_t offset, uint64_t length,
                             std::byte* payload) {
  nbd::Request request;
  request.command = command;
  request.offset = offset;
  request.length = static_cast<uint32_t>(length);
  request.cookie = ++cookie_;
  auto header = request.encode();
  std::vector<iovec> pieces = {{header.data(), header.size()}};
  if (payload != nullptr) pieces.push_back({payload, length});
  send(std::move(pieces));
  return cookie_;
}

uint64_t Connection::take_reply() {
  std::array<std::byte, nbd::SimpleReply::kWireBytes> wire;
  receive(wire);
  const nbd::SimpleReply reply = nbd::SimpleReply::decode(wire);
  if (reply.error != nbd::WireError::none) {
    throw io::failure("write to", "the server", static_cast<int>(reply.error));
  }
  return reply.cookie;
}

void Connection::send(std::vector<iovec> pieces) {
  size_t first = 0;
  while (first < pieces.size()) {
    const ssize_t sent =
        ::writev(fd_.get(), &pieces[first], static_cast<int>(pieces.size() - first));
    if (sent < 0) throw io::failure("send to", "the server", errno);
    auto left = static_cast<size_t>(sent);
    while (first < pieces.size() && left >= pieces[first].iov_len) {
      left -= pieces[first++].iov_len;
    }
    if (left == 0) continue;
    pieces[first].iov_base = static_cast<char*>(pieces[first].iov_base) + left;
    pieces[first].iov_len -= left;
  }
}

void Connection::receive(std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t count = ::recv(fd_.get(), into.data(), into.size(), 0);
    if (count <= 0) {
      throw io::failure("receive from", "the server", count == 0 ? ECONNRESET : errno);
    }
    into = into.subspan(static_cast<size_t>(count));
  }
}

}  // namespace bench
