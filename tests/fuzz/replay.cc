// SPDX-License-Identifier: Apache-2.0
// Runs a fuzzer's corpus as a plain test: every file as it is, and cut at every byte.
//   fuzz_replay_NAME DIRECTORY...
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

/// More cuts than this, of a long file, are spread over its length.
constexpr size_t kCutsMax = 400;

void replay(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)),
                                std::istreambuf_iterator<char>());
  const auto* const data = reinterpret_cast<const uint8_t*>(bytes.data());
  const size_t step = std::max<size_t>(1, bytes.size() / kCutsMax);
  for (size_t size = bytes.size() % step; size <= bytes.size(); size += step) {
    // A copy of its own, so that a read past the end is one past the allocation's.
    const std::vector<uint8_t> cut(data, data + size);
    LLVMFuzzerTestOneInput(cut.data(), cut.size());
  }
}

}  // namespace

int main(int count, char** directories) {
  size_t files = 0;
  for (int index = 1; index < count; ++index) {
    for (const auto& entry : std::filesystem::directory_iterator(directories[index])) {
      replay(entry.path());
      ++files;
    }
  }
  std::printf("%zu files\n", files);
  return files == 0 ? 1 : 0;
}
