// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <utility>

#include "io/ring_thread.h"

namespace support {

/// A test on a real ring, on the test's own thread.
class RingTest : public ::testing::Test {
 protected:
  io::Ring& ring() { return parts_.ring(); }
  io::Runtime runtime() { return parts_.runtime(); }

  /// Turns the ring until the task has ended; returns its result or throws its failure.
  template <class T>
  T run(io::Task<T> task) {
    return parts_.ring().run(std::move(task));
  }

 private:
  io::RingRuntime parts_;
};

}  // namespace support
