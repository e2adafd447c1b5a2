// SPDX-License-Identifier: Apache-2.0
#include "tests/engine/catalogue_fixture.h"

namespace engine {
namespace {

class CatalogueSamples : public CatalogueTest {
 protected:
  CatalogueSamples() : job_(start(add_vm("a"), BackupType::full)) {}
  void add(uint64_t seconds, uint64_t speed) {
    catalogue().samples.add(job_.id, {seconds, speed, 1.5, "transferring", SampleSource::client});
  }
  Job job_;
};

TEST_F(CatalogueSamples, ASampleComesBack) {
  add(5, 100);
  catalogue().samples.add(job_.id, {10, 300, 2, "finalizing", SampleSource::server});
  const SampleHistory history = catalogue().samples.history(job_.id);
  ASSERT_EQ(history.samples.size(), 2u);
  EXPECT_EQ(history.samples[0],
            (ProgressSample{5, 100, 1.5, "transferring", SampleSource::client}));
  EXPECT_EQ(history.samples[1], (ProgressSample{10, 300, 2, "finalizing", SampleSource::server}));
  EXPECT_FALSE(history.halved);
  EXPECT_EQ(history.recorded, 2u);
  EXPECT_EQ(history.peak_bps, 300u);
  EXPECT_EQ(history.average_bps, 200u);
  EXPECT_EQ(history.minimum_bps, 100u);
  ASSERT_EQ(catalogue().samples.history(job_.id, 1).samples.size(), 1u);
  EXPECT_EQ(catalogue().samples.history(job_.id, 1).samples[0].seconds, 10u);
  EXPECT_TRUE(catalogue().samples.history("nobody").samples.empty());
}

TEST_F(CatalogueSamples, AtMost720AreKeptAtAnEvenDensity) {
  for (uint64_t i = 0; i < 2500; ++i) {
    add(5 * i, i == 1234 ? 999999 : 1000);
    if (i == 719) {
      EXPECT_EQ(catalogue().samples.history(job_.id).samples.size(), 720u);
    }
  }
  const SampleHistory history = catalogue().samples.history(job_.id);
  EXPECT_LE(history.samples.size(), SampleCatalogue::kSamplesMax);
  EXPECT_GE(history.samples.size(), SampleCatalogue::kSamplesMax / 2 - 1);
  EXPECT_TRUE(history.halved);
  EXPECT_EQ(history.samples.front().seconds, 0u) << "the oldest stays";
  EXPECT_EQ(history.recorded, 2500u);
  EXPECT_EQ(history.peak_bps, 999999u) << "also when its sample is gone";
  uint64_t widest = 0, closest = UINT64_MAX;
  for (size_t i = 1; i < history.samples.size(); ++i) {
    const uint64_t step = history.samples[i].seconds - history.samples[i - 1].seconds;
    widest = std::max(widest, step);
    closest = std::min(closest, step);
  }
  EXPECT_LE(widest, 2 * closest);
}

}  // namespace
}  // namespace engine
