// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/task_scope.h"
#include "qcow/image/create.h"
#include "qcow/image/image.h"
#include "tests/crash/files.h"
#include "tests/crash/replay.h"
#include "tests/crash/script.h"
#include "tests/crash/version_model.h"

namespace crash {

/// What a campaign of runs counts and wants.
struct Campaign {
  uint64_t first_seed = 1;
  uint64_t runs = 0;
  uint64_t states = 0;               ///< judged so far
  uint64_t states_a_run = 150;       ///< about
  uint64_t other_checker_every = 0;  ///< every so many states `qemu-img check` is asked; 0: never
  uint64_t other_checks = 0;
  uint64_t elided_bytes = 0;      ///< by the runs: what the parents held
  uint64_t published_states = 0;  ///< in which the image was published, or was so by the judge
  /// States of which something particular was judged, by what; counted by the engine's runs.
  std::map<std::string, uint64_t> judged;
  /// Only this cut, to replay a failure: as a failure tells it, "1234" or "1234/77".
  std::string only_cut;
};

struct Failure {
  std::string what;
  std::string cut;
};

/// The production image under a script of clients, on a simulated disk that is cut off at any time.
///
/// run() plays the script once, then goes through the log of what happened on the disk, builds
/// states, and judges each: qcow::check, varve's own recovery, the versions of every sector, and of
/// an image that is published, then or by the judge, its manifest. Some states go on as runs of
/// their own: written to, and cut off again, the recovery included.
class ImageRun {
 public:
  static constexpr const char* kPath = "/d/a.qcow2";

  /// A run from the beginning.
  ImageRun(Campaign& campaign, uint64_t seed, Shape shape, std::vector<Op> script);
  /// Goes on from a disk that a cut has left.
  ImageRun(Campaign& campaign, uint64_t seed, Shape shape, std::vector<Op> script, State start,
           Bytes content, std::string cut_so_far, int generation);
  ~ImageRun();

  /// The first failure, if there is one.
  std::optional<Failure> run();

 private:
  class Client;
  class DirectClient;
  class NbdClient;
  class NbdServer;

  // image_run.cc: playing
  io::Task<void> play();
  struct Session;
  io::Task<void> play_session(size_t first, size_t end, bool kill);
  io::Task<void> open_image(Session& session);
  void begin_work(Session& session, size_t first, size_t end);
  io::Task<void> bury(std::unique_ptr<Session> session);
  io::Task<void> end_session(Session& session, uint64_t closing_at, bool is_last);
  io::Task<void> publish(qcow::Image& image, uint64_t closing_at);
  Bytes bytes_of(const Op& op) const;
  io::Task<void> work(Session& session, uint32_t number, size_t end);
  io::Task<void> perform(Session& session, Client& client, const Op& op);
  io::Task<void> change(Session& session, Client& client, const Op& op);
  io::Task<void> expect_read(Session& session, Client& client, const Op& op);
  io::Task<void> note_what_is_left(qcow::Image& image);
  void trace(const Op& op, const char* step);
  std::optional<size_t> next_op(Session& session, uint32_t client, size_t end);

  // cuts.cc: judging
  std::optional<Failure> judge_cuts();
  std::optional<Failure> judge_cut(const Replay& replay, const Parts& parts, uint64_t number);
  std::optional<std::string> judge_state(const State& state, uint64_t cut, Bytes& found);
  std::optional<std::string> judge_and_recover(World& world, uint64_t cut, Bytes& found);
  std::optional<std::string> judge_published(World& world, uint64_t cut, Bytes& found);
  io::Task<void> recover(World& world, bool publishes, Bytes& found);
  bool seen_before(const State& state, uint64_t cut);
  void print_log(size_t cut, const Parts& parts) const;
  std::string cut_name(uint64_t number) const;
  bool wanted(uint64_t number) const;

  Campaign& campaign_;
  const uint64_t seed_;
  Shape shape_;
  const std::vector<Op> script_;
  const std::string cut_so_far_;
  const int generation_ = 0;
  std::optional<World> world_;
  std::optional<VersionModel> model_;
  Bytes sent_below_;                      // to the parents, before they were harmed
  uint64_t exists_from_ = 0;              // events; before, the image is still being made
  uint64_t published_at_ = ~uint64_t{0};  // a moment

  io::TaskScope killed_;            // processes whose last writes are still in flight
  bool broken_ = false;             // by a fault: nothing is done after it
  std::string complaint_;           // found while playing
  std::vector<std::string> trace_;  // what clients did, when a cut is replayed
  std::set<std::pair<uint64_t, uint64_t>> seen_;
};

/// The disk before a run: parents, and the image unless the run makes it.
struct Prepared {
  State disk;
  Bytes sent_below;  ///< what the newest parent read as when it was published; with Shape::elides
};
Prepared prepare_disk(uint64_t seed, const Shape& shape);
qcow::CreateOptions create_options(const Shape& shape);
Bytes read_disk(World& world, const std::string& path);

}  // namespace crash
