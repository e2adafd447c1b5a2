// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "io/executor.h"
#include "io/http_url.h"
#include "io/task.h"

/// The call that makes the node start the client, once per job.
///
/// Invariant: a call whose bytes may have reached the node is never sent again, because a second
/// client would delete the first one's snapshot. The password goes into the body and nowhere else.
/// Spec: docs/jobs.md, "The call to the node".
namespace engine {

/// One job, with all its disks in `nbd_targets`. No member is empty.
struct NodeCall {
  std::string job_id, vm_name, vm_path;
  std::string vcenter_host, vcenter_user, vcenter_password;
  std::string nbd_targets;  ///< "2000:nbd://127.0.0.1:10100/x-disk0,2001:…"
  std::string backup_type;  ///< "full" or "incremental"
  std::string previous_change_id = "PLACEHOLDER";
  std::string nbd_host;
};

/// The JSON text that is sent.
std::string node_call_body(const NodeCall& call);

struct NodeAnswer {
  enum class Outcome : uint8_t {
    accepted,     ///< 200 or 202
    refused,      ///< another status
    unreachable,  ///< no connection, no answer in time, or the connection broke
  };
  Outcome outcome = Outcome::unreachable;
  int status = 0;    ///< 0 when unreachable
  std::string text;  ///< the node's own, at most 4 KiB, or the cause; the password is blotted out
  bool may_have_started = false;  ///< bytes were sent and no refusal came back
};

struct NodeTimes {
  std::chrono::milliseconds connect{3000}, total{12000};
  std::chrono::milliseconds first_retry{500}, second_retry{1000};  ///< waits before them
};

/// Makes the calls. call() belongs to the executor's thread, never blocks it, and throws nothing
/// but std::bad_alloc. The client outlives the calls under way.
class NodeClient {
 public:
  virtual ~NodeClient() = default;

  virtual io::Task<NodeAnswer> call(NodeCall call) = 0;

  /// Ends all calls under way as unreachable, at once; later ones too. From any thread.
  virtual void stop() = 0;
};

/// The real one: a thread of its own turns an Asio loop, answers come back by Executor::post. `url`
/// is plain HTTP, and has no query.
std::unique_ptr<NodeClient> make_node_client(io::Executor& executor, io::HttpUrl url,
                                             NodeTimes times = {});

}  // namespace engine
