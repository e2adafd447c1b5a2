// SPDX-License-Identifier: Apache-2.0
#include "tests/qcow/libqcow_images.h"

namespace qcow {
namespace {

using qcow_test::Bytes;

/// What the packaged libqcow (20201213) does wrong. A failure here after an upgrade is good news:
/// measure again before any limit of the safe protocol is lifted.
class LibqcowTraps : public qcow_test::LibqcowImages {
 protected:
  static uint64_t wrong_bytes(const Bytes& a, const Bytes& b) {
    uint64_t wrong = 0;
    for (size_t i = 0; i < a.size(); ++i) wrong += a[i] != b[i];
    return wrong;
  }
};

TEST_F(LibqcowTraps, Lq1AZeroClusterReadsAsTheFilesHeader) {
  qemu_img("create -f qcow2 a.qcow2 1M");
  qemu_io("a.qcow2", {"write -P 1 0 128k", "write -z 128k 64k"});
  EXPECT_EQ(header("a.qcow2").version, 3u);
  const Reading reading = libqcow_read("a.qcow2", 65536, {{131072, 65536}});
  EXPECT_TRUE(reading.result.ok()) << "success is what makes it a trap";
  // The bit is left in the offset: reading starts at byte 1 of the file, or at byte 0.
  const Bytes start(reading.content.begin() + 131072, reading.content.begin() + 131076);
  const Bytes magic = {std::byte{0x51}, std::byte{0x46}, std::byte{0x49}, std::byte{0xfb}};
  EXPECT_EQ(start, magic);
}

TEST_F(LibqcowTraps, Lq2LongReadsOfAnOverlayAreWrong) {
  qemu_img("create -f qcow2 a.qcow2 16M");
  scribble("a.qcow2", 16 << 20, 0);
  qemu_io("a.qcow2", {"write -s " + file("random.bin") + " 0 16M"});
  qemu_img("create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2");
  qemu_io("b.qcow2", {"write -P 1 1M 64k", "write -P 2 5M 64k", "write -P 3 5312k 64k"});
  const Bytes expected = qemu_content("b.qcow2");
  const Reading right = libqcow_read_all("b.qcow2", 65536);
  EXPECT_TRUE(right.content == expected) << right.result.output;
  const Reading wrong = libqcow_read_all("b.qcow2", 131072);
  EXPECT_TRUE(wrong.result.ok());
  EXPECT_GT(wrong_bytes(wrong.content, expected), 0u);
}

TEST_F(LibqcowTraps, Lq3TheUnallocatedTailOfAGrownOverlayIsAnEndlessLoop) {
  qemu_img("create -f qcow2 a.qcow2 1M");
  qemu_img("create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 2M");
  const Reading reading = libqcow_read("b.qcow2", 65536, {{1 << 20, 65536}}, 2);
  EXPECT_EQ(reading.result.exit_code, 137) << reading.result.output;
}

TEST_F(LibqcowTraps, Lq4AShortLastClusterIsReadPastItsBuffer) {
  if (!support::run_command("valgrind --version").ok()) GTEST_SKIP() << "no valgrind here";
  qemu_img("create -f qcow2 a.qcow2 1M");
  qemu_io("a.qcow2", {"write -P 1 0 64k"});
  const auto invalid_reads = [&](const std::string& name) {
    const Reading reading =
        libqcow_read(name, 65536, {{0, 65536}}, 60, "valgrind -q --error-exitcode=9");
    return reading.result.output.find("Invalid read") != std::string::npos;
  };
  EXPECT_FALSE(invalid_reads("a.qcow2"));
  const uint64_t end = qcow_test::file_bytes(file("a.qcow2"));
  EXPECT_TRUE(
      support::run_command("truncate -s " + std::to_string(end - 4096) + " " + file("a.qcow2"))
          .ok());
  EXPECT_TRUE(invalid_reads("a.qcow2"));
}

TEST_F(LibqcowTraps, Lq5AnEncryptedImageIsReadAsGarbageWithSuccess) {
  const std::string secret = "secret,id=s,data=varve";
  // AES, not LUKS: making a LUKS header measures the CPU's time, and fails on a busy machine.
  qemu_img("create --object " + secret +
           " -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s a.qcow2 1M");
  const std::vector<std::string> write = {
      "qemu-io",
      "--object",
      secret,
      "-c",
      "write -P 7 0 64k",
      "--image-opts",
      "driver=qcow2,encrypt.key-secret=s,file.filename=" + file("a.qcow2")};
  const support::CommandResult written_by_qemu = support::run_command(write);
  ASSERT_TRUE(written_by_qemu.ok()) << written_by_qemu.output;
  // Without the helper of the other tests, which asks varve first, and varve refuses (RF4).
  const std::string out = file("libqcow.out");
  const support::CommandResult reading = support::run_command(
      {"sh", "-c",
       "echo 0 65536 | exec " LIBQCOW_READER " 65536 '" + out + "' '" + file("a.qcow2") + "'"});
  EXPECT_TRUE(reading.ok()) << reading.output;
  EXPECT_GT(wrong_bytes(qcow_test::read_file(out), Bytes(65536, std::byte{7})), 60000u);
}

TEST_F(LibqcowTraps, Lq6RefusesUnknownCompatibleBits) {
  qemu_img("create -f qcow2 a.qcow2 1M");
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), 80, uint64_t{1} << 5);
  EXPECT_EQ(libqcow_read_all("a.qcow2", 65536).result.exit_code, 3);
}

}  // namespace
}  // namespace qcow
