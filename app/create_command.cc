// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/copy_report.h"
#include "app/operate/text.h"
#include "io/ring_thread.h"
#include "qcow/chain/chain.h"
#include "qcow/format/uuid.h"
#include "qcow/image/create.h"

namespace app {
namespace {

/// The name of a parent that lies in the image's own directory.
std::string bare_name(const CreateOptions& options) {
  std::string name = options.backing.substr(options.backing.rfind('/') + 1);
  const std::string beside = io::parent_path(options.file) + "/" + name;
  if (options.backing != name && options.backing != beside &&
      io::parent_path(options.backing) != io::parent_path(options.file)) {
    throw UsageError(fmt::format("{}: a parent must lie in the directory of its image, {}",
                                 options.backing, io::parent_path(options.file)));
  }
  return name;
}

io::Task<void> create(io::Runtime runtime, CreateOptions options) {
  qcow::CreateOptions image;
  image.virtual_size = options.size_bytes;
  image.image_uuid = qcow::make_uuid(runtime);
  if (!options.backing.empty()) {
    const std::string name = bare_name(options);
    std::string path = io::parent_path(options.file) + "/" + name;
    qcow::ChainOptions anywhere;
    const auto parent = co_await qcow::Chain::open(runtime, std::move(path), anywhere);
    const auto& record = parent->layer(0).header().record;
    qcow::NewParent link;
    link.name = name;
    if (record) {
      link.uuid = record->image_uuid;
      link.manifest_hash = record->manifest_hash;
    }
    image.parent = link;
    if (image.virtual_size == 0) image.virtual_size = parent->size();
  }
  co_await qcow::create(runtime, options.file, image);
  if (options.json) {
    print_json_line({{"file", options.file},
                     {"size_bytes", image.virtual_size},
                     {"backing", image.parent ? image.parent->name : ""}});
    co_return;
  }
  const std::string line = fmt::format("{}: {}{}\n", options.file,
                                       size_text(image.virtual_size, Style{.bytes = options.bytes}),
                                       image.parent ? ", backed by " + image.parent->name : "");
  std::fputs(line.c_str(), stdout);
}

}  // namespace

int run_create(const CreateOptions& options) {
  io::RingRuntime parts;
  parts.ring().run(create(parts.runtime(), options));
  return 0;
}

}  // namespace app
