// SPDX-License-Identifier: Apache-2.0
#include "nbd/export_source.h"

#include <algorithm>
#include <stdexcept>

#include "tests/nbd/handshake_fixture.h"

/// Exports that are opened when a client asks for them.
namespace nbd {
namespace {

/// Serves "vm/disk-0@<n>" for n below `count`, and "latest" as an alias of the last.
class Points final : public ExportSource {
 public:
  explicit Points(std::shared_ptr<Export> opened) : opened_(std::move(opened)) {}

  io::Task<std::shared_ptr<Export>> open(std::string name) override {
    ++asked_;
    if (name == "lost") throw std::runtime_error("open \"/srv/backups/a/base.qcow2\": Gone");
    if (name == "broken") throw std::runtime_error("base.qcow2: No such file");
    co_return name == opened_->name() || name == "latest" ? opened_ : nullptr;
  }
  io::Task<std::vector<OfferedExport>> list_after(std::string name, size_t count_max) override {
    std::vector<OfferedExport> page;
    for (const OfferedExport& offered : offered_) {
      if (offered.name > name && page.size() < count_max) page.push_back(offered);
    }
    co_return page;
  }

  std::vector<OfferedExport> offered_;
  int asked_ = 0;

 private:
  std::shared_ptr<Export> opened_;
};

class ExportSourceTest : public HandshakeTest {
 protected:
  ExportSourceTest() {
    opened_ = Export::make({.name = "vm/disk-0@b", .read_only = true}, device_, runtime());
    all_.push_back(opened_);
    points_ = std::make_unique<Points>(opened_);
  }
  void connect_to_points() { connect(Visibility::all(table_, {}, points_.get())); }

  std::shared_ptr<Export> opened_;
  std::unique_ptr<Points> points_;
};

TEST_F(ExportSourceTest, IsAskedForNamesThatTheTableHasNot) {
  connect_to_points();
  EXPECT_EQ(go("vm1-1-disk0").back().type, OptionReply::ack);
  EXPECT_EQ(negotiated().place.exported().name(), "vm1-1-disk0");
  EXPECT_EQ(points_->asked_, 0);
  connect_to_points();
  EXPECT_EQ(go("vm/disk-0@b").back().type, OptionReply::ack);
  EXPECT_EQ(&negotiated().place.exported(), opened_.get());
}

TEST_F(ExportSourceTest, AnAliasIsToldTheRealName) {
  connect_to_points();
  const auto answers = ask_all(Option::info, InfoRequest{"latest", {}}.encode());
  EXPECT_TRUE(std::ranges::any_of(answers, [](const OptionAnswer& answer) {
    return answer.type == OptionReply::info &&
           wire::to_text(answer.data).find("vm/disk-0@b") != std::string::npos;
  }));
  expect_alive();
}

TEST_F(ExportSourceTest, WhatItHasNotIsUnknownAndWhatItCannotOpenIsSaidWithTheCause) {
  connect_to_points();
  EXPECT_EQ(go("nobody").back().type, OptionReply::err_unknown);
  const auto answers = go("broken");
  EXPECT_EQ(answers.back().type, OptionReply::err_platform);
  EXPECT_EQ(wire::to_text(answers.back().data),
            "export \"broken\" could not be opened: base.qcow2: No such file");
  expect_alive();
}

TEST_F(ExportSourceTest, WhatItCannotOpenIsSaidWithoutThePathsOfTheHost) {
  connect_to_points();
  const auto answers = go("lost");
  EXPECT_EQ(answers.back().type, OptionReply::err_platform);
  EXPECT_EQ(wire::to_text(answers.back().data),
            "export \"lost\" could not be opened: open \"base.qcow2\": Gone");
  expect_alive();
}

TEST_F(ExportSourceTest, OpensNothingForAClientThatIsRefused) {
  admission_.connections_max = 0;
  connect_to_points();
  EXPECT_EQ(go("vm/disk-0@b").back().type, OptionReply::err_policy);
  EXPECT_EQ(points_->asked_, 0);
}

TEST_F(ExportSourceTest, ListShowsTheTableAndThenTheWholeSource) {
  for (int i = 0; i < 1000; ++i) {
    points_->offered_.push_back({"vm/disk-0@" + std::to_string(1000 + i), "a point"});
  }
  connect_to_points();
  const auto answers = ask_all(Option::list);
  EXPECT_EQ(answers.size(), 2 + 1000 + 1u);
  EXPECT_EQ(answers.back().type, OptionReply::ack);
}

TEST_F(ExportSourceTest, WhatIsNotForAClientIsNeitherListedNorOpened) {
  points_->offered_ = {{"a", "", ExportAccess::owner, "backup-a-1"},
                       {"b", "", ExportAccess::anybody, "backup-b-1"}};
  connect_to_points();
  EXPECT_EQ(ask_all(Option::list).size(), 3 + 1u) << "two of the table, and b";
  const auto hidden =
      Export::make({.name = "vm/disk-0@h", .access = ExportAccess::owner, .owner = "backup-h-1"},
                   device_, runtime());
  all_.push_back(hidden);
  points_ = std::make_unique<Points>(hidden);
  connect_to_points();
  EXPECT_EQ(go("vm/disk-0@h").back().type, OptionReply::err_unknown);
  connect(Visibility::all(table_, {}, points_.get()).seen_by("backup-h-1"));
  EXPECT_EQ(go("vm/disk-0@h").back().type, OptionReply::ack);
}

TEST_F(ExportSourceTest, APortOfOneExportAsksNoSource) {
  connect(Visibility::only(ingest_));
  EXPECT_EQ(go("vm/disk-0@b").back().type, OptionReply::err_unknown);
  EXPECT_EQ(points_->asked_, 0);
}

}  // namespace
}  // namespace nbd
