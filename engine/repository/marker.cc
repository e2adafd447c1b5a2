// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/marker.h"

#include <fmt/format.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <system_error>

#include "engine/values/layout.h"
namespace engine {
namespace {

constexpr uint32_t kVersion = 1;
constexpr size_t kMarkerBytesMax = 4096;

std::string path_in(const std::string& directory) {
  return fmt::format("{}/{}", directory, kMarkerName);
}

/// A random UUID (RFC 9562, version 4).
std::string new_id(io::Random& random) {
  const uint64_t high = random.next(), low = random.next();
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", high >> 32, high >> 16 & 0xffff,
                     high & 0xfff, 0x8000 | (low >> 48 & 0x3fff), low & 0xffffffffffff);
}

std::string id_of(const std::string& path, const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  const auto damaged = [&](std::string_view what) {
    return std::runtime_error(fmt::format("{} is damaged: {}", path, what));
  };
  if (!json.is_object()) throw damaged("not a JSON object");
  const auto version = json.find("version");
  if (version == json.end() || !version->is_number_unsigned()) throw damaged("it has no version");
  if (*version != kVersion) {
    throw std::runtime_error(
        fmt::format("{} has version {}, made by a newer varve", path, version->get<uint64_t>()));
  }
  const auto id = json.find("id");
  if (id == json.end() || !id->is_string() || id->get<std::string>().empty()) {
    throw damaged("it has no id");
  }
  return *id;
}

io::Task<void> write_durably(io::FileSystem& files, std::string path, std::string text) {
  const auto file = co_await files.open(path, io::OpenMode::create_new);
  co_await file->write(0, std::as_bytes(std::span(text.data(), text.size())));
  co_await file->sync();
}

}  // namespace

io::Task<std::optional<std::string>> read_marker(io::FileSystem& files, std::string directory) {
  const std::string path = path_in(directory);
  const auto status = co_await files.status(path, false);
  if (!status) co_return std::nullopt;
  if (status->kind != io::FileKind::file) {
    throw std::runtime_error(fmt::format("{} is not a regular file", path));
  }
  const std::string text = co_await io::read_text(files, path, kMarkerBytesMax);
  co_return id_of(path, text);
}

io::Task<std::string> make_marker(io::Runtime runtime, std::string directory) {
  const auto known = co_await read_marker(runtime.files, directory);
  if (known) co_return *known;
  const std::string path = path_in(directory);
  const std::string id = new_id(runtime.random);
  // A name of its own: whoever makes a marker at the same time does not disturb this one.
  const std::string temporary = fmt::format("{}.{}.new", path, id);
  const std::string text = nlohmann::json{{"id", id}, {"version", kVersion}}.dump() + '\n';
  co_await write_durably(runtime.files, temporary, text);
  bool taken = false;
  std::exception_ptr failure;
  try {
    co_await runtime.files.rename(temporary, path, false);
  } catch (const std::system_error& cause) {
    taken = cause.code().value() == EEXIST;
    if (!taken) failure = std::current_exception();
  }
  if (taken || failure) co_await runtime.files.remove(temporary);
  if (failure) std::rethrow_exception(failure);
  co_await runtime.files.sync_directory(directory);
  const auto made = co_await read_marker(runtime.files, directory);
  co_return made.value_or(id);
}

io::Task<void> require_mounted(io::FileSystem& files, std::string image_path) {
  const auto image = co_await files.status(image_path, false);
  if (image) co_return;
  std::string directory = image_path;
  while (directory != "/" && directory != ".") {
    directory = io::parent_path(directory);
    const auto marker = co_await files.status(path_in(directory), false);
    if (marker) co_return;
  }
  throw std::runtime_error(
      fmt::format("neither {} nor the {} of a directory above it is there: its file system is not "
                  "mounted?",
                  image_path, kMarkerName));
}

}  // namespace engine
