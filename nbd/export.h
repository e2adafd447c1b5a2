// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "io/block_device.h"
#include "io/runtime.h"
#include "io/sync.h"
#include "io/task_scope.h"
#include "nbd/counters.h"
#include "nbd/meta_context.h"
#include "nbd/negotiation.h"
#include "nbd/protocol.h"
#include "nbd/refusal.h"

namespace nbd {

class Export;

enum class ExportKind : uint8_t { ingest, point, temporary };

/// Who may open an export. Its owner always may: the client that TLS has proved to be the job.
enum class ExportAccess : uint8_t {
  anybody,  ///< who reaches the listener
  by_name,  ///< who knows its name, which is a secret: it is not listed
  owner,    ///< its owner only
};

enum class ExportState : uint8_t {
  open,    ///< all commands are served
  sealed,  ///< no more writes, no new connections; READ, FLUSH and BLOCK_STATUS still work (D7)
  closed,  ///< every command is answered ESHUTDOWN, and connections end soon
};

/// What the engine wants to know of an export. Calls are short and throw nothing.
class ExportObserver {
 public:
  virtual ~ExportObserver() = default;
  /// A connection has got its place, just before GO is answered. On the handshake's thread.
  virtual void connection_opened(Export&) {}
  /// The storage has failed, reported once, with the first cause (X9). On the export's thread.
  virtual void storage_failed(Export&, std::exception_ptr) {}
};

/// A connection in transmission, as its export sees it. Called on the export's thread.
class LiveConnection {
 public:
  virtual ~LiveConnection() = default;
  /// Ends it in good order: what is in flight is answered, then the stream is closed.
  virtual void finish() = 0;
  /// Ends it at once.
  virtual void abort() = 0;
  /// Gives up the WRITE whose payload has arrived only in part: its rest is not written.
  virtual void drop_half_received() = 0;
};

/// One place among an export's connections. Giving it up, on whatever thread, counts down.
class ConnectionPlace {
 public:
  /// `give_up` counts down on the thread of the export.
  ConnectionPlace(std::shared_ptr<Export> of, io::Job give_up)
      : of_(std::move(of)), give_up_(std::move(give_up)) {}
  ConnectionPlace(ConnectionPlace&&) noexcept = default;
  ConnectionPlace& operator=(ConnectionPlace&& other) noexcept {
    std::swap(of_, other.of_);
    std::swap(give_up_, other.give_up_);
    return *this;
  }
  ~ConnectionPlace();
  Export& exported() const { return *of_; }

 private:
  std::shared_ptr<Export> of_;
  io::Job give_up_;  // made beforehand, because a destructor cannot fail
};

struct ExportSpec {
  std::string name;
  std::string description;
  ExportKind kind = ExportKind::ingest;
  bool read_only = false;
  ExportAccess access = ExportAccess::anybody;
  std::string owner;                   ///< the job, as TLS names its client; "": none
  uint32_t connections_max = 64;       ///< a further one is refused (X1)
  ExportObserver* observer = nullptr;  ///< outlives the export, or is null
  /// False: a change that the storage refuses fails the export, because a job must not complete
  /// without it. True: only its owner's fail() does, and what was refused may be asked for again.
  bool writes_may_recover = false;
  /// Beside the two of allocation_contexts().
  MetaContexts more_contexts;
  /// Times of the life's end (D7).
  io::Duration close_grace = std::chrono::seconds(5);
  io::Duration half_received_grace = std::chrono::seconds(5);
  /// From the end in good order to the end by force.
  io::Duration linger = std::chrono::seconds(1);
};

/// A block device under a name, with everything its connections share.
///
/// Invariant: after seal() has returned no write reaches the device; after join() has returned
/// nothing refers to the device. Spec: O11, O12, X1, X9, D3, D7.
///
/// Belongs to `home`'s thread. From any thread: what is const, the counters, and connect().
class Export : public std::enable_shared_from_this<Export> {
 public:
  static std::shared_ptr<Export> make(ExportSpec spec, io::BlockDevice& device, io::Runtime home);
  /// After join(), or without ever a connection.
  ~Export();

  // Never changes.
  const std::string& name() const { return spec_.name; }
  const std::string& description() const { return spec_.description; }
  ExportAccess access() const { return spec_.access; }
  const std::string& owner() const { return spec_.owner; }
  ExportKind kind() const { return spec_.kind; }
  bool read_only() const { return spec_.read_only; }
  uint64_t size() const { return size_; }
  uint32_t preferred_block_size() const { return preferred_block_size_; }
  uint16_t transmission_flags(const Negotiation& negotiation) const;
  const MetaContexts& contexts() const { return contexts_; }
  const io::Runtime& home() const { return home_; }
  Counters& counters() const { return counters_; }
  ExportState state() const { return state_.load(std::memory_order_acquire); }

  /// A place for one more connection, or why there is none (O11, O12). Any thread.
  std::variant<ConnectionPlace, Refusal> connect();
  /// Why connect() would refuse now, for INFO. Any thread.
  std::optional<Refusal> connect_refusal() const;

  // The rest: on home's thread.

  io::BlockDevice& device() const { return device_; }

  /// Refuses new writes, waits for those under way, and drops what is received only in part after
  /// half_received_grace. Returns when no write is left; it makes nothing durable.
  io::Task<void> seal();

  /// Answers ESHUTDOWN with `text` (null: `export "x" is closed`) from now on, and ends the
  /// connections after `grace` (null: close_grace). May be called again; the first call counts.
  void close(std::optional<std::string> text = {}, std::optional<io::Duration> grace = {});

  /// close(), then waits until the last connection and all work in the background have ended.
  /// Called once, and before the export goes.
  io::Task<void> join();

  /// Takes note of a storage failure (X9); only the first one counts. From now on it is the answer
  /// to every change and FLUSH, also when the export is sealed or closed because of it; connections
  /// stay, and reads continue.
  void fail(std::exception_ptr cause);
  /// The storage has refused a change, or what was to become durable.
  void note_refused_change(std::exception_ptr cause);
  std::exception_ptr failure() const { return failure_.cause; }

  // For sessions.

  /// The answer of a command that comes too late, when it does: of any, of a WRITE, WRITE_ZEROES or
  /// TRIM, and of a FLUSH.
  std::optional<Refusal> closed_refusal() const;
  std::optional<Refusal> change_refusal() const;
  std::optional<Refusal> flush_refusal() const;

  /// Memory that changes of parts of blocks may take at the device, those of all connections and of
  /// one. A change holds what it needs of both while the device works on it, never until its client
  /// reads: so a flood of small TRIMs is bounded, and delays the others by little (X4, X8).
  static constexpr uint64_t kChangeBytes = 16 << 20;
  static constexpr uint64_t kChangeBytesOfOne = 6 << 20;
  io::Semaphore& change_room() { return change_room_; }

  void enter(LiveConnection& connection);
  void leave(LiveConnection& connection);
  /// Runs `work` in the background; join() waits for it.
  void spawn(io::Task<void> work) { background_.spawn(std::move(work)); }

  /// Counts one thing that may still write, for seal(): a WRITE whose payload is arriving, a piece
  /// of one at the device, a WRITE_ZEROES, a TRIM.
  class WriteUnderWay {
   public:
    explicit WriteUnderWay(Export& of) : of_(&of) { ++of.writes_under_way_; }
    WriteUnderWay(WriteUnderWay&& other) noexcept : of_(std::exchange(other.of_, nullptr)) {}
    WriteUnderWay& operator=(WriteUnderWay&&) = delete;
    ~WriteUnderWay();

   private:
    Export* of_;
  };

 private:
  friend class ConnectionPlace;
  Export(ExportSpec spec, io::BlockDevice& device, io::Runtime home);

  void place_given_up();
  io::Task<void> commit_after_disconnect();
  io::Task<void> end_connections_at_close(io::Duration grace);
  /// Waits until `done()`, or for `patience`.
  template <class Done>
  io::Task<bool> wait_until(Done done, io::Duration patience);

  const ExportSpec spec_;
  io::BlockDevice& device_;
  const io::Runtime home_;
  const uint64_t size_;
  const uint32_t preferred_block_size_;
  const MetaContexts contexts_;
  mutable Counters counters_;

  mutable std::mutex places_mutex_;  // orders state changes against connect()
  std::atomic<ExportState> state_ = ExportState::open;
  uint32_t places_taken_ = 0;  // guarded by places_mutex_

  std::string closed_text_;
  struct Failure {
    std::exception_ptr cause;  // null: none yet
    Refusal refusal;
  } failure_;
  std::set<LiveConnection*> connections_;
  uint64_t writes_under_way_ = 0;
  struct Commit {
    bool running = false, again = false;
  } commit_;                      // after a client has left
  io::SteadyTime quiet_until_{};  // refused changes are logged once a minute
  io::Semaphore change_room_;
  io::Event changed_;  // woken when a connection or a write ends
  io::TaskScope background_;
};

}  // namespace nbd
