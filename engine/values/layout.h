// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// Where everything lies on disk; each name is written here and nowhere else. Pure.
///
///     <repository>/.varve-repository       which repository it is (marker.h)
///                  .varve.lock             who works with it (instance_lock.h)
///                  .varve-test-<16 hex>    a trial of its file system (storage_trial.h)
///                  .quarantine/<job>/      what failed jobs have made, where it is kept
///                  <safe>-disk-<key>       link to a disk's directory
///                  <context>/vm.json       the VM
///                  <context>/disk-<index>/chain.json
///                                          latest.qcow2           link to the newest point
///                                          <image>.qcow2          a point
///                                          <image>.qcow2.json     its sidecar
///                                          <image>.qcow2.sums     its manifest
///                                          <image>.qcow2.verified its last proof
///                                          <image>.qcow2.partial  before its publish
///                                          <image>.qcow2.arrived  what of it has arrived, where
///                                                                 another job may go on with it
///                                          <restore>-disk<index>.overlay  what a writable restore
///                                                                 has written on a point
///     <catalogue>, <catalogue>.lock, <catalogue>.secrets
///
/// Spec: docs/jobs.md, "Files of a repository".
namespace engine {

inline constexpr std::string_view kMarkerName = ".varve-repository";
inline constexpr std::string_view kTrialPrefix = ".varve-test-";
inline constexpr std::string_view kContextPrefix = "ctx-";
inline constexpr std::string_view kDiskPrefix = "disk-";
inline constexpr std::string_view kVmFileName = "vm.json";
inline constexpr std::string_view kChainFileName = "chain.json";
/// A link of the repository itself to an image would not do: qemu looks for a parent beside the
/// name that it was given.
inline constexpr std::string_view kLatestLinkName = "latest.qcow2";
inline constexpr std::string_view kImageEnding = ".qcow2";
inline constexpr std::string_view kPartialEnding = ".qcow2.partial";
inline constexpr std::string_view kSidecarEnding = ".qcow2.json";
inline constexpr std::string_view kSumsEnding = ".qcow2.sums";
inline constexpr std::string_view kProofEnding = ".qcow2.verified";
inline constexpr std::string_view kArrivedEnding = ".qcow2.arrived";
inline constexpr std::string_view kOverlayEnding = ".overlay";

// ---------------------------------------------------------------- in a repository

/// "<repository>/<context>/disk-<index>".
std::string disk_directory(std::string_view repository, std::string_view context_id,
                           uint32_t disk_index);
std::string vm_file_path(std::string_view repository, std::string_view context_id);
/// "<safe>-disk-<key>".
std::string disk_link_name(std::string_view safe, uint32_t disk_key);
std::string repository_lock_path(std::string_view repository);
/// `from`: a job's id, or "strays".
std::string quarantine_directory(std::string_view repository, std::string_view from);

// ---------------------------------------------------------------- beside an image

/// "<image>.qcow2", as a child's backing reference says it.
std::string image_file_name(std::string_view image_id);
std::string partial_path(std::string_view image_path);
std::string sidecar_path(std::string_view image_path);
std::string sums_path(std::string_view image_path);
std::string proof_path(std::string_view image_path);
std::string arrived_path(std::string_view image_path);
/// In the directory of the point that it stands on.
std::string overlay_path(std::string_view image_path, std::string_view restore_id,
                         uint32_t disk_index);

// ---------------------------------------------------------------- beside the catalogue

std::string catalogue_lock_path(std::string_view catalogue);
std::string secrets_path(std::string_view catalogue);

}  // namespace engine
