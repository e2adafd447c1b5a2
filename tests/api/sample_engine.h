// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mock_engine.h"

namespace api_tests {

/// Makes every method answer with the samples; ids with "backup-x-" in them are unknown.
void answer_with_samples(::testing::NiceMock<MockEngine>& engine);

}  // namespace api_tests
