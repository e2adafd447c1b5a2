// SPDX-License-Identifier: Apache-2.0
#include "engine/care/second_reader.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "engine/care/reader_lines.h"
#include "io/child_process.h"
#include "tests/qcow/image_model.h"

/// What becomes of a verification whose second reader does not do its part. Shell scripts stand for
/// libqcow; tests/e2e/test_verify_readers.py has the real one.
namespace engine {
namespace {

using qcow_test::kCluster;

constexpr uint64_t kStored = 16 * kCluster;

class ScriptProcess final : public ReaderProcess {
 public:
  ScriptProcess(io::Ring& ring, const std::string& script)
      : child_(ring, "/bin/sh", {"sh", "-c", script}) {}
  io::Stream& stream() override { return child_.stream(); }
  void kill() noexcept override { child_.kill(); }
  io::Task<std::string> ended() override { return child_.ended(); }

 private:
  io::ChildProcess child_;
};

class SecondReader : public qcow_test::ImageModel, public ReaderProcesses {
 protected:
  /// A published image of 16 clusters with data, from the start of the disk.
  void make_image() {
    create("a.qcow2", {.size = 4 << 20});
    qcow::ImageOptions options;
    options.sums_path = file("a.qcow2.sums");
    open("a.qcow2", options);
    write_random(0, kStored);
    run(image_->seal());
    run(image_->publish_header(qcow::Sha256{std::byte{1}}, 1'700'000'000));
    close();
  }

  /// What a reader that is right says of the 16 clusters.
  std::vector<ReaderLine> right_answers() {
    const qcow_test::Bytes content = varve_content("a.qcow2");
    std::vector<ReaderLine> lines;
    for (uint64_t at = 0; at < kStored; at += kCluster) {
      lines.push_back({.kind = ReaderLine::Kind::sum,
                       .offset = at,
                       .sum = qcow::sum_of(std::span(content).subspan(at, kCluster))});
    }
    return lines;
  }

  /// A script that says these once it is asked, and expects to be asked for all 16 at once.
  std::string saying(const std::vector<ReaderLine>& lines) {
    std::ofstream answers(file("answers"));
    for (const ReaderLine& line : lines) answers << encode(line);
    return fmt::format("echo ready {}; read q; [ \"$q\" = '0 16' ] && cat '{}'; read q", 4 << 20,
                       file("answers"));
  }

  SecondReading read(const std::string& script) {
    script_ = script;
    const auto image = run(qcow::Layer::open(runtime(), file("a.qcow2"), {}));
    const auto sums = run(qcow::SumsReader::open(runtime().files, file("a.qcow2.sums")));
    SecondReaderOptions options;
    options.processes = has_processes_ ? this : nullptr;
    options.patience = std::chrono::milliseconds(300);
    options.damages_max = 2;
    options.is_cancelled = [this] { return cancelled_; };
    options.on_progress = [this](uint64_t bytes) -> io::Task<void> {
      progress_ += bytes;
      if (cancelled_) throw std::system_error(ECANCELED, std::generic_category());
      co_return;
    };
    return run(read_second(runtime(), *image, *sums, std::move(options)));
  }

  std::unique_ptr<ReaderProcess> start(io::Executor&, const std::string& image_path,
                                       uint64_t cluster_bytes) override {
    EXPECT_EQ(image_path, file("a.qcow2"));
    EXPECT_EQ(cluster_bytes, kCluster);
    return std::make_unique<ScriptProcess>(ring(), script_);
  }

  std::string script_;
  bool has_processes_ = true, cancelled_ = false;
  uint64_t progress_ = 0;
};

TEST_F(SecondReader, ThatIsRightCoversWhatIsStoredAndNothingElse) {
  make_image();
  const SecondReading all{.stored_bytes = kStored, .covered_bytes = kStored};
  EXPECT_EQ(read(saying(right_answers())), all);
  EXPECT_EQ(progress_, kStored);
}

TEST_F(SecondReader, NamesWhatReadsDifferently) {
  make_image();
  std::vector<ReaderLine> lines = right_answers();
  for (const size_t wrong : {2, 3, 7, 9}) lines[wrong].sum[15] ^= std::byte{1};
  const SecondReading found = read(saying(lines));
  EXPECT_EQ(found.covered_bytes, kStored);
  EXPECT_EQ(found.damaged_bytes, 4 * kCluster);
  const std::vector<Damage> first = {{2 * kCluster, 2 * kCluster, 0, "reads differently"},
                                     {7 * kCluster, kCluster, 0, "reads differently"}};
  EXPECT_EQ(found.damaged, first);
  EXPECT_EQ(found.problem, "");
}

TEST_F(SecondReader, ThatCannotReadAClusterHasNotCoveredItAndDamagesNothing) {
  make_image();
  std::vector<ReaderLine> lines = right_answers();
  lines[4] = {.kind = ReaderLine::Kind::unread, .offset = 4 * kCluster, .text = "no seek"};
  const SecondReading found = read(saying(lines));
  EXPECT_EQ(found.covered_bytes, kStored - kCluster);
  EXPECT_EQ(found.damaged_bytes, 0u);
  EXPECT_EQ(found.problem,
            "libqcow cannot read 65536 bytes, the first at guest offset 262144: no seek");
}

TEST_F(SecondReader, ThatDoesNotDoItsPartIsASentence) {
  make_image();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"exit 3", "libqcow ended with status 3; it had read 0 of 1048576 bytes"},
      {"kill -SEGV $$",
       "libqcow was killed by signal 11 (SIGSEGV); it had read 0 of 1048576 bytes"},
      {"echo failed no such file; exit 1",
       "libqcow cannot open the image: no such file; it had read 0 of 1048576 bytes"},
      {"echo Segmentation fault; sleep 60",
       "libqcow said what no reader says; it had read 0 of 1048576 bytes"},
      {"yes | tr -d '\\n'", "libqcow said what no reader says; it had read 0 of 1048576 bytes"},
      {"echo sum 0 00000000000000000000000000000000; sleep 60",
       "libqcow said what it was not asked; it had read 0 of 1048576 bytes"},
      {"echo ready 9; read q; echo unread 65536 text; sleep 60",
       "libqcow said what it was not asked; it had read 0 of 1048576 bytes"},
      {"sleep 60",
       "libqcow gave no answer for 0.3 s and was ended; it had read 0 of 1048576 bytes"},
      {"kill -STOP $$",
       "libqcow gave no answer for 0.3 s and was ended; it had read 0 of 1048576 bytes"},
      {fmt::format("echo ready 9; read q; echo '{}'; kill -9 $$",
                   encode(right_answers()[0]).substr(0, 38)),
       "libqcow was killed by signal 9 (SIGKILL); it had read 65536 of 1048576 bytes"},
  };
  for (const auto& [script, sentence] : cases) {
    const SecondReading found = read(script);
    EXPECT_EQ(found.problem, sentence) << script;
    EXPECT_EQ(found.damaged_bytes, 0u) << script;
  }
}

TEST_F(SecondReader, IsEndedByACancellationWhileItIsWaitedFor) {
  make_image();
  const auto alarm = runtime().clock.call_at(runtime().clock.now() + std::chrono::milliseconds(50),
                                             [this] { cancelled_ = true; });
  EXPECT_THROW(read("sleep 60"), std::system_error);
  EXPECT_EQ(progress_, 0u);
}

TEST_F(SecondReader, IsNotGivenWhatItReadsWronglyAndMayBeMissing) {
  make_image();
  has_processes_ = false;
  EXPECT_EQ(read("exit 0").problem, "this varve was built without libqcow");
  has_processes_ = true;
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), 80, uint64_t{1} << 5);
  const SecondReading found = read("exit 0");
  EXPECT_EQ(found.problem, "libqcow does not read such images right (compatible bits)");
  EXPECT_EQ(found.stored_bytes, kStored);
  EXPECT_EQ(found.covered_bytes, 0u);
}

}  // namespace
}  // namespace engine
