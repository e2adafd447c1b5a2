// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/stream.h"
#include "io/task.h"
#include "nbd/inbox.h"
#include "nbd/options.h"
#include "nbd/replies.h"

namespace nbd {

/// The client's side of the fixed newstyle handshake, one option after the other.
///
/// An option that the server refuses throws ProtocolError with the server's text and reply type; so
/// does a server that breaks the protocol. Belongs to the stream's thread; one call at a time.
class ClientHandshake {
 public:
  ClientHandshake(io::Stream& stream, Inbox& inbox) : stream_(stream), inbox_(inbox) {}

  /// Reads the greeting and answers it. First.
  io::Task<void> greet();

  /// False when the server does not know the option.
  io::Task<bool> ask_for(Option option);
  io::Task<std::vector<ListedExport>> list();
  /// The contexts of an export that `queries` select (SET) or match (LIST; none: all).
  io::Task<std::vector<OfferedContext>> contexts(Option option, std::string export_name,
                                                 std::vector<std::string> queries);
  /// INFO, or GO: then the transmission phase begins.
  io::Task<ExportInfo> info(Option option, std::string export_name);
  /// ABORT, and the end of the stream.
  io::Task<void> abort();

 private:
  using Data = std::vector<Bytes>;
  /// The data of all replies but the final one, which are of type `expected`.
  io::Task<Data> ask(Option option, Bytes data, OptionReply expected);

  io::Stream& stream_;
  Inbox& inbox_;
};

}  // namespace nbd
