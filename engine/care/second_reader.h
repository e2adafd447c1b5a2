// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/values/types.h"
#include "io/runtime.h"
#include "io/stream.h"
#include "qcow/chain/layer.h"
#include "qcow/chain/sums_reader.h"

/// The content of an image read again by libqcow, which shares no code with qcow/.
///
/// The packaged library loops, crashes and reads wrongly where it must not be used, so it runs in a
/// process of its own and is asked only for what it reads right: stored clusters of one image that
/// stands alone, one cluster at a time. Spec: docs/verify.md and docs/qcow2-rules.md, LQ1 to LQ14.
namespace engine {

/// A process that reads one image and speaks reader_lines.h. Of the thread that started it.
class ReaderProcess {
 public:
  virtual ~ReaderProcess() = default;
  virtual io::Stream& stream() = 0;
  virtual void kill() noexcept = 0;  ///< ends the stream as well; does not wait
  /// Waits until it has ended. Says how: "was killed by signal 9".
  virtual io::Task<std::string> ended() = 0;
};

/// Starts them.
class ReaderProcesses {
 public:
  virtual ~ReaderProcesses() = default;
  /// On the thread of `executor`. Throws std::system_error.
  virtual std::unique_ptr<ReaderProcess> start(io::Executor& executor,
                                               const std::string& image_path,
                                               uint64_t cluster_bytes) = 0;
};

struct SecondReaderOptions {
  ReaderProcesses* processes = nullptr;              ///< none: this varve has no second reader
  io::Duration patience = std::chrono::seconds(30);  ///< for an answer
  size_t damages_max = 100;                          ///< ranges kept; all bytes are counted
  /// Looked at several times a second: true ends the process.
  std::function<bool()> is_cancelled;
  /// Called with the bytes that were read since the last call; may wait, and may throw.
  std::function<io::Task<void>(uint64_t bytes)> on_progress;
};

/// Asks a second reader for every cluster that the manifest names as stored, and compares. Whatever
/// becomes of the process is a sentence in the answer, and no damage; damage is what it read and
/// what is not the same. Throws what `on_progress` and reading the manifest throw. On a data
/// thread.
io::Task<SecondReading> read_second(io::Runtime data, const qcow::Layer& image,
                                    qcow::SumsReader& sums, SecondReaderOptions options);

}  // namespace engine
