// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/find_images.h"
#include "engine/check_backup.h"
#include "io/counted.h"
#include "io/ring_thread.h"
#include "qcow/check/check_chain.h"
#include "qcow/format/record.h"

namespace app {
namespace {

using OrderedJson = nlohmann::ordered_json;
using qcow::Verdict;

constexpr std::string_view kSidecarEnding = ".qcow2.json";

/// As promised by --help and the README.
int exit_status(Verdict verdict) {
  switch (verdict) {
    case Verdict::clean:
      return 0;
    case Verdict::leaks:
      return 3;
    case Verdict::errors:
      return 4;
    case Verdict::cannot_open:
      break;
  }
  return 1;
}

const char* word(Verdict verdict) {
  switch (verdict) {
    case Verdict::clean:
      return "clean";
    case Verdict::leaks:
      return "leaks";
    case Verdict::errors:
      return "errors";
    case Verdict::cannot_open:
      break;
  }
  return "cannot open";
}

/// The image of a sidecar, or what the target is by itself.
FoundImages find_targets(const CheckOptions& options) {
  std::string target = options.target;
  if (target.ends_with(kSidecarEnding)) {
    target.resize(target.size() - std::string_view(".json").size());
  }
  return find_images(target, options.catalogue, options.config);
}

OrderedJson to_json(const qcow::ImageReport& image, bool is_parent) {
  OrderedJson json;
  json["path"] = image.path;
  json["role"] = is_parent ? "parent" : "image";
  json["result"] = word(image.verdict());
  if (!image.refusal.empty()) json["refusal"] = image.refusal;
  if (image.header) {
    const qcow::CheckResult& tables = image.tables;
    json["corruptions"] = tables.corruptions;
    json["leaks"] = tables.leaks;
    json["shared_clusters"] = tables.shared_clusters;
    json["findings"] = tables.findings;
    json["findings_left_out"] = tables.findings_left_out;
    json["file_bytes"] = tables.file_bytes;
    json["guest_clusters"] = tables.guest_clusters;
    json["data_clusters"] = tables.data_clusters;
    json["compressed_clusters"] = tables.compressed_clusters;
    json["zero_clusters"] = tables.zero_clusters;
    json["used_end"] = tables.used_end;
    json["backing_file"] = image.header->backing_name;
    json["published"] = image.published();
    json["sealed"] = image.header->sealed();
    if (const auto& record = image.header->record) {
      json["image_uuid"] = qcow::uuid_text(record->image_uuid);
      json["parent_uuid"] = qcow::uuid_text(record->parent_uuid);
    }
  }
  json["problems"] = image.problems;
  json["notes"] = image.notes;
  return json;
}

void print_text(const qcow::ImageReport& image, bool is_parent) {
  fmt::print("{}{}: {}\n", is_parent ? "  parent " : "", image.path, word(image.verdict()));
  const auto line = [](std::string_view text) { fmt::print("    {}\n", text); };
  if (!image.refusal.empty()) line(image.refusal);
  for (const std::string& problem : image.problems) line(problem);
  for (const std::string& finding : image.tables.findings) line(finding);
  if (image.tables.findings_left_out > 0) {
    line(fmt::format("and {}", io::counted(image.tables.findings_left_out, "more finding")));
  }
  for (const std::string& note : image.notes) line("note: " + note);
  if (!image.header) return;
  const qcow::CheckResult& tables = image.tables;
  line(fmt::format("{}, {}; of {} {} hold data, {} are compressed, {} are zero",
                   io::counted(tables.corruptions, "error"),
                   io::counted(tables.leaks, "leaked cluster"),
                   io::counted(tables.guest_clusters, "cluster"), tables.data_clusters,
                   tables.compressed_clusters, tables.zero_clusters));
}

io::Task<std::vector<qcow::ChainReport>> check_all(io::Runtime runtime, FoundImages targets) {
  std::vector<qcow::ChainReport> reports;
  for (const std::string& path : targets.images.paths) {
    qcow::ChainOptions options;
    options.repository_root = targets.images.repository_directory;
    std::string absolute = std::filesystem::absolute(path).string();
    qcow::ChainReport report = co_await qcow::check_chain(runtime, std::move(absolute), options);
    co_await engine::check_sidecars(runtime, report, targets.of_catalogue);
    reports.push_back(std::move(report));
  }
  co_return reports;
}

Verdict worst_of(const std::vector<qcow::ChainReport>& reports) {
  Verdict worst = Verdict::clean;
  for (const qcow::ChainReport& report : reports) worst = std::max(worst, report.verdict());
  return worst;
}

void print_json(const CheckOptions& options, const std::vector<qcow::ChainReport>& reports) {
  OrderedJson json;
  json["target"] = options.target;
  json["result"] = word(worst_of(reports));
  json["exit_status"] = exit_status(worst_of(reports));
  json["images"] = OrderedJson::array();
  for (const qcow::ChainReport& report : reports) {
    for (const qcow::ImageReport& image : report.images) {
      json["images"].push_back(to_json(image, &image != report.images.data()));
    }
  }
  // Names of files need not be UTF-8.
  fmt::print("{}\n", json.dump(2, ' ', false, OrderedJson::error_handler_t::replace));
}

}  // namespace

int run_check(const CheckOptions& options) {
  io::RingRuntime parts;
  const auto reports = parts.ring().run(check_all(parts.runtime(), find_targets(options)));
  if (options.json) {
    print_json(options, reports);
  } else {
    for (const qcow::ChainReport& report : reports) {
      for (const qcow::ImageReport& image : report.images) {
        print_text(image, &image != report.images.data());
      }
    }
  }
  return exit_status(worst_of(reports));
}

}  // namespace app
