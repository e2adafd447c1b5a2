// SPDX-License-Identifier: Apache-2.0
#include "http_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace api_tests {

Connection::Connection(const std::string& address) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
  connect(reinterpret_cast<sockaddr*>(&at), sizeof at);
}

Connection::Connection(Unix, const std::string& path) {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  path.copy(at.sun_path, sizeof at.sun_path - 1);
  fd_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
  connect(reinterpret_cast<sockaddr*>(&at), sizeof at);
}

Connection::~Connection() { ::close(fd_); }

void Connection::send(const std::string& text) {
  for (size_t sent = 0; sent < text.size();) {
    const ssize_t count = ::send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return;  // the server may have closed already
    sent += static_cast<size_t>(count);
  }
}

std::string Connection::receive() {
  size_t end, length = 0;
  while ((end = got_.find("\r\n\r\n")) == got_.npos) {
    if (!more()) return std::exchange(got_, "");
  }
  const size_t at = got_.find("Content-Length: ");
  if (at < end) length = std::stoul(got_.substr(at + 16));
  while (got_.size() < end + 4 + length) {
    if (!more()) break;
  }
  const std::string answer = got_.substr(0, end + 4 + length);
  got_.erase(0, answer.size());
  return answer;
}

std::string Connection::receive_head() { return receive_until("\r\n\r\n"); }

std::string Connection::receive_until(const std::string& text) {
  size_t at;
  while ((at = got_.find(text)) == got_.npos) {
    if (!more()) return std::exchange(got_, "");
  }
  const std::string received = got_.substr(0, at + text.size());
  got_.erase(0, received.size());
  return received;
}

void Connection::wait_for_bytes() {
  char byte;
  EXPECT_EQ(::recv(fd_, &byte, 1, MSG_PEEK), 1);
}

std::string Connection::receive_rest() {
  while (more()) {
  }
  return std::exchange(got_, "");
}

bool Connection::is_closed_within(std::chrono::milliseconds patience) {
  const timeval wait{patience.count() / 1000, (patience.count() % 1000) * 1000};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  char byte;
  return ::recv(fd_, &byte, 1, 0) == 0;
}

void Connection::connect(const sockaddr* at, socklen_t size) {
  ::connect(fd_, at, size);  // a refused one reads as closed
  const timeval wait{20, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
}

bool Connection::more() {
  char piece[64 << 10];
  const ssize_t count = ::recv(fd_, piece, sizeof piece, 0);
  if (count > 0) got_.append(piece, static_cast<size_t>(count));
  return count > 0;
}

std::string get_text(const std::string& target) {
  return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
}
std::string post_text(const std::string& target, const std::string& body) {
  return "POST " + target +
         " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}
int status_of(const std::string& answer) {
  return answer.size() < 12 ? 0 : std::stoi(answer.substr(9, 3));
}
Json json_of(const std::string& answer) {
  return Json::parse(answer.substr(std::min(answer.find("\r\n\r\n"), answer.size() - 4) + 4),
                     nullptr, false);
}

}  // namespace api_tests
