// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/jobs/core.h"

/// Verifications on a schedule: each point is proven again once its last proof is as old as
/// EngineOptions::scrub_interval. Spec: docs/verify.md, "On a schedule".
///
/// Invariant: backups and requests come first. Nothing is read while a backup runs, and a
/// verification that somebody asks for, or a deletion, ends the one of the schedule, which is begun
/// again later with what is still due. Repositories that are away are left out. Control thread.
namespace engine {

/// Until the engine shuts down; returns at once when there is no schedule.
io::Task<void> scrub_points(Core& core);

/// When an image could not be read the last time, by its id.
using UnreadSince = std::map<std::string, io::SteadyTime>;

/// `due` in the order in which they have their turn: those that could not be read come after all
/// others, and among themselves the one that has waited longest first.
std::vector<Point> in_turn(std::vector<Point> due, const UnreadSince& unread);

}  // namespace engine
