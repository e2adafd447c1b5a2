// SPDX-License-Identifier: Apache-2.0
#include "engine/care/lasting_damage.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "engine/values/layout.h"
#include "tests/qcow/image_model.h"

/// Which points read what is damaged below them, and what should be there.
namespace engine {
namespace {

using qcow_test::kCluster;
using Ranges = std::vector<ClusterRange>;

/// The clusters of a full and of two images on it; cluster 0 of the full holds data nowhere else.
class LastingDamages : public qcow_test::ImageModel {
 protected:
  static constexpr uint64_t kBytes = 64 * kCluster;

  void SetUp() override {
    ImageModel::SetUp();
    publish("a.qcow2", "", [this] { write_random(0, 32 * kCluster); });
    publish("b.qcow2", "a.qcow2", [this] {
      write_random(4 * kCluster, 4 * kCluster);
      zero(10 * kCluster, 2 * kCluster);
    });
    publish("c.qcow2", "b.qcow2", [this] { write_random(6 * kCluster, kCluster); });
  }

  template <class Writes>
  void publish(const std::string& name, const std::string& parent, Writes writes) {
    create(name, {.size = kBytes, .parent = parent});
    qcow::ImageOptions options;
    options.sums_path = sums_path(file(name));
    open(name, options);
    writes();
    run(image_->seal());
    run(image_->publish_header(qcow::Sha256{std::byte{1}}, 1'700'000'000));
    close();
  }

  LastingDamage found(Ranges a, Ranges b, Ranges c, uint64_t clusters_max = 1000) {
    std::vector<ProvenImage> chain = {{file("a.qcow2"), std::move(a)},
                                      {file("b.qcow2"), std::move(b)},
                                      {file("c.qcow2"), std::move(c)}};
    return run(lasting_damage(runtime(), std::move(chain), clusters_max));
  }

  qcow::Sum sum_at(uint64_t cluster) const {
    return qcow::sum_of(std::span(model_).subspan(cluster * kCluster, kCluster));
  }
};

TEST_F(LastingDamages, OfWhatNewerImagesStoreOrZeroIsGoneInThem) {
  const LastingDamage damage = found({{3, 6}, {10, 13}}, {{6, 7}}, {});
  EXPECT_EQ(damage.newest, (Ranges{{3, 4}, {12, 13}}));
  EXPECT_EQ(damage.healed_at, (std::vector<size_t>{3, 2, 3}));
  EXPECT_EQ(found({{4, 7}, {10, 12}}, {}, {}).healed_at.front(), 1u);
  EXPECT_TRUE(found({{4, 7}, {10, 12}}, {}, {}).newest.empty());
}

TEST_F(LastingDamages, AreFollowedByWhatWasSentAsTheNewestImageThatHoldsItSays) {
  const LastingDamage damage = found({{3, 4}}, {{4, 5}, {10, 11}}, {{6, 7}, {40, 41}});
  ASSERT_EQ(damage.lost.size(), 4u);
  EXPECT_EQ(damage.lost[0].clusters, (ClusterRange{3, 5}));
  EXPECT_EQ(damage.lost[0].sums, (std::vector<qcow::Sum>{sum_at(3), sum_at(4)}));
  EXPECT_EQ(damage.lost[1].clusters, (ClusterRange{6, 7}));
  EXPECT_EQ(damage.lost[1].sums, (std::vector<qcow::Sum>{sum_at(6)}));
  EXPECT_TRUE(damage.lost[2].zero);
  EXPECT_EQ(damage.lost[2].clusters, (ClusterRange{10, 11}));
  // Nobody has ever written to it, and an entry of the newest image says otherwise.
  EXPECT_EQ(damage.lost[3].clusters, (ClusterRange{40, 41}));
  EXPECT_TRUE(damage.lost[3].zero);
}

TEST_F(LastingDamages, OverImagesWithoutAManifestAreFoundByTheirTables) {
  std::filesystem::remove(sums_path(file("b.qcow2")));
  const LastingDamage damage = found({{3, 6}, {10, 13}}, {{7, 8}}, {});
  EXPECT_EQ(damage.newest, (Ranges{{3, 4}, {7, 8}, {12, 13}}));
  ASSERT_EQ(damage.lost.size(), 3u);
  EXPECT_EQ(damage.lost[0].sums, (std::vector<qcow::Sum>{sum_at(3)}));
  EXPECT_TRUE(damage.lost[1].sums.empty());
  EXPECT_FALSE(damage.lost[1].zero);
}

TEST_F(LastingDamages, AreNamedUpToAsManyClustersAsAreAskedFor) {
  const LastingDamage damage = found({{0, 3}, {20, 24}}, {}, {}, 5);
  EXPECT_EQ(damage.newest, (Ranges{{0, 3}, {20, 24}}));
  EXPECT_TRUE(damage.truncated);
  ASSERT_EQ(damage.lost.size(), 2u);
  EXPECT_EQ(damage.lost[1].clusters, (ClusterRange{20, 22}));
  EXPECT_FALSE(found({{0, 3}, {20, 24}}, {}, {}, 7).truncated);
  EXPECT_TRUE(found({{0, 3}}, {}, {}, 0).lost.empty());
}

TEST(ClusterRanges, AreJoinedWhereTheyMeetAndCutWhereOthersAre) {
  EXPECT_EQ(joined({{5, 7}, {1, 2}, {2, 4}, {6, 9}, {9, 9}}), (Ranges{{1, 4}, {5, 9}}));
  EXPECT_EQ(without({{1, 4}, {5, 9}}, {{0, 2}, {3, 6}, {8, 20}}), (Ranges{{2, 3}, {6, 8}}));
  EXPECT_EQ(without({{1, 9}}, {{3, 4}, {3, 5}}), (Ranges{{1, 3}, {5, 9}}));
  EXPECT_EQ(without({{1, 9}}, {}), (Ranges{{1, 9}}));
  EXPECT_TRUE(without({{1, 9}}, {{0, 9}}).empty());
}

}  // namespace
}  // namespace engine
