// SPDX-License-Identifier: Apache-2.0
#include <random>

#include "io/file.h"
#include "tests/support/command.h"
#include "tests/support/ring_fault_fixture.h"

/// What the kernel may answer to one operation on a file, and what becomes of it: short counts and
/// passing trouble are nobody's business above io/, everything else is an error with its number.
namespace io {
namespace {

class FileFaults : public support::RingFaultTest {
 protected:
  std::unique_ptr<File> create() {
    return run(runtime().files.open(directory_.file("data"), OpenMode::create_new));
  }
  static std::vector<std::byte> random_bytes(size_t count) {
    std::mt19937_64 random(count);
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
  }
  /// The first operation of this kind gets `result`, all others are as usual.
  void answer_once(uint8_t opcode, int32_t result) {
    answered_ = 0;
    faults_.result = [=, this](const io_uring_sqe& entry) -> std::optional<int32_t> {
      if (entry.opcode != opcode || answered_ > 0) return std::nullopt;
      ++answered_;
      return result;
    };
  }
  /// errno and text of what `task` throws; 0 when it does not.
  template <class T>
  std::pair<int, std::string> outcome(Task<T> task) {
    try {
      run(std::move(task));
    } catch (const std::system_error& failure) {
      return {failure.code().value(), failure.what()};
    }
    return {};
  }
  void expect_reads(File& file, std::span<const std::byte> expected) {
    const Buffer whole = runtime().buffers.try_acquire(expected.size());
    run(file.read(0, whole.bytes()));
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), whole.data()));
  }

  support::TempDir directory_;
  int answered_ = 0;
};

TEST_F(FileFaults, ShortCountsGoOnWhereTheyStopped) {
  const auto file = create();
  const auto expected = random_bytes(1 << 20);
  int cuts = 0;
  faults_.cut = [&](const io_uring_sqe&) { return ++cuts % 3 != 0; };
  std::mt19937_64 random(3);
  for (size_t at = 0; at < expected.size();) {
    const size_t aligned = random() % 2 == 0 ? 4096 : 1;
    const size_t length =
        std::min(expected.size() - at, (1 + random() % (100'000 / aligned)) * aligned);
    const Buffer buffer = runtime().buffers.try_acquire(length, at % 4096);
    std::copy_n(expected.begin() + static_cast<ptrdiff_t>(at), length, buffer.data());
    const size_t first = length / 3;
    const iovec pieces[] = {{buffer.data(), first}, {buffer.data() + first, length - first}};
    run(random() % 2 == 0 || first == 0 ? file->write(at, buffer.bytes())
                                        : file->write_gathered(at, pieces));
    at += length;
  }
  expect_reads(*file, expected);
  EXPECT_GT(cuts, 50);
}

TEST_F(FileFaults, InterruptedAndPostponedOperationsAreDoneAgain) {
  const auto file = create();
  const auto expected = random_bytes(100'000);
  for (const int32_t passing : {-EINTR, -EAGAIN}) {
    answer_once(IORING_OP_WRITE, passing);
    run(file->write(0, expected));
    EXPECT_EQ(answered_, 1);
    const size_t half = expected.size() / 2;
    const iovec pieces[] = {{const_cast<std::byte*>(expected.data()), half},
                            {const_cast<std::byte*>(expected.data()) + half, half}};
    answer_once(IORING_OP_WRITEV, passing);
    run(file->write_gathered(0, pieces));
    EXPECT_EQ(answered_, 1);
    answer_once(IORING_OP_READ, passing);
    expect_reads(*file, expected);
    EXPECT_EQ(answered_, 1);
    answer_once(IORING_OP_FALLOCATE, passing);
    EXPECT_TRUE(run(file->allocate(0, 1 << 20)));
    EXPECT_EQ(answered_, 1);
  }
  answer_once(IORING_OP_FSYNC, -EINTR);
  run(file->sync_data());
  EXPECT_EQ(answered_, 1);
}

TEST_F(FileFaults, EveryOtherAnswerIsAnErrorWithItsNumberVerbFileAndRange) {
  const auto file = create();
  const auto bytes = random_bytes(8192);
  std::vector<std::byte> into(8192);
  const iovec pieces[] = {{const_cast<std::byte*>(bytes.data()), 4096},
                          {const_cast<std::byte*>(bytes.data()) + 4096, 4096}};
  for (const int error : {EIO, ENOSPC, EDQUOT, ECANCELED}) {
    const auto expect = [&](const std::pair<int, std::string>& outcome, const std::string& text) {
      EXPECT_EQ(outcome.first, error) << text;
      EXPECT_NE(outcome.second.find(text), std::string::npos) << outcome.second;
    };
    const std::string at = directory_.file("data") + " @4096+8192";
    answer_once(IORING_OP_WRITE, -error);
    expect(outcome(file->write(4096, bytes)), "write " + at);
    answer_once(IORING_OP_WRITEV, -error);
    expect(outcome(file->write_gathered(4096, pieces)), "write " + at);
    answer_once(IORING_OP_READ, -error);
    expect(outcome(file->read(4096, into)), "read " + at);
    answer_once(IORING_OP_FALLOCATE, -error);
    expect(outcome(file->allocate(4096, 8192)), "allocate " + at);
    for (const bool data_only : {true, false}) {
      answer_once(IORING_OP_FSYNC, -error);
      expect(outcome(data_only ? file->sync_data() : file->sync()),
             "sync " + directory_.file("data"));
      EXPECT_EQ(answered_, 1) << "asked once: a failed sync is not repeated";
    }
  }
}

TEST_F(FileFaults, AWriteThatDoesNotGetAnywhereIsAnError) {
  const auto file = create();
  const auto bytes = random_bytes(1000);
  faults_.result = [](const io_uring_sqe& entry) -> std::optional<int32_t> {
    return entry.opcode == IORING_OP_WRITE ? std::optional<int32_t>(0) : std::nullopt;
  };
  EXPECT_EQ(outcome(file->write(0, bytes)).first, EIO);
}

TEST_F(FileFaults, ASyncThatHasToWaitIsAnErrorAndNoSuccess) {
  const auto file = create();
  answer_once(IORING_OP_FSYNC, -EAGAIN);
  EXPECT_EQ(outcome(file->sync_data()).first, EAGAIN);
}

}  // namespace
}  // namespace io
