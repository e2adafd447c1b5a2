// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/support/ring_faults.h"
#include "tests/support/ring_fixture.h"

namespace support {

/// A test on a real ring whose file operations ask faults_ first.
class RingFaultTest : public RingTest {
 protected:
  RingFaultTest() { set_ring_faults(&faults_); }
  ~RingFaultTest() override { set_ring_faults(nullptr); }

  RingFaults faults_;
};

}  // namespace support
