// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/care/second_reader.h"
#include "engine/values/types.h"
#include "io/runtime.h"
#include "io/sync.h"

namespace engine {

/// What verifying an image shares with whoever waits for it. Any thread.
struct VerifyProgress {
  std::atomic<uint64_t> read_bytes = 0;        ///< of all images so far
  std::atomic<bool> cancelled = false;         ///< ends it within a request's time
  std::atomic<bool> paused = false;            ///< nothing is read until it is false again
  std::atomic<uint64_t> bytes_per_second = 0;  ///< read at most; 0: as fast as it goes
};

/// Who reads the content of an image.
struct ContentReaders {
  bool varve = true;  ///< what the second one cannot read, varve does in any case
  bool second = false;
  ReaderProcesses* processes = nullptr;  ///< of the second one
  io::Duration patience = std::chrono::seconds(30);
};

/// A proof of several images.
struct VerificationUnderWay {
  explicit VerificationUnderWay(io::Executor& home) : ended(home) {}

  Verification task;  ///< of the control thread, but for read_bytes
  ContentReaders readers;
  std::shared_ptr<VerifyProgress> progress = std::make_shared<VerifyProgress>();
  std::string reading;              ///< the backup whose image is being read
  std::vector<std::string> unread;  ///< images whose repository was away; no damage
  std::string unread_cause;         ///< of the first one
  io::Event ended;  ///< the control thread's
};

/// Oldest first; those that have ended, too.
using Verifications = std::vector<std::shared_ptr<VerificationUnderWay>>;

/// So long is the end of a cancelled one waited for: storage that hangs may never give back a read.
inline constexpr io::Duration kEndPatience = std::chrono::seconds(10);

/// Cancels it, and waits until it has ended, or for kEndPatience.
io::Task<void> end_verification(io::Runtime home, std::shared_ptr<VerificationUnderWay> under_way);

/// The same of the verification of the schedule that is under way, if there is one. Whoever wants
/// what it reads, or its place, comes first. The caller has no turn.
io::Task<void> end_scrub(io::Runtime home, Verifications known);

/// Proves that a published image is what was sent: its own tables (PU3), the sidecar by the hash in
/// its header, the parent's sidecar by the root that this one's holds, the manifest by the hash in
/// the sidecar, and by the manifest the content of every stored cluster, as each reader reads it.
///
/// What is wrong is an answer, and so is an image that cannot be read. An image of earlier versions
/// has no manifest: of it the tables and the sidecar are proven. Throws ECANCELED, and memory. Up
/// to 65,536 ranges are named, more than anybody remembers (engine/wanted.h). `verification` names
/// the image; its other members are the answer. On a data thread.
io::Task<ImageVerification> verify_image(io::Runtime data, ImageVerification verification,
                                         std::string image_path, std::string parent_path,
                                         ContentReaders readers,
                                         std::shared_ptr<VerifyProgress> progress);

}  // namespace engine
