// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "qcow/chain/sums_reader.h"
#include "qcow/check/check_chain.h"
#include "qcow/check/check_content.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

constexpr std::array<uint32_t, 6> kClusterBits = {12, 13, 14, 15, 16, 21};

int chain_count() { return std::getenv("VARVE_LONG") != nullptr ? 1000 : 40; }

/// Chains as backups make them, of any shape: each layer with its manifest, sealed and published.
class RandomChains : public qcow_test::ImageModel {
 protected:
  static std::string layer_name(int chain, int layer) {
    return "c" + std::to_string(chain) + "-" + std::to_string(layer) + ".qcow2";
  }

  /// Half of the disks end inside a cluster, some inside a sector; they hold at most a few
  /// clusters of 2 MiB, or a few hundred of 4 KiB.
  uint64_t random_size(uint32_t cluster_bits) {
    const uint64_t largest = std::clamp<uint64_t>(uint64_t{200} << cluster_bits, 1 << 20, 6 << 20);
    const uint64_t size = 4096 + random_below(largest);
    switch (random_below(4)) {
      case 0:
        return size;
      case 1:
        return size / 512 * 512;
      default:
        return (size / 65536 + 1) * 65536;
    }
  }

  /// The disk of an incremental: as its parent's, or grown.
  void make_layer(int chain, int layer, uint64_t size, uint32_t cluster_bits) {
    const std::string name = layer_name(chain, layer);
    CreateOptions made{.virtual_size = size, .cluster_bits = cluster_bits};
    made.image_uuid[0] = static_cast<std::byte>(layer + 1);
    if (layer > 0) {
      const auto& below = header(layer_name(chain, layer - 1)).record;
      made.parent = NewParent{.name = layer_name(chain, layer - 1),
                              .uuid = below->image_uuid,
                              .manifest_hash = below->manifest_hash};
    } else {
      model_.clear();
    }
    run(qcow::create(runtime(), file(name), made));
    model_.resize(size);
    ImageOptions options;
    options.sums_path = file(name + ".sums");
    open(name, options);
    const uint64_t alignment = random_below(3) == 0 ? 1 : 512;
    random_operations(static_cast<int>(random_below(25)), alignment);
    if (random_below(4) == 0) random_concurrent_writes(20, alignment);
    run(image_->seal());
    Sha256 hash{};
    hash[0] = static_cast<std::byte>(layer + 1);
    run(image_->publish_header(hash, 1'700'000'000));
    close();
  }

  void expect_as_sent(const std::string& name) {
    const auto image = run(Layer::open(runtime(), file(name), {}));
    const auto sums = run(SumsReader::open(runtime().files, file(name + ".sums")));
    const ContentResult found = run(check_content(runtime(), *image, *sums, {}));
    EXPECT_EQ(found.damaged_bytes, 0u) << name;
    for (const DamagedRange& range : found.damaged) {
      ADD_FAILURE() << name << " byte " << range.offset << ": " << range.what;
    }
    compared_bytes_ += found.data_bytes + found.zero_bytes;
  }

  void expect_sound_chain(const std::string& name, int layers) {
    const ChainReport report = run(check_chain(runtime(), file(name), {}));
    EXPECT_EQ(report.images.size(), static_cast<size_t>(layers)) << name;
    for (const ImageReport& image : report.images) {
      EXPECT_EQ(image.refusal, "") << image.path;
      EXPECT_EQ(image.tables.findings, std::vector<std::string>()) << image.path;
      EXPECT_EQ(image.problems, std::vector<std::string>()) << image.path;
    }
    EXPECT_EQ(report.verdict(), Verdict::clean) << name;
  }

  uint64_t compared_bytes_ = 0;
};

TEST_F(RandomChains, ThatAreHealthyAreNeverCalledDamaged) {
  for (int chain = 0; chain < chain_count() && !HasFailure(); ++chain) {
    const uint32_t cluster_bits = kClusterBits.at(random_below(kClusterBits.size()));
    const int layers = 1 + static_cast<int>(random_below(4));
    uint64_t size = random_size(cluster_bits);
    for (int layer = 0; layer < layers; ++layer) {
      if (layer > 0 && random_below(4) == 0) size += random_below(1 << 20);
      make_layer(chain, layer, size, cluster_bits);
    }
    const std::string top = layer_name(chain, layers - 1);
    expect_sound_chain(top, layers);
    EXPECT_EQ(varve_content(top), model_) << top;
    // Each one again, with all that has come to stand on it.
    for (int layer = 0; layer < layers; ++layer) {
      expect_as_sent(layer_name(chain, layer));
      std::remove(file(layer_name(chain, layer)).c_str());
      std::remove(file(layer_name(chain, layer) + ".sums").c_str());
    }
    if (HasFailure()) ADD_FAILURE() << "chain " << chain << ", clusters of 2^" << cluster_bits;
  }
  EXPECT_GT(compared_bytes_, uint64_t{1} << 20) << "the chains hold something";
}

}  // namespace
}  // namespace qcow
