// SPDX-License-Identifier: Apache-2.0
#include "tests/api/mock_engine.h"

template class testing::NiceMock<api_tests::MockEngine>;

namespace api_tests {

MockEngine::MockEngine() = default;
MockEngine::~MockEngine() = default;

}  // namespace api_tests
