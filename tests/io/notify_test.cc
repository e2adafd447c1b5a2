// SPDX-License-Identifier: Apache-2.0
#include "io/notify.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>

#include "io/owned_fd.h"

namespace io {
namespace {

using namespace std::chrono_literals;

/// A manager on an abstract socket, as containers have it.
class Notify : public ::testing::Test {
 protected:
  Notify() : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name_ = "varve-test-" + std::to_string(::getpid());
    name_.copy(address.sun_path + 1, name_.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_.size());
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  }
  std::string heard() const {
    std::array<char, 256> text{};
    const ssize_t count = ::recv(fd_.get(), text.data(), text.size(), 0);
    return count < 0 ? "" : std::string(text.data(), static_cast<size_t>(count));
  }
  OwnedFd fd_;
  std::string name_;
};

TEST_F(Notify, DatagramsReachTheSocketThatTheEnvironmentNames) {
  ::setenv("NOTIFY_SOCKET", ("@" + name_).c_str(), 1);
  ::setenv("WATCHDOG_USEC", "30000000", 1);
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  const Notifier notifier = Notifier::from_environment();
  EXPECT_TRUE(notifier.is_heard());
  EXPECT_EQ(notifier.watchdog(), 30s);
  notifier.send("READY=1\nSTATUS=serving");
  EXPECT_EQ(heard(), "READY=1\nSTATUS=serving");
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
    EXPECT_EQ(std::getenv(name), nullptr) << name << " is left to children";
  }
}

TEST_F(Notify, AManagerThatReadsNothingHoldsNothingUp) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name_.copy(address.sun_path + 1, name_.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_.size());
  for (ssize_t sent = 0; sent >= 0;) {  // until its queue is full
    const OwnedFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sent = ::sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&address), length);
  }
  ::setenv("NOTIFY_SOCKET", ("@" + name_).c_str(), 1);
  const auto begin = std::chrono::steady_clock::now();
  Notifier::from_environment().send("STOPPING=1");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
}

TEST_F(Notify, AWatchdogOfAnotherProcessIsNotOurs) {
  ::setenv("WATCHDOG_USEC", "30000000", 1);
  ::setenv("WATCHDOG_PID", "1", 1);
  EXPECT_EQ(Notifier::from_environment().watchdog(), 0us);
}

TEST_F(Notify, WithoutAManagerNothingIsSaid) {
  const Notifier notifier = Notifier::from_environment();
  EXPECT_FALSE(notifier.is_heard());
  notifier.send("READY=1");
  EXPECT_EQ(heard(), "");
}

}  // namespace
}  // namespace io
