// SPDX-License-Identifier: Apache-2.0
#include "io/failure.h"
#include "tests/nbd/session_fixture.h"

// How connections end, and what an export's seal, close and failure do to them.

namespace nbd {
namespace {

class SessionEnds : public SessionTest {
 protected:
  struct Observer : ExportObserver {
    void connection_opened(Export&) override { ++opened; }
    void storage_failed(Export&, std::exception_ptr cause) override { failures.push_back(cause); }
    int opened = 0;
    std::vector<std::exception_ptr> failures;
  };
  SessionEnds() { make_export({.observer = &observer_}); }
  ~SessionEnds() override {
    device_.open_gate();
    clients_.clear();
    run(sessions_.join());
    run(exported_->join());
    make_export({});  // the base class joins one that does not know the observer
  }
  Observer observer_;
};

TEST_F(SessionEnds, EndOfStreamAtARequestBorderIsOrderly) {  // D1, K6
  wire::Client& client = connect(true);
  expect_alive(client);
  client.finish_sending();
  EXPECT_TRUE(client.ends());
  run(sessions_.join());
  EXPECT_EQ(exported_->counters().abnormal_ends, 0u);
  EXPECT_EQ(exported_->counters().connections_now, 0u);
  EXPECT_EQ(observer_.opened, 1);
}

TEST_F(SessionEnds, EndOfStreamAnsweredAfterWhatIsUnderWay) {  // D1
  wire::Client& client = connect(true);
  device_.shut_gate(Verb::write);
  client.send(write_request(0, pattern(1000)));
  client.finish_sending();
  run(device_.until_waiting(1));
  device_.open_gate();
  EXPECT_EQ(client.receive_reply().error, WireError::none);
  EXPECT_TRUE(client.ends());
}

TEST_F(SessionEnds, EndOfStreamInsideARequestIsAbnormalAtEveryByte) {  // D2
  const Bytes whole = write_request(0, pattern(100));
  uint64_t abnormal = 0;
  for (size_t size = 1; size < whole.size(); ++size) {
    wire::Client& client = connect(true);
    client.send(Bytes(whole.begin(), whole.begin() + size));
    client.vanish();
    run(sessions_.join());
    EXPECT_EQ(exported_->counters().abnormal_ends, ++abnormal) << size;
  }
  EXPECT_TRUE(memory_.write_sizes.empty());
  expect_alive(connect(true));
}

TEST_F(SessionEnds, AcknowledgedDataOutlivesAnAbnormalEnd) {  // D2
  wire::Client& client = connect(true);
  const Bytes data = pattern(70000);
  ask(client, write_request(0, data));
  client.send(request(Command::write, 200000, 3 << 20));
  client.send(Bytes(2 << 20));
  client.vanish();
  run(sessions_.join());
  EXPECT_EQ(on_device(0, data.size()), data);
}

TEST_F(SessionEnds, EveryEndCommitsTheMetadata) {  // D3
  wire::Client& client = connect(true);
  ask(client, write_request(0, Bytes(512)));
  EXPECT_EQ(memory_.flushes, 0u);
  client.vanish();
  run(sessions_.join());
  pass_time(std::chrono::milliseconds(10));
  EXPECT_EQ(memory_.flushes, 1u);
}

TEST_F(SessionEnds, EndOfAReadOnlyConnectionCommitsNothing) {  // D3
  make_export({.kind = ExportKind::point, .read_only = true});
  connect(true).vanish();
  run(sessions_.join());
  pass_time(std::chrono::milliseconds(10));
  EXPECT_EQ(memory_.flushes, 0u);
}

TEST_F(SessionEnds, FailedCommitAfterAnEndFailsTheExport) {  // D3, X9
  device_.fail(Verb::flush, EIO);
  connect(true).vanish();
  run(sessions_.join());
  pass_time(std::chrono::milliseconds(10));
  EXPECT_EQ(observer_.failures.size(), 1u);
}

TEST_F(SessionEnds, StalledRequestIsDropped) {  // X6
  settings_.stall = std::chrono::milliseconds(100);
  wire::Client& client = connect(true);
  client.send(request(Command::write, 0, 1000));
  EXPECT_TRUE(client.ends());
  wire::Client& in_header = connect(true);
  in_header.send(Bytes(5));
  EXPECT_TRUE(in_header.ends());
  run(sessions_.join());
  EXPECT_EQ(exported_->counters().abnormal_ends, 2u);
}

TEST_F(SessionEnds, SlowRequestIsNotAStall) {  // X6
  settings_.stall = std::chrono::milliseconds(100);
  wire::Client& client = connect(true);
  client.send(request(Command::write, 0, 10));
  for (int count = 0; count < 10; ++count) {
    pass_time(std::chrono::milliseconds(30));
    client.send(Bytes(1));
  }
  EXPECT_EQ(client.receive_reply().error, WireError::none);
}

TEST_F(SessionEnds, SilenceBetweenRequestsAndASlowDeviceAreNoStall) {  // X7
  settings_.stall = std::chrono::milliseconds(60);
  wire::Client& client = connect(true);
  pass_time(std::chrono::milliseconds(200));
  device_.shut_gate(Verb::write);
  client.send(write_request(0, Bytes(100)));
  pass_time(std::chrono::milliseconds(200));
  device_.open_gate();
  EXPECT_EQ(client.receive_reply().error, WireError::none);
}

TEST_F(SessionEnds, UnreadRepliesAreAStall) {  // X6
  settings_.stall = std::chrono::milliseconds(100);
  memory_.preset(0, 64 << 20, 1);
  wire::Client& client = connect(true);
  client.send(request(Command::read, 0, 64 << 20));
  run(sessions_.join());
  EXPECT_EQ(exported_->counters().abnormal_ends, 1u);
}

TEST_F(SessionEnds, FirstCauseAnswersEveryChangeAfterAFailureAndReadsGoOn) {  // X9
  const std::string cause = "touch disk.qcow2 @0+512: No space left on device";
  wire::Client& client = connect(true);
  device_.fail(Verb::write, ENOSPC);
  expect_error(ask(client, write_request(0, Bytes(512))), WireError::enospc, cause);
  device_.heal();
  const std::vector<Bytes> changes = {
      write_request(4096, Bytes(512)), request(Command::write_zeroes, 4096, 512),
      request(Command::trim, 4096, 512), request(Command::flush, 0, 0)};
  for (const Bytes& message : changes) {
    expect_error(ask(client, message), WireError::enospc, cause);
  }
  pass_time(3 * grace_);
  wire::Client& later = connect(true);
  for (wire::Client* const reader : {&client, &later}) {
    EXPECT_EQ(ask_chunks(*reader, request(Command::read, 0, 512)).back().error, WireError::none);
    expect_error(ask(*reader, changes[0]), WireError::enospc, cause);
  }
  exported_->close();  // a job that is over because of it
  for (const Bytes& message : changes) {
    expect_error(ask(client, message), WireError::enospc, cause);
  }
  expect_error(ask(client, request(Command::read, 0, 512)), WireError::eshutdown);
  EXPECT_EQ(observer_.failures.size(), 1u);
  EXPECT_TRUE(memory_.write_sizes.empty());
}

TEST_F(SessionEnds, FailureFoundLaterIsStickyToo) {  // X9
  wire::Client& client = connect(true);
  exported_->fail(std::make_exception_ptr(
      std::system_error(EIO, std::generic_category(), "write disk.qcow2 @0+65536")));
  expect_error(ask(client, write_request(0, Bytes(512))), WireError::eio,
               "write disk.qcow2 @0+65536: Input/output error");
}

TEST_F(SessionEnds, RefusedChangesMayBeAskedForAgainWhereWritesMayRecover) {  // X9
  make_export({.observer = &observer_, .writes_may_recover = true});
  wire::Client& client = connect(true);
  device_.fail(Verb::write, ENOSPC);
  for (const uint64_t offset : {0, 4096}) {
    expect_error(ask(client, write_request(offset, Bytes(512))), WireError::enospc,
                 fmt::format("touch disk.qcow2 @{}+512: No space left on device", offset));
  }
  device_.heal();
  EXPECT_EQ(ask(client, write_request(0, pattern(512))).error, WireError::none);
  EXPECT_EQ(on_device(0, 512), pattern(512));
  expect_alive(client);
  EXPECT_EQ(observer_.failures.size(), 0u);
  EXPECT_EQ(exported_->failure(), nullptr);
}

/// A clock that the test moves on.
class MovedClock final : public io::Clock {
 public:
  explicit MovedClock(io::Clock& real) : real_(real) {}
  io::SteadyTime now() const override { return real_.now() + moved; }
  io::WallTime wall_time() const override { return real_.wall_time(); }
  std::unique_ptr<Alarm> call_at(io::SteadyTime due, io::Job action) override {
    return real_.call_at(due - moved, std::move(action));
  }
  io::Duration moved{};

 private:
  io::Clock& real_;
};

TEST_F(SessionEnds, RefusedChangesAreLoggedAgainWhenTheyHappenAgainAMinuteLater) {
  io::Runtime real = runtime();
  MovedClock clock(real.clock);
  const ExportSpec spec{.name = "disk", .writes_may_recover = true};
  const auto exported =
      Export::make(spec, device_, {real.executor, clock, real.files, real.buffers, real.random});
  const auto lines_of_two_refusals = [&] {
    ::testing::internal::CaptureStderr();
    for (int i = 0; i < 2; ++i) {
      exported->note_refused_change(
          std::make_exception_ptr(io::failure("write", "disk.qcow2", 0, 512, ENOSPC)));
    }
    const std::string logged = ::testing::internal::GetCapturedStderr();
    return std::count(logged.begin(), logged.end(), '\n');
  };
  EXPECT_EQ(lines_of_two_refusals(), 1);
  EXPECT_EQ(lines_of_two_refusals(), 0);
  clock.moved = std::chrono::seconds(61);
  EXPECT_EQ(lines_of_two_refusals(), 1);
  run(exported->join());
}

TEST_F(SessionEnds, BadRequestsNeverFailTheExport) {
  wire::Client& client = connect(true);
  ask(client, write_request(kSize, Bytes(1)));
  ask(client, request(Command::cache, 0, 1));
  EXPECT_EQ(observer_.failures.size(), 0u);
  EXPECT_EQ(exported_->failure(), nullptr);
}

TEST_F(SessionEnds, SealedExportTakesNoWritesButStillReads) {  // D7
  wire::Client& client = connect(true, 1);
  ask(client, write_request(0, pattern(512)));
  run(exported_->seal());
  for (const Bytes& message : {write_request(0, Bytes(512)), request(Command::trim, 0, 512),
                               request(Command::write_zeroes, 0, 512)}) {
    expect_error(ask(client, message), WireError::eperm, "export \"disk\" is sealed");
  }
  EXPECT_EQ(content(ask_chunks(client, request(Command::read, 0, 512)), 0, 512), pattern(512));
  EXPECT_EQ(ask_chunks(client, request(Command::block_status, 0, 512)).size(), 1u);
  expect_alive(client);
}

TEST_F(SessionEnds, SealWaitsForWritesUnderWay) {
  wire::Client& client = connect(true);
  device_.shut_gate(Verb::write);
  client.send(write_request(0, pattern(512)));
  run(device_.until_waiting(1));
  io::TaskScope sealing;
  bool sealed = false;
  const auto seal = [&]() -> io::Task<void> {
    co_await exported_->seal();
    sealed = true;
  };
  sealing.spawn(seal());
  pass_time(3 * grace_);
  EXPECT_FALSE(sealed);
  device_.open_gate();
  EXPECT_EQ(client.receive_reply().error, WireError::none);
  run(sealing.join());
  EXPECT_TRUE(sealed);
}

TEST_F(SessionEnds, SealStopsALongZeroingAtItsNextStep) {  // X-6, D7
  settings_.change_bytes_at_once = 1 << 20;
  for (const Command command : {Command::trim, Command::write_zeroes}) {
    make_export({});
    memory_.preset(0, 8 << 20, 0x55);
    wire::Client& client = connect(true);
    device_.shut_gate(command == Command::trim ? Verb::discard : Verb::write_zeroes);
    client.send(request(command, 1000, 8 << 20));
    run(device_.until_waiting(1));
    io::TaskScope sealing;
    sealing.spawn(exported_->seal());
    device_.open_gate();
    run(sealing.join());
    expect_error(client.receive_reply(), WireError::eperm, "export \"disk\" is sealed");
    EXPECT_EQ(on_device(1 << 20, 1), Bytes(1, std::byte{0x55}));
    EXPECT_EQ(on_device((1 << 20) - 1, 1), Bytes(1));
  }
}

TEST_F(SessionEnds, SealDropsAHalfReceivedPayloadAfterAWhile) {
  wire::Client& client = connect(true);
  client.send(request(Command::write, 0, 3 << 20));
  client.send(Bytes((1 << 20) + 5, std::byte{1}));
  run(exported_->seal());
  EXPECT_EQ(memory_.write_sizes.size(), 1u);
  client.send(Bytes((2 << 20) - 5, std::byte{1}));
  expect_error(client.receive_reply(), WireError::eperm, "export \"disk\" is sealed");
  EXPECT_EQ(memory_.write_sizes.size(), 1u);
  expect_alive(client);
}

TEST_F(SessionEnds, ClosedExportAnswersShutdownAndThenEndsTheConnections) {  // D7
  wire::Client& client = connect(true);
  exported_->close();
  for (const Bytes& message : {write_request(0, Bytes(512)), request(Command::read, 0, 512),
                               request(Command::flush, 0, 0)}) {
    expect_error(ask(client, message), WireError::eshutdown, "export \"disk\" is closed");
  }
  const io::SteadyTime start = ring().now();
  EXPECT_TRUE(client.ends());
  EXPECT_GT(ring().now() - start, grace_ / 2);
  EXPECT_EQ(exported_->counters().abnormal_ends, 0u);
}

TEST_F(SessionEnds, CloseSaysWhyAndLetsFinishWhatIsUnderWay) {  // X10
  wire::Client& client = connect(true);
  device_.shut_gate(Verb::flush);
  client.send(request(Command::flush, 0, 0, 0, 1));
  run(device_.until_waiting(1));
  exported_->close("server is shutting down", std::chrono::milliseconds(10));
  expect_error(ask(client, request(Command::flush, 0, 0)), WireError::eshutdown,
               "server is shutting down");
  pass_time(std::chrono::milliseconds(50));
  device_.open_gate();
  EXPECT_EQ(client.receive_reply().cookie, 1u);
  EXPECT_TRUE(client.ends());
}

TEST_F(SessionEnds, JoinEndsAClientThatNeverLeaves) {  // X10
  connect(true);
  wire::Client& half = connect(true);
  half.send(Bytes(10));
  const io::SteadyTime start = ring().now();
  run(exported_->join());
  EXPECT_LT(ring().now() - start, 10 * grace_);
  EXPECT_EQ(exported_->counters().connections_now, 0u);
  make_export({});
}

}  // namespace
}  // namespace nbd
