// SPDX-License-Identifier: Apache-2.0
#include "app/pull/libvirt.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>
#include <unistd.h>

#include <array>
#include <pugixml.hpp>
#include <string_view>
#include <utility>

#include "app/pull/hub.h"
#include "app/pull/libvirt_domain.h"
#include "io/percent_encoding.h"

namespace app {
namespace {

/// Sockets and images are this machine's.
void require_here(virConnectPtr connection) {
  const Text theirs(virConnectGetHostname(connection));
  std::array<char, 256> ours{};
  ::gethostname(ours.data(), ours.size() - 1);
  if (!theirs || std::string_view(theirs.get()).starts_with(ours.data())) return;
  if (std::string_view(ours.data()).starts_with(theirs.get())) return;
  throw PullRefused(
      fmt::format("this libvirt is that of {}: run varve pull there, with --server", theirs.get()));
}

void ignore_errors(void*, virErrorPtr) {}  // libvirt would print them; they are thrown here

}  // namespace

std::string last_words() {
  const virErrorPtr error = virGetLastError();
  return error != nullptr && error->message != nullptr ? error->message : "unknown error";
}

int last_code() {
  const virErrorPtr error = virGetLastError();
  return error != nullptr ? error->code : 0;
}

std::runtime_error libvirt_failure(const std::string& what) {
  return std::runtime_error(fmt::format("{}: {}", what, last_words()));
}

std::vector<DomainDisk> disks_of(const std::string& domain_xml) {
  pugi::xml_document document;
  document.load_string(domain_xml.c_str());
  std::vector<DomainDisk> disks;
  for (const pugi::xml_node disk : document.child("domain").child("devices").children("disk")) {
    const std::string device = disk.attribute("device").as_string("disk");
    if ((device != "disk" && device != "lun") || disk.child("readonly") || !disk.child("source")) {
      continue;
    }
    const pugi::xml_node source = disk.child("source");
    disks.push_back({disk.child("target").attribute("dev").as_string(),
                     source.attribute("file").as_string(source.attribute("dev").as_string()),
                     disk.child("driver").attribute("type").as_string("raw"),
                     !source.attribute("file").empty()});
  }
  return disks;
}

std::string uri_of(const std::string& socket, const std::string& export_name) {
  return fmt::format("nbd+unix:///{}?socket={}", io::percent_encoded(export_name),
                     io::percent_encoded(socket));
}

std::unique_ptr<LibvirtBackup> LibvirtBackup::begin(
    const LibvirtRequest& request, const std::function<void(const std::string&)>& warn) {
  virSetErrorFunc(nullptr, ignore_errors);
  Connection connection(
      virConnectOpen(request.connect.empty() ? nullptr : request.connect.c_str()));
  if (!connection) throw libvirt_failure("connect to libvirt");
  Domain domain(virDomainLookupByName(connection.get(), request.domain.c_str()));
  if (!domain) throw libvirt_failure(fmt::format("find domain {}", request.domain));
  const Text xml(virDomainGetXMLDesc(domain.get(), 0));
  if (!xml) throw libvirt_failure(fmt::format("describe domain {}", request.domain));
  require_here(connection.get());
  const int active = virDomainIsActive(domain.get());
  if (active < 0) throw libvirt_failure(fmt::format("ask for domain {}", request.domain));
  return active == 1
             ? begin_running(std::move(connection), std::move(domain), xml.get(), request, warn)
             : begin_idle(std::move(connection), std::move(domain), xml.get(), request, warn);
}

}  // namespace app
