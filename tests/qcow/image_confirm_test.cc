// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <map>

#include "qcow/chain/layer.h"
#include "qcow/chain/sums_reader.h"
#include "qcow/check/check_content.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::kCluster;

/// Images that another writer goes on with, which knows the checksums of what the first one wrote.
class Confirmations : public qcow_test::ImageModel {
 protected:
  void open_telling(const std::string& name) {
    ImageOptions options;
    options.sums_path = file(name) + ".sums";
    options.on_sum = [this](GuestCluster cluster, const Sum* sum) {
      told_[cluster] = sum ? std::optional(*sum) : std::nullopt;
    };
    open(name, options);
  }

  /// Bytes of which no cluster is zero.
  void write_data(uint64_t clusters) {
    Bytes bytes(clusters * kCluster);
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::byte>(i / kCluster + i % 251 + 1);
    write(0, std::move(bytes));
  }

  std::vector<std::optional<Sum>> sums_of_first(uint64_t count) {
    std::vector<std::optional<Sum>> sums(count);
    for (const auto& [cluster, sum] : told_) sums.at(cluster.index) = sum;
    return sums;
  }

  /// Bytes of the sealed image that are not what its manifest says.
  uint64_t publish_and_compare(const std::string& name) {
    run(image_->seal());
    run(image_->publish_header(Sha256{std::byte{1}}, 1'700'000'000));
    close();
    const auto layer = run(Layer::open(runtime(), file(name), {}));
    const auto manifest = run(SumsReader::open(runtime().files, file(name) + ".sums"));
    const auto found = run(check_content(runtime(), *layer, *manifest, ContentOptions()));
    return found.damaged_bytes;
  }

  std::map<GuestCluster, std::optional<Sum>> told_;
};

TEST_F(Confirmations, TellWhatIsAsItWasWrittenFromWhatIsNotAndFromWhatIsNotStored) {
  create("a.qcow2", {.size = 1 << 20});
  open_telling("a.qcow2");
  write_data(5);
  zero(6 * kCluster, kCluster);
  flush();
  write(4 * kCluster + 100, Bytes(50, std::byte{9}));  // its checksum is not known any more
  close();
  const uint64_t rotten = qcow_test::host_of(file("a.qcow2"), 1);
  qcow_test::patch(file("a.qcow2"), rotten + 5, Bytes(1, model_[kCluster + 5] ^ std::byte{1}));

  const auto sums = sums_of_first(8);
  open_telling("a.qcow2");
  using enum Confirmed;
  const std::vector<Confirmed> wanted = {same,      different, same,    same,
                                         different, no_data,   no_data, no_data};
  EXPECT_EQ(run(image_->confirm({0}, sums)), wanted);
  EXPECT_EQ(publish_and_compare("a.qcow2"), 0u) << "what differed was read back";
}

TEST_F(Confirmations, KeepInTheManifestWhatWasSentNotWhatIsReadLater) {
  create("a.qcow2", {.size = 1 << 20});
  open_telling("a.qcow2");
  write_data(2);
  close();
  const auto sums = sums_of_first(2);
  open_telling("a.qcow2");
  ASSERT_EQ(run(image_->confirm({0}, sums)), std::vector<Confirmed>(2, Confirmed::same));
  // It rots between the look and the seal, which does not read it again.
  const uint64_t rotten = qcow_test::host_of(file("a.qcow2"), 0);
  qcow_test::patch(file("a.qcow2"), rotten, Bytes(1, model_[0] ^ std::byte{1}));
  EXPECT_EQ(publish_and_compare("a.qcow2"), kCluster);
}

}  // namespace
}  // namespace qcow
