// SPDX-License-Identifier: Apache-2.0
#include "qcow/check/check_chain.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "qcow/chain/layer.h"
#include "qcow/chain/locks.h"

namespace qcow {

namespace {

/// The tables of one image, and what its own header says of it.
io::Task<ImageReport> check_image(io::Runtime runtime, std::string path) {
  ImageReport report;
  report.path = path;
  const std::string name = image_name_of(path);
  try {
    const std::string target = co_await io::follow_link(runtime.files, path);
    const auto file = co_await runtime.files.open(target, io::OpenMode::read_only);
    const ImageLock lock =
        co_await ImageLock::acquire_patiently(runtime, *file, LockRole::reader, name);
    const Header::DecodeOptions salvage{.salvage = true};
    report.header = co_await read_header(*file, name, salvage);
    report.tables = co_await check(*file, name, CheckOptions());
  } catch (const FormatError& refused) {
    report.refusal = refused.what();
  } catch (const std::system_error& failed) {
    report.refusal = failed.what();
  }
  co_return report;
}

void judge_header(ImageReport& report) {
  const Header& header = *report.header;
  if (header.marked_corrupt()) report.notes.push_back("the corrupt bit is set");
  if ((header.incompatible_features & kIncompatibleDirty) != 0) {
    report.notes.push_back("the dirty bit is set: not closed cleanly by its last writer");
  }
  if (!header.record) {
    if (report.tables.shared_clusters > 0) {
      report.notes.push_back(
          fmt::format("{} host clusters have two owners and a refcount that allows it",
                      report.tables.shared_clusters));
    }
    return;
  }
  const Record& record = *header.record;
  if (report.tables.shared_clusters > 0) {
    report.problems.push_back(fmt::format("{} host clusters have two owners; varve writes none",
                                          report.tables.shared_clusters));
  }
  if (record.full_image() == header.has_backing()) {
    report.problems.push_back(header.has_backing()
                                  ? "its record says that it stands alone, and it has a parent"
                                  : "its record says that it has a parent, and it names none");
  }
  if (record.published() && !header.sealed()) {
    report.problems.push_back("touched since publish (seal bit clear)");
  }
  if (header.sealed() && !record.published()) {
    report.problems.push_back("the seal bit is set, and its record says that it is not published");
  }
}

/// A point stands on points only.
void judge_link(ImageReport& child, const ImageReport& parent) {
  if (child.published() && !parent.published()) {
    child.problems.push_back(
        fmt::format("published, and its parent \"{}\" is not", image_name_of(parent.path)));
  }
}

io::Task<void> check_parents(io::Runtime runtime, ChainReport& report, ChainOptions options) {
  std::unique_ptr<Chain> parents;
  try {
    parents = co_await Chain::open_parents_of(runtime, report.images.front().path,
                                              *report.images.front().header, options);
  } catch (const FormatError& refused) {
    report.images.front().refusal = refused.what();
  } catch (const std::system_error& failed) {
    report.images.front().refusal = failed.what();
  }
  if (!parents) co_return;
  for (size_t i = 0; i < parents->layer_count(); ++i) {
    ImageReport parent = co_await check_image(runtime, parents->layer(i).path());
    if (parent.header) judge_header(parent);
    judge_link(report.images.back(), parent);
    report.images.push_back(std::move(parent));
  }
}

}  // namespace

Verdict ImageReport::verdict() const {
  if (!refusal.empty()) return Verdict::cannot_open;
  if (tables.corruptions > 0 || !problems.empty()) return Verdict::errors;
  return tables.leaks > 0 ? Verdict::leaks : Verdict::clean;
}

Verdict ChainReport::verdict() const {
  Verdict worst = Verdict::clean;
  for (const ImageReport& image : images) worst = std::max(worst, image.verdict());
  return worst;
}

io::Task<ChainReport> check_chain(io::Runtime runtime, std::string path, ChainOptions options) {
  ChainReport report;
  report.images.push_back(co_await check_image(runtime, std::move(path)));
  if (!report.images.front().header) co_return report;
  judge_header(report.images.front());
  if (report.images.front().refusal.empty()) {
    co_await check_parents(runtime, report, std::move(options));
  }
  co_return report;
}

}  // namespace qcow
