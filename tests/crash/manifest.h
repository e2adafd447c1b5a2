// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qcow/format/geometry.h"
#include "tests/crash/files.h"

/// Manifests on a simulated disk (docs/manifest.md), judged by varve's own check of content.
namespace crash {

/// Where the manifest of an image lies.
std::string manifest_path(std::string_view image_path);

/// A cluster that an image stores.
struct StoredCluster {
  qcow::GuestCluster guest;
  qcow::HostOffset host;
};
std::vector<StoredCluster> stored_clusters(World& world, const std::string& image_path);

/// Whether the header says that the image was published. Throws what an unreadable one throws.
bool is_published(World& world, const std::string& image_path);

/// What is wrong with an image beside its manifest; nothing when every stored cluster is what was
/// sent. Then one of them is damaged, found by the same check, and mended.
std::optional<std::string> judge_manifest(World& world, const std::string& image_path,
                                          const std::string& sums_path, Rng& rng);

/// Turns the bits of one byte over. Twice is as before.
void spoil(World& world, const std::string& path, uint64_t at);

}  // namespace crash
