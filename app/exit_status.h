#pragma once

namespace app {

/// How a command has ended, where one word for all failures would not do: the clients of a server.
enum ExitStatus : int {
  kFailed = 1,
  kWrongUsage = 2,
  kRefused = 3,       ///< what is there already, or under way, forbids it
  kNotFound = 4,      ///< no such VM, disk, point or repository
  kDamaged = 5,       ///< something is not what was sent
  kInterrupted = 128  ///< and the signal's number
};

}  // namespace app
