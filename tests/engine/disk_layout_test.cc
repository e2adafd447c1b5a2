// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/disk_layout.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "tests/support/command.h"

namespace engine {
namespace {

using Bytes = std::vector<std::byte>;

void put(Bytes& into, size_t at, std::string_view text) {
  std::memcpy(&into[at], text.data(), text.size());
}
template <typename T>
void put_little(Bytes& into, size_t at, T value) {
  for (size_t i = 0; i < sizeof value; ++i) into[at + i] = static_cast<std::byte>(value >> (8 * i));
}

Bytes read_begin(const std::string& path) {
  Bytes bytes(kLayoutBytes);
  std::ifstream(path, std::ios::binary)
      .read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

std::string blkid(const std::string& tag, const std::string& path) {
  const auto said = support::run_command("blkid -p -o value -s " + tag + " " + path);
  EXPECT_TRUE(said.ok()) << said.output;
  return said.output.substr(0, said.output.find('\n'));
}

TEST(Superblocks, OfFileSystemsThatTheirToolsMadeAreWhatBlkidSays) {
  const support::TempDir directory;
  const std::string path = directory.file("disk");
  for (const std::string made :
       {"mke2fs -q -t ext2 ", "mke2fs -q -t ext3 ", "mke2fs -q -t ext4 ", "mkfs.btrfs -q -f "}) {
    std::ofstream(path).close();
    ASSERT_EQ(::truncate(path.c_str(), 128 << 20), 0);
    const auto run = support::run_command(made + path);
    ASSERT_TRUE(run.ok()) << run.output;
    const auto found = decode_superblock(read_begin(path), 512);
    ASSERT_TRUE(found) << made;
    EXPECT_EQ(*found, (LayoutItem{512, blkid("TYPE", path), blkid("UUID", path)}));
  }
}

TEST(Superblocks, OfOtherKindsAreKnownByTheirMagic) {
  Bytes luks(4096), ntfs(4096), fat(4096), lvm(4096), xfs(4096);
  put(luks, 0, "LUKS\xba\xbe");
  put(luks, 168, "0dbd8e8a-1fbf-4cf5-8f3e-6d5d2c1f0a11");
  EXPECT_EQ(decode_superblock(luks, 0),
            (LayoutItem{0, "LUKS", "0dbd8e8a-1fbf-4cf5-8f3e-6d5d2c1f0a11"}));
  put(ntfs, 3, "NTFS    ");
  put_little<uint64_t>(ntfs, 0x48, 0x1234abcd5678ef00);
  EXPECT_EQ(decode_superblock(ntfs, 0)->id, "1234abcd5678ef00");
  put(fat, 82, "FAT32   ");
  put_little<uint32_t>(fat, 67, 0xdeadbeef);
  EXPECT_EQ(decode_superblock(fat, 0)->id, "deadbeef");
  put(lvm, 512, "LABELONE");
  put(lvm, 536, "LVM2 001abcdefghijklmnopqrstuvwxyz012345");
  EXPECT_EQ(decode_superblock(lvm, 0)->id, "abcdefghijklmnopqrstuvwxyz012345");
  put(xfs, 0, "XFSB");
  xfs[32] = std::byte{0xab};
  EXPECT_EQ(decode_superblock(xfs, 0)->id, "ab000000-0000-0000-0000-000000000000");
  EXPECT_EQ(decode_superblock(Bytes(kLayoutBytes), 0), std::nullopt);
}

TEST(PartitionTables, OfGptHaveTheirGuidAndTheirPartitions) {
  for (const size_t sector : {512, 4096}) {
    Bytes disk(kLayoutBytes);
    put(disk, sector, "EFI PART");
    for (size_t i = 0; i < 16; ++i) disk[sector + 56 + i] = static_cast<std::byte>(0x11 * i);
    put_little<uint64_t>(disk, sector + 72, 2);
    put_little<uint32_t>(disk, sector + 80, 128);
    put_little<uint32_t>(disk, sector + 84, 128);
    for (const size_t entry : {0, 5}) {
      disk[2 * sector + entry * 128] = std::byte{1};  // its type
      put_little<uint64_t>(disk, 2 * sector + entry * 128 + 32, 2048 + entry);
    }
    const auto table = decode_partition_table(disk);
    ASSERT_TRUE(table);
    EXPECT_EQ(table->item, (LayoutItem{0, "GPT", "33221100-5544-7766-8899-aabbccddeeff"}));
    EXPECT_EQ(table->partition_offsets, (std::vector<uint64_t>{2048 * sector, 2053 * sector}));
  }
}

TEST(PartitionTables, OfAnMbrHaveItsNumberAndItsPartitions) {
  Bytes disk(kLayoutBytes);
  put(disk, 510, "\x55\xaa");
  EXPECT_EQ(decode_partition_table(disk), std::nullopt) << "a boot sector";
  put_little<uint32_t>(disk, 440, 0xc0ffee01);
  disk[446 + 16 + 4] = std::byte{0x83};
  put_little<uint32_t>(disk, 446 + 16 + 8, 2048);
  const auto table = decode_partition_table(disk);
  ASSERT_TRUE(table);
  EXPECT_EQ(table->item, (LayoutItem{0, "MBR", "c0ffee01"}));
  EXPECT_EQ(table->partition_offsets, std::vector<uint64_t>{1 << 20});
}

TEST(Layouts, ThatGrowOrStayAreUnchangedAndWhatIsLostIsNamed) {
  const std::vector<LayoutItem> before = {{0, "GPT", "g"}, {1 << 20, "ext3", "e"}};
  std::vector<LayoutItem> now = {{0, "GPT", "g"}, {1 << 20, "ext4", "e"}, {1 << 30, "XFS", "x"}};
  EXPECT_TRUE(compare_layouts(before, now).changes.empty());
  EXPECT_TRUE(compare_layouts({}, now).changes.empty());
  now[1] = {1 << 20, "LUKS", "l"};
  EXPECT_EQ(compare_layouts(before, now).changes,
            std::vector<std::string>{"the ext3 at byte 1048576 (e) is now LUKS (l)"});
  EXPECT_FALSE(compare_layouts(before, now).is_another_disk);
  now = {{0, "MBR", "m"}};
  EXPECT_TRUE(compare_layouts(before, now).is_another_disk);
  EXPECT_FALSE(compare_layouts(before, {}).is_another_disk) << "wiped or encrypted";
  EXPECT_EQ(compare_layouts(before, {}).changes.size(), 2u);
}

TEST(Layouts, OfAnyBytesAreDecodedWithoutHarm) {
  Bytes disk(kLayoutBytes, std::byte{0xff});
  put(disk, 512, "EFI PART");
  EXPECT_TRUE(decode_partition_table(disk)->partition_offsets.empty());
  put_little<uint64_t>(disk, 512 + 72, 2);
  put_little<uint32_t>(disk, 512 + 84, 128);
  EXPECT_TRUE(decode_partition_table(disk)->partition_offsets.empty()) << "beyond 64 bits";
  for (size_t length = 0; length < 4200; length += 7) {
    decode_partition_table(std::span(disk).first(length));
    decode_superblock(std::span(disk).first(length), 0);
  }
}

}  // namespace
}  // namespace engine
