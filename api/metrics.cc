#include "api/metrics.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "engine/values/time_text.h"

namespace api {
namespace {

using Labels = std::vector<std::pair<std::string_view, std::string_view>>;

// Label values may hold anything but a bare backslash, quote or line feed.
std::string escaped(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c == '\\') {
      text += "\\\\";
    } else if (c == '"') {
      text += "\\\"";
    } else if (c == '\n') {
      text += "\\n";
    } else {
      text += c;
    }
  }
  return text;
}

class Page {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }

  template <class Number>
  void sample(std::string_view name, const Labels& labels, Number value) {
    text_ += name;
    char before = '{';
    for (const auto& [label, word] : labels) {
      text_ += fmt::format("{}{}=\"{}\"", before, label, escaped(word));
      before = ',';
    }
    text_ += fmt::format("{} {}\n", labels.empty() ? "" : "}", value);
  }

  void histogram(std::string_view name, std::string_view help, const engine::Histogram& from) {
    family(name, "histogram", help);
    const std::string bucket = fmt::format("{}_bucket", name);
    uint64_t so_far = 0;
    for (size_t i = 0; i < from.bounds_seconds.size(); ++i) {
      if (i < from.counts.size()) so_far += from.counts[i];
      sample(bucket, {{"le", fmt::format("{}", from.bounds_seconds[i])}}, so_far);
    }
    if (from.counts.size() > from.bounds_seconds.size()) so_far += from.counts.back();
    sample(bucket, {{"le", "+Inf"}}, so_far);
    sample(fmt::format("{}_sum", name), {}, from.sum_seconds);
    sample(fmt::format("{}_count", name), {}, so_far);
  }

  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

void jobs(Page& page, const engine::MetricsSnapshot& snapshot) {
  using enum engine::JobState;
  page.family("varve_jobs", "gauge", "Backup jobs by state.");
  for (const auto state : {preparing, running, finalizing, completed, failed, cancelled}) {
    const auto found = snapshot.jobs.find(state);
    page.sample("varve_jobs", {{"state", to_text(state)}},
                found == snapshot.jobs.end() ? 0 : found->second);
  }
  page.family("varve_backups_total", "counter", "Backups that have ended, by result and type.");
  for (const auto& total : snapshot.backups_total) {
    page.sample("varve_backups_total", {{"result", total.result}, {"type", to_text(total.type)}},
                total.count);
  }
  page.family("varve_last_success_timestamp_seconds", "gauge",
              "When a VM's last backup completed, in seconds since 1970.");
  for (const auto& [vm, time] : snapshot.last_success) {
    page.sample("varve_last_success_timestamp_seconds", {{"vm", vm}}, engine::unix_seconds(time));
  }
}

void nbd(Page& page, const engine::MetricsSnapshot& snapshot) {
  page.family("varve_nbd_connections", "gauge", "Open NBD connections.");
  page.sample("varve_nbd_connections", {}, snapshot.nbd_connections);
  page.family("varve_nbd_requests_total", "counter", "NBD requests by command and result.");
  for (const auto& total : snapshot.nbd_requests_total) {
    page.sample("varve_nbd_requests_total", {{"command", total.command}, {"result", total.result}},
                total.count);
  }
  page.histogram("varve_nbd_request_seconds", "From an NBD request's header to its reply.",
                 snapshot.nbd_request_seconds);
  page.family("varve_bytes_total", "counter",
              "Bytes of backups and restores by what became of them.");
  const std::pair<std::string_view, uint64_t> kinds[] = {{"received", snapshot.bytes_received},
                                                         {"zeroed", snapshot.bytes_zeroed},
                                                         {"elided", snapshot.bytes_elided},
                                                         {"stored", snapshot.bytes_stored},
                                                         {"read", snapshot.bytes_read}};
  for (const auto& [kind, bytes] : kinds) page.sample("varve_bytes_total", {{"kind", kind}}, bytes);
  page.family("varve_ports_allocated", "gauge", "Ports of the range that serve an export.");
  page.sample("varve_ports_allocated", {}, snapshot.ports_allocated);
}

void repositories(Page& page, const engine::MetricsSnapshot& snapshot) {
  page.family("varve_repository_bytes", "gauge", "Space of repositories, as last measured.");
  for (const auto& storage : snapshot.repositories) {
    const std::pair<std::string_view, uint64_t> kinds[] = {{"total", storage.total_bytes},
                                                           {"used", storage.used_bytes},
                                                           {"available", storage.available_bytes}};
    for (const auto& [kind, bytes] : kinds) {
      page.sample("varve_repository_bytes", {{"repository", storage.repository_id}, {"kind", kind}},
                  bytes);
    }
  }
}

void verifications(Page& page, const engine::MetricsSnapshot& snapshot) {
  page.family("varve_points", "gauge", "Published images by the result of their last proof.");
  for (const auto& [result, count] : snapshot.points) {
    page.sample("varve_points", {{"verification", result}}, count);
  }
  page.family("varve_verified_images_total", "counter",
              "Images proven, by who began it and result.");
  for (const auto& total : snapshot.verified_images_total) {
    page.sample("varve_verified_images_total",
                {{"begun_by", to_text(total.begun_by)}, {"result", to_text(total.result)}},
                total.count);
  }
  page.family("varve_verified_bytes_total", "counter",
              "Bytes read by verifications that have ended.");
  for (const auto& [begun_by, bytes] : snapshot.verified_bytes_total) {
    page.sample("varve_verified_bytes_total", {{"begun_by", to_text(begun_by)}}, bytes);
  }
}

}  // namespace

std::string prometheus_text(const engine::MetricsSnapshot& snapshot, std::string_view version) {
  Page page;
  page.family("varve_build_info", "gauge", "1, with the version as its label.");
  page.sample("varve_build_info", {{"version", version}}, 1);
  jobs(page, snapshot);
  nbd(page, snapshot);
  repositories(page, snapshot);
  verifications(page, snapshot);
  page.histogram("varve_seal_seconds", "From `complete` to a durable disk.", snapshot.seal_seconds);
  page.family("varve_flags_total", "counter", "Disks of backups that looked unusual, by flag.");
  for (const auto& [flag, count] : snapshot.flags_total) {
    page.sample("varve_flags_total", {{"flag", engine::to_text(flag)}}, count);
  }
  page.family("varve_node_calls_total", "counter", "Calls to the node API by result.");
  for (const auto& [result, count] : snapshot.node_calls_total) {
    page.sample("varve_node_calls_total", {{"result", result}}, count);
  }
  return page.take();
}

}  // namespace api
