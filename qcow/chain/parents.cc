// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/parents.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "qcow/chain/chain.h"

namespace qcow {

namespace {

std::string without_dots(std::string_view path) {
  return std::filesystem::path(path).lexically_normal().string();
}

/// An image that is open, as far as its child and its parent have to know it.
struct Link {
  std::string path;  // without symbolic links
  std::string name;
  Header header;
};

void require_backing_format(const Link& child) {
  const auto& format = child.header.backing_format;
  if (!format || format->empty()) throw FormatError(child.name, "backing format is missing");
  if (*format != "qcow2") {
    throw FormatError(child.name, fmt::format("backing format \"{}\" is not supported", *format));
  }
}

io::Task<std::string> resolve_backing(io::FileSystem& files, const Link& child, std::string root) {
  const std::string& name = child.header.backing_name;
  const FormatError outside(
      child.name, fmt::format("backing file \"{}\" is outside the repository directory", name));
  if (has_protocol_prefix(name)) throw outside;
  const std::string beside = io::parent_path(child.path) + "/" + name;
  std::string path = without_dots(name.front() == '/' ? name : beside);
  if (!is_inside(path, root)) throw outside;
  path = co_await files.resolve(path);
  if (!is_inside(path, root)) throw outside;
  co_return path;
}

void require_identity(const Link& child, const Layer& parent) {
  if (!child.header.record) return;
  const Record expected = *child.header.record;
  const Record actual = parent.header().record.value_or(Record());
  if (expected.parent_uuid != actual.image_uuid ||
      expected.parent_manifest_hash != actual.manifest_hash) {
    throw FormatError(child.name, fmt::format("parent \"{}\" is not the image this one was made on",
                                              child.header.backing_name));
  }
}

}  // namespace

bool has_protocol_prefix(std::string_view backing_name) {
  const size_t at = backing_name.find_first_of(":/");
  return at != std::string_view::npos && backing_name[at] == ':';
}

bool is_inside(std::string_view path, std::string_view root) {
  if (root.empty() || root == "/") return true;
  const std::string normal = without_dots(path);
  return normal.size() > root.size() && normal.starts_with(root) && normal[root.size()] == '/';
}

io::Task<std::vector<std::unique_ptr<Layer>>> open_parents(io::Runtime runtime, std::string path,
                                                           Header header, ChainOptions options) {
  std::vector<std::unique_ptr<Layer>> parents;
  if (!header.has_backing()) co_return parents;

  std::string root = options.repository_root;
  if (!root.empty()) root = co_await runtime.files.resolve(root);
  Link child;
  child.path = co_await runtime.files.resolve(path);
  child.name = image_name_of(path);
  child.header = std::move(header);
  std::vector<std::string> seen = {child.path};
  const std::string top_name = child.name;

  while (child.header.has_backing()) {
    require_backing_format(child);
    const std::string parent_path = co_await resolve_backing(runtime.files, child, root);
    if (std::ranges::find(seen, parent_path) != seen.end()) {
      throw FormatError(top_name,
                        fmt::format("backing chain loops at \"{}\"", child.header.backing_name));
    }
    if (seen.size() == Chain::kLayersMax) {
      throw FormatError(top_name,
                        fmt::format("backing chain is deeper than {}", Chain::kLayersMax));
    }
    const Layer::OpenOptions layer_options{options.lock, options.salvage};
    std::unique_ptr<Layer> parent = co_await Layer::open(runtime, parent_path, layer_options);
    require_identity(child, *parent);
    seen.push_back(parent_path);
    child = {parent_path, parent->name(), parent->header()};
    parents.push_back(std::move(parent));
  }
  co_return parents;
}

}  // namespace qcow
