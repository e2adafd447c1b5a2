// SPDX-License-Identifier: Apache-2.0
#include "tests/qcow/image_files.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "qcow/image/create.h"

namespace qcow_test {

Bytes read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  Bytes content(std::filesystem::file_size(path));
  in.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(content.size()));
  return content;
}

void write_file(const std::string& path, std::span<const std::byte> content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(content.data()),
            static_cast<std::streamsize>(content.size()));
}

Bytes random_bytes(std::mt19937_64& random, size_t count) {
  Bytes bytes(count);
  for (size_t at = 0; at < count; at += 8) {
    const uint64_t word = random();
    std::memcpy(&bytes[at], &word, std::min<size_t>(8, count - at));
  }
  return bytes;
}

uint64_t file_bytes(const std::string& path) { return std::filesystem::file_size(path); }

uint64_t stored_bytes(const std::string& path) {
  struct stat is {};
  if (stat(path.c_str(), &is) != 0) throw std::runtime_error("no stat of " + path);
  return static_cast<uint64_t>(is.st_blocks) * 512;
}

void patch(const std::string& path, uint64_t offset, std::span<const std::byte> with) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(offset));
  file.write(reinterpret_cast<const char*>(with.data()), static_cast<std::streamsize>(with.size()));
}

uint64_t first_table_of(const std::string& path) {
  const auto l1_table = peek_be<uint64_t>(path, 40);
  return peek_be<uint64_t>(path, l1_table) & qcow::kEntryOffsetMask;
}

uint64_t host_of(const std::string& path, uint64_t cluster) {
  return peek_be<uint64_t>(path, first_table_of(path) + cluster * 8) & qcow::kEntryOffsetMask;
}

std::string ImageFiles::qemu_img(const std::string& words) {
  std::vector<std::string> arguments = {"env", "-C", directory(), "qemu-img"};
  std::istringstream in(words);
  for (std::string word; in >> word;) arguments.push_back(word);
  const support::CommandResult result = support::run_command(arguments);
  EXPECT_TRUE(result.ok()) << "qemu-img " << words << ": " << result.output;
  return result.output;
}

std::string ImageFiles::qemu_io(const std::string& name, const std::vector<std::string>& commands) {
  std::vector<std::string> arguments = {"qemu-io", "-f", "qcow2", "-d", "unmap", "-t", "unsafe"};
  for (const std::string& command : commands) {
    arguments.push_back("-c");
    arguments.push_back(command);
  }
  arguments.push_back(file(name));
  const support::CommandResult result = support::run_command(arguments);
  EXPECT_TRUE(result.ok()) << "qemu-io " << name << ": " << result.output;
  return result.output;
}

Bytes ImageFiles::qemu_content(const std::string& name) {
  qemu_img("convert -t unsafe -f qcow2 -O raw " + name + " " + name + ".raw");
  Bytes content = read_file(file(name + ".raw"));
  std::filesystem::remove(file(name + ".raw"));
  return content;
}

Bytes ImageFiles::varve_content(const std::string& name, uint64_t piece_bytes) {
  const auto chain = open_chain(name);
  Bytes content(chain->size(), std::byte{0xee});
  for (uint64_t at = 0; at < content.size(); at += piece_bytes) {
    const auto piece = std::span(content).subspan(at, std::min(piece_bytes, content.size() - at));
    run(chain->read(at, piece));
  }
  return content;
}

std::unique_ptr<qcow::Chain> ImageFiles::open_chain(const std::string& name,
                                                    qcow::ChainOptions options) {
  return run(qcow::Chain::open(runtime(), file(name), std::move(options)));
}

qcow::Header ImageFiles::header(const std::string& name) {
  const Bytes content = read_file(file(name));
  return qcow::Header::decode(content, content.size(), name);
}

void ImageFiles::make_long_chain(int depth, uint64_t size) {
  run(qcow::create(runtime(), file("c0.qcow2"), {.virtual_size = size}));
  Bytes content = read_file(file("c0.qcow2"));
  for (int i = 1; i < depth; ++i) {
    qcow::CreateOptions options{.virtual_size = size};
    options.parent = qcow::NewParent{.name = fmt::format("c{}.qcow2", i - 1)};
    const std::string name = fmt::format("c{}.qcow2", i);
    std::ranges::copy(qcow::new_header(options, name).encode(name), content.begin());
    write_file(file(name), content);
  }
}

void ImageFiles::scribble(const std::string& name, uint64_t size, int count) {
  const std::string source = file("random.bin");
  write_file(source, random_bytes(random_, 256 << 10));
  std::vector<std::string> commands;
  for (int i = 0; i < count; ++i) {
    const uint64_t unit = random_() % 3 == 0 ? 65536 : 512;
    const uint64_t at = random_() % (size / unit) * unit;
    const uint64_t length = std::min((random_() % 64 + 1) * unit, size - at) / 512 * 512;
    const uint64_t kind = random_() % 8;
    if (length == 0) continue;
    if (kind == 0) {
      commands.push_back(fmt::format("write -z {} {}", at, length));
    } else if (kind == 1) {
      commands.push_back(fmt::format("write -z -u {} {}", at, length));
    } else if (kind == 2) {
      commands.push_back(fmt::format("discard {} {}", at, length));
    } else {
      commands.push_back(fmt::format("write -s {} {} {}", source, at, length));
    }
  }
  // A command line has its limits.
  for (size_t at = 0; at < commands.size(); at += 100) {
    const size_t end = std::min(at + 100, commands.size());
    qemu_io(name,
            {commands.begin() + static_cast<long>(at), commands.begin() + static_cast<long>(end)});
  }
}

}  // namespace qcow_test
