// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/locks.h"

#include "tests/qcow/image_files.h"

namespace qcow {
namespace {

using qcow_test::refusal_of;

class Locks : public qcow_test::ImageFiles {
 protected:
  void SetUp() override { qemu_img("create -f qcow2 a.qcow2 1M"); }

  std::unique_ptr<io::File> open(io::OpenMode mode = io::OpenMode::read_only) {
    return run(runtime().files.open(file("a.qcow2"), mode));
  }
  support::CommandResult qemu(const std::string& words) {
    return support::run_command("env -C " + directory() + " " + words);
  }
  void expect_ok(const std::string& words) {
    const auto result = qemu(words);
    EXPECT_TRUE(result.ok()) << words << ": " << result.output;
  }
  void expect_refused(const std::string& words, const std::string& text) {
    const auto result = qemu(words);
    EXPECT_FALSE(result.ok()) << words;
    EXPECT_NE(result.output.find(text), std::string::npos) << words << ": " << result.output;
  }
};

TEST_F(Locks, Lk1AWritersImageCanOnlyBeLookedAtUnsafely) {
  const auto image = open(io::OpenMode::read_write);
  const ImageLock lock = ImageLock::acquire(*image, LockRole::writer, "a.qcow2");
  EXPECT_TRUE(lock.supported());
  expect_refused("qemu-img info a.qcow2", "Failed to get shared \"write\" lock");
  expect_refused("qemu-img check a.qcow2", "Failed to get shared \"write\" lock");
  expect_ok("qemu-img info -U a.qcow2");
  expect_refused("qemu-img resize a.qcow2 2M", "lock");
}

TEST_F(Locks, Lk2AReadersImageCanBeReadAndNotWritten) {
  const auto image = open();
  const ImageLock lock = ImageLock::acquire(*image, LockRole::reader, "a.qcow2");
  expect_ok("qemu-img info a.qcow2");
  expect_ok("qemu-img check a.qcow2");
  expect_ok("qemu-img convert -O raw a.qcow2 a.raw");
  expect_refused("qemu-img resize a.qcow2 2M", "Failed to get \"write\" lock");
  const auto write = support::run_command({"qemu-io", "-c", "write 0 512", file("a.qcow2")});
  EXPECT_NE(write.output.find("Failed to get \"write\" lock"), std::string::npos) << write.output;
}

TEST_F(Locks, OfAProcessThatIsEndingAreWaitedFor) {
  const auto image = open(io::OpenMode::read_write);
  auto other = open();
  ImageLock theirs = ImageLock::acquire(*other, LockRole::reader, "a.qcow2");
  const auto alarm = runtime().clock.call_at(runtime().clock.now() + std::chrono::milliseconds(100),
                                             [&] { theirs = ImageLock(); });
  const ImageLock lock =
      run(ImageLock::acquire_patiently(runtime(), *image, LockRole::writer, "a.qcow2"));
  EXPECT_TRUE(lock.held());
  EXPECT_EQ(refusal_of([&] {
              run(ImageLock::acquire_patiently(runtime(), *other, LockRole::reader, "a.qcow2"));
            }),
            "\"a.qcow2\": in use by another process (lock byte 101)");
}

/// A holder that no process has open is one whose last writes are under way: storage may be stuck.
TEST_F(Locks, ThatOutlastThePatienceNameTheLikelyCause) {
  const auto image = open(io::OpenMode::read_write), other = open();
  const ImageLock theirs = ImageLock::acquire(*other, LockRole::reader, "a.qcow2");
  const LockPatience patience{.with_the_living = std::chrono::hours(1),
                              .with_the_dead = std::chrono::seconds(1)};
  const std::string refusal = refusal_of([&] {
    run(ImageLock::acquire_patiently(runtime(), *image, LockRole::writer, "a.qcow2", patience));
  });
  EXPECT_TRUE(refusal.starts_with("\"a.qcow2\": still locked after 1 s, although no process"))
      << refusal;
}

TEST_F(Locks, ReadersShareAndAWriterDoesNot) {
  const auto one = open(), two = open(), three = open();
  const ImageLock first = ImageLock::acquire(*one, LockRole::reader, "a.qcow2");
  {
    const ImageLock second = ImageLock::acquire(*two, LockRole::reader, "a.qcow2");
    EXPECT_TRUE(second.held());
  }
  EXPECT_EQ(refusal_of([&] { ImageLock::acquire(*three, LockRole::writer, "a.qcow2"); }),
            "\"a.qcow2\": in use by another process (lock byte 201)");
}

TEST_F(Locks, Rf21NamesTheByteAndLeavesNothingLocked) {
  const auto one = open(io::OpenMode::read_write), two = open(io::OpenMode::read_write);
  ImageLock writer = ImageLock::acquire(*one, LockRole::writer, "a.qcow2");
  EXPECT_EQ(refusal_of([&] { ImageLock::acquire(*two, LockRole::reader, "a.qcow2"); }),
            "\"a.qcow2\": in use by another process (lock byte 101)");
  writer = ImageLock();
  expect_ok("qemu-img resize a.qcow2 2M");
}

TEST_F(Locks, AWriterBecomesAReaderAtPublish) {
  const auto image = open(io::OpenMode::read_write);
  ImageLock lock = ImageLock::acquire(*image, LockRole::writer, "a.qcow2");
  expect_refused("qemu-img info a.qcow2", "lock");
  lock.become_reader();
  expect_ok("qemu-img info a.qcow2");
  expect_refused("qemu-img resize a.qcow2 2M", "Failed to get \"write\" lock");
}

TEST_F(Locks, AreGivenBackByTheDestructor) {
  const auto image = open(io::OpenMode::read_write);
  { const ImageLock lock = ImageLock::acquire(*image, LockRole::writer, "a.qcow2"); }
  expect_ok("qemu-img resize a.qcow2 2M");
}

// qemu first, varve second: qemu-io sleeps with the image open while varve tries.
TEST_F(Locks, Lk3RefusesAnImageThatQemuHolds) {
  const auto started = support::run_command(
      {"sh", "-c", "qemu-io -c 'sleep 60000' '" + file("a.qcow2") + "' >/dev/null 2>&1 & echo $!"});
  const std::string pid = started.output.substr(0, started.output.find('\n'));
  std::string refusal = "(not refused)";
  for (int i = 0; i < 200 && refusal == "(not refused)"; ++i) {  // until qemu has opened it
    const auto image = open();
    refusal = refusal_of([&] { ImageLock::acquire(*image, LockRole::reader, "a.qcow2"); });
    if (refusal == "(not refused)") support::run_command("sleep 0.02");
  }
  EXPECT_EQ(refusal.substr(0, 48), "\"a.qcow2\": in use by another process (lock byte ");
  support::run_command("kill -KILL " + pid);
}

TEST_F(Locks, AChainHoldsThemOnEveryLayer) {
  qemu_img("create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2");
  const auto chain = open_chain("b.qcow2");
  expect_refused("qemu-img resize a.qcow2 2M", "Failed to get \"write\" lock");
  expect_refused("qemu-img resize b.qcow2 2M", "Failed to get \"write\" lock");
  expect_ok("qemu-img check b.qcow2");
}

}  // namespace
}  // namespace qcow
