// SPDX-License-Identifier: Apache-2.0
#include "io/child_process.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "tests/support/ring_fixture.h"

namespace io {
namespace {

class ChildProcesses : public support::RingTest {
 protected:
  /// What it says until its end.
  static Task<std::string> said(ChildProcess& child) {
    std::string text;
    char piece[512];
    for (;;) {
      const iovec into{piece, sizeof piece};
      const size_t got = co_await child.stream().receive({&into, 1});
      if (got == 0) co_return text;
      text.append(piece, got);
    }
  }
  static std::vector<std::string> shell(const std::string& script) { return {"sh", "-c", script}; }
};

TEST_F(ChildProcesses, HearAndAnswerAndEndWithAStatus) {
  const auto talk = [&]() -> Task<void> {
    ChildProcess child(ring(), "/bin/sh", shell("read word; echo \"heard $word\"; exit 7"));
    const std::string word = "hello\n";
    const iovec from = as_iovec(std::as_bytes(std::span(word)));
    co_await child.stream().send({&from, 1});
    EXPECT_EQ(co_await said(child), "heard hello\n");
    EXPECT_EQ(co_await child.ended(), "ended with status 7");
  };
  run(talk());
}

TEST_F(ChildProcesses, InheritNoDescriptorAndNoBlockedSignal) {
  const int open_one = ::open("/dev/null", O_RDONLY);  // without close-on-exec
  const int high_one = ::fcntl(open_one, F_DUPFD, 700);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  const auto talk = [&]() -> Task<void> {
    ChildProcess child(ring(), "/bin/sh", shell("ls /proc/$$/fd; grep SigBlk /proc/self/status"));
    EXPECT_EQ(co_await said(child), "0\n1\n2\nSigBlk:\t0000000000000000\n");
    EXPECT_EQ(co_await child.ended(), "ended with status 0");
  };
  run(talk());
  pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
  ::close(open_one);
  ::close(high_one);
}

TEST_F(ChildProcesses, AreKilledAlsoWhenStoppedAndLeaveNoZombie) {
  const auto talk = [&]() -> Task<void> {
    ChildProcess child(ring(), "/bin/sh", shell("kill -STOP $$; echo never"));
    const pid_t pid = child.pid();
    child.kill();
    EXPECT_EQ(co_await said(child), "");
    EXPECT_EQ(co_await child.ended(), "was killed by signal 9 (SIGKILL)");
    EXPECT_EQ(::kill(pid, 0), -1);
    EXPECT_EQ(errno, ESRCH);
  };
  run(talk());
}

TEST_F(ChildProcesses, AProgramThatIsNotThereIsRefused) {
  const auto talk = [&]() -> Task<void> {
    ChildProcess child(ring(), "/no/such/program", {"program"});
    co_return;
  };
  EXPECT_THROW(run(talk()), std::system_error);
}

}  // namespace
}  // namespace io
