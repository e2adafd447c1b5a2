// A load generator for NBD servers: one connection, a fixed number of requests in flight.
//
// It does as little as a client can, so that the server is what is measured: blocking calls, one
// thread, payload from a pool of random bytes that was touched before the clock starts. Prints one
// line of JSON. See bench/compare.py for the comparisons.
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <cstdio>
#include <map>
#include <random>
#include <vector>

#include "app/options.h"
#include "io/address.h"
#include "io/big_endian.h"
#include "io/failure.h"
#include "io/owned_fd.h"
#include "nbd/protocol.h"

namespace {

struct LoadOptions {
  std::string unix_path, tcp, export_name, pattern = "sequential";
  uint64_t block = 256 << 10, bytes = uint64_t{4} << 30;
  unsigned depth = 16;
  uint64_t seed = 1;
  bool zeroes = false;
};

/// One connection, past its handshake.
class Connection {
 public:
  explicit Connection(const LoadOptions& options) : fd_(connect(options)) {
    std::array<std::byte, nbd::Greeting::kWireBytes> greeting;
    receive(greeting);
    std::vector<std::byte> hello(4 + nbd::OptionHeader::kWireBytes + options.export_name.size());
    io::BigEndianWriter out(hello);
    out.put(uint32_t{nbd::kFixedNewstyle | nbd::kNoZeroes});
    const auto name_bytes = static_cast<uint32_t>(options.export_name.size());
    out.put_bytes(nbd::OptionHeader{nbd::Option::export_name, name_bytes}.encode());
    out.put_text(options.export_name);
    send({{hello.data(), hello.size()}});
    std::array<std::byte, 10> answer;
    receive(answer);
    size_ = io::load_be<uint64_t>(answer.data());
  }

  uint64_t size() const { return size_; }

  void send(std::vector<iovec> pieces) {
    size_t first = 0;
    while (first < pieces.size()) {
      const ssize_t sent =
          ::writev(fd_.get(), &pieces[first], static_cast<int>(pieces.size() - first));
      if (sent < 0) throw io::failure("send to", "the server", errno);
      auto left = static_cast<size_t>(sent);
      while (first < pieces.size() && left >= pieces[first].iov_len)
        left -= pieces[first++].iov_len;
      if (left == 0) continue;
      pieces[first].iov_base = static_cast<char*>(pieces[first].iov_base) + left;
      pieces[first].iov_len -= left;
    }
  }

  /// Waits for one reply and checks it.
  void take_reply() {
    std::array<std::byte, nbd::SimpleReply::kWireBytes> wire;
    receive(wire);
    const nbd::SimpleReply reply = nbd::SimpleReply::decode(wire);
    if (reply.error != nbd::WireError::none) {
      throw io::failure("write to", "the server", static_cast<int>(reply.error));
    }
  }

  void request(nbd::Command command, uint16_t flags, uint64_t offset, uint64_t length,
               std::byte* payload) {
    nbd::Request request;
    request.command = command;
    request.flags = flags;
    request.offset = offset;
    request.length = length;
    request.cookie = ++cookie_;
    auto header = request.encode();
    std::vector<iovec> pieces = {{header.data(), header.size()}};
    if (payload != nullptr) pieces.push_back({payload, length});
    send(std::move(pieces));
  }

 private:
  static io::OwnedFd connect(const LoadOptions& options) {
    const bool local = !options.unix_path.empty();
    const io::HostPort tcp = local ? io::HostPort{} : io::parse_host_port(options.tcp);
    const io::SocketAddress address = local ? io::SocketAddress::unix_path(options.unix_path)
                                            : io::SocketAddress::tcp(tcp.host, tcp.port);
    io::OwnedFd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(fd.get(), address.get(), address.length) != 0) {
      throw io::failure("connect to", address.text(), errno);
    }
    const int on = 1;
    if (!local) ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
  }

  void receive(std::span<std::byte> into) {
    while (!into.empty()) {
      const ssize_t count = ::recv(fd_.get(), into.data(), into.size(), 0);
      if (count <= 0)
        throw io::failure("receive from", "the server", count == 0 ? ECONNRESET : errno);
      into = into.subspan(static_cast<size_t>(count));
    }
  }

  io::OwnedFd fd_;
  uint64_t size_ = 0;
  uint64_t cookie_ = 0;
};

struct Extent {
  uint64_t offset, length;
};

std::vector<Extent> sequential(const LoadOptions& options, uint64_t stride) {
  std::vector<Extent> extents;
  for (uint64_t done = 0; done < options.bytes; done += options.block) {
    extents.push_back({done * stride, std::min(options.block, options.bytes - done)});
  }
  return extents;
}

std::vector<Extent> random_blocks(const LoadOptions& options, uint64_t size) {
  std::mt19937_64 random(options.seed);
  std::vector<Extent> extents;
  for (uint64_t done = 0; done < options.bytes; done += options.block) {
    extents.push_back({random() % (size / options.block) * options.block, options.block});
  }
  return extents;
}

/// The existing client's full copy: three workers over thirds that are rounded down to a sector,
/// 32 MiB steps, one request at a time.
std::vector<Extent> client_copy(uint64_t capacity) {
  constexpr uint64_t kStep = 32 << 20;
  const uint64_t range = capacity / 3 / 512 * 512;
  std::array<uint64_t, 3> at = {0, range, 2 * range};
  const std::array<uint64_t, 3> end = {range, 2 * range, capacity};
  std::vector<Extent> extents;
  for (bool more = true; more;) {
    more = false;
    for (size_t worker = 0; worker < at.size(); ++worker) {
      if (at[worker] == end[worker]) continue;
      const uint64_t length = std::min(kStep, end[worker] - at[worker]);
      extents.push_back({at[worker], length});
      at[worker] += length;
      more = true;
    }
  }
  return extents;
}

std::vector<Extent> plan(const LoadOptions& options, uint64_t size) {
  if (options.pattern == "sequential") return sequential(options, 1);
  if (options.pattern == "scattered") return sequential(options, 4);
  if (options.pattern == "random") return random_blocks(options, size);
  if (options.pattern == "client") return client_copy(options.bytes);
  throw std::invalid_argument("unknown pattern " + options.pattern);
}

/// Random bytes, more than any cache holds, touched before the clock starts.
std::vector<std::byte> random_pool(uint64_t seed) {
  std::vector<std::byte> pool(size_t{128} << 20);
  std::mt19937_64 random(seed);
  for (size_t at = 0; at < pool.size(); at += 8) io::store_be(&pool[at], random());
  return pool;
}

double run(const LoadOptions& options) {
  Connection connection(options);
  std::vector<std::byte> pool = random_pool(options.seed);
  const std::vector<Extent> extents = plan(options, connection.size());
  const auto start = std::chrono::steady_clock::now();
  unsigned in_flight = 0;
  size_t pool_at = 0;
  for (const Extent& extent : extents) {
    if (in_flight == options.depth) {
      connection.take_reply();
      --in_flight;
    }
    if (options.zeroes) {
      connection.request(nbd::Command::write_zeroes, 0, extent.offset, extent.length, nullptr);
    } else {
      if (pool_at + extent.length > pool.size()) pool_at = 0;
      connection.request(nbd::Command::write, 0, extent.offset, extent.length, &pool[pool_at]);
      pool_at += extent.length;
    }
    ++in_flight;
  }
  for (; in_flight > 0; --in_flight) connection.take_reply();
  connection.request(nbd::Command::flush, 0, 0, 0, nullptr);
  connection.take_reply();
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  connection.request(nbd::Command::disconnect, 0, 0, 0, nullptr);
  return taken.count();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("one NBD connection with a fixed number of requests in flight, ended by FLUSH");
  LoadOptions options;
  std::string block = "256K", bytes = "4G";
  app.add_option("--unix", options.unix_path, "socket");
  app.add_option("--tcp", options.tcp, "HOST:PORT");
  app.add_option("--export", options.export_name, "export name");
  app.add_option("--pattern", options.pattern, "sequential, scattered, random or client");
  app.add_option("--block", block, "bytes a request");
  app.add_option("--bytes", bytes, "bytes in all");
  app.add_option("--depth", options.depth, "requests in flight");
  app.add_option("--seed", options.seed, "of the random bytes and offsets");
  app.add_flag("--zeroes", options.zeroes, "WRITE_ZEROES instead of WRITE");
  CLI11_PARSE(app, argc, argv);
  try {
    options.block = app::parse_size(block);
    options.bytes = app::parse_size(bytes);
    const double seconds = run(options);
    fmt::print("{{\"bytes\":{},\"seconds\":{:.6f}}}\n", options.bytes, seconds);
    return 0;
  } catch (const std::exception& failure) {
    fmt::print(stderr, "load: {}\n", failure.what());
    return 1;
  }
}
