// SPDX-License-Identifier: Apache-2.0
#include "api_fixture.h"

/// /verifications.
namespace api_tests {
namespace {

using ::testing::Return;
using ::testing::Throw;

class Verifications : public ApiTest {};

TEST_F(Verifications, OfABackupBeginAndAreAnsweredAtOnce) {
  EXPECT_CALL(engine_, verify)
      .WillOnce([](const engine::NewVerification& request) {
        EXPECT_EQ(request.backup_id, "x");
        EXPECT_EQ(request.vm_name, "");
        EXPECT_EQ(request.skip_days, 7u);
        EXPECT_EQ(request.bytes_per_second, 1000u);
        return verification(engine::VerificationState::running);
      })
      .WillOnce([](const engine::NewVerification& request) {
        EXPECT_EQ(request.skip_days, 0u);
        return verification(engine::VerificationState::running);
      });
  const auto answer = post("/backups/x/verify", R"({"skip_days":7,"bytes_per_second":1000})");
  EXPECT_EQ(answer.status, 202);
  const Json body = Json::parse(answer.body);
  EXPECT_EQ(body["state"], "running");
  EXPECT_EQ(body["ended_at"], nullptr);
  EXPECT_EQ(post("/backups/x/verify", "").status, 202);
}

TEST_F(Verifications, OfAVmNameIt) {
  EXPECT_CALL(engine_, verify).WillOnce([](const engine::NewVerification& request) {
    EXPECT_EQ(request.vm_name, "web01");
    EXPECT_EQ(request.backup_id, "");
    return verification();
  });
  EXPECT_EQ(post("/verifications", R"({"vm_name":"web01"})").status, 202);
}

TEST_F(Verifications, SayWhatTheNewestPointLacks) {
  engine::WantedView lacks = wanted();
  lacks.disks[0].ranges.push_back({2097152, 131072, true, {}});
  lacks.disks[0].complete = false;
  EXPECT_CALL(engine_, wanted).WillOnce([&](const engine::WantedQuery& query) {
    EXPECT_EQ(query.vm, "a b");
    EXPECT_EQ(query.repository_id, "2");
    return lacks;
  });
  const Json body =
      Json::parse(request("GET", "/api/v1/vm-contexts/a%20b/wanted?repository_id=2").body);
  const Json& disk = body["disks"][0];
  EXPECT_EQ(disk["ranges"][0]["sums"], Json::parse(R"(["8d7e4c1fa0b23e965d11c0a7f4e29b38"])"));
  EXPECT_EQ(disk["ranges"][1], Json::parse(R"({"offset":2097152,"length":131072,"zero":true})"));
  EXPECT_EQ(disk["bytes"], 196608);
  EXPECT_EQ(body["bytes"], 196608);
  EXPECT_EQ(body["complete"], false);
  EXPECT_EQ(body["damaged_images"][0]["damaged_backups"],
            Json::parse(R"(["backup-pgtest1-1759913694"])"));
}

TEST_F(Verifications, OfWhatAnUnknownVmLacksIsNotFound) {
  EXPECT_CALL(engine_, wanted).WillOnce(Throw(engine::refusals::vm_context_not_found("x")));
  EXPECT_EQ(request("GET", "/api/v1/vm-contexts/x/wanted").status, 404);
}

TEST_F(Verifications, NameTheirReaders) {
  const auto expect = [this](const char* body, bool by_varve, bool by_libqcow) {
    EXPECT_CALL(engine_, verify).WillOnce([=](const engine::NewVerification& request) {
      EXPECT_EQ(request.by_varve, by_varve) << body;
      EXPECT_EQ(request.by_libqcow, by_libqcow) << body;
      return verification();
    });
    EXPECT_EQ(post("/verifications", body).status, 202) << body;
  };
  expect("", true, true);
  expect(R"({"readers":null})", true, true);
  expect(R"({"readers":["varve"]})", true, false);
  expect(R"({"readers":["libqcow"]})", false, true);
  expect(R"({"readers":["libqcow","varve"]})", true, true);
}

TEST_F(Verifications, SayWhatShareTheSecondReaderCovered) {
  EXPECT_CALL(engine_, verification("v")).WillOnce(Return(verification()));
  const Json images = Json::parse(request("GET", "/api/v1/verifications/v").body)["images"];
  EXPECT_EQ(images[0]["second_reader"]["reader"], "libqcow");
  EXPECT_EQ(images[0]["second_reader"]["damaged"][0]["offset"], 1048576);
  EXPECT_FALSE(images[0]["second_reader"].contains("problem"));
  EXPECT_EQ(images[1]["second_reader"]["covered_bytes"], 2097152);
  EXPECT_NE(images[1]["second_reader"]["problem"], "");
}

TEST_F(Verifications, SayWhatIsDamagedAndWhoReadsIt) {
  EXPECT_CALL(engine_, verification("v")).WillOnce(Return(verification()));
  const auto answer = request("GET", "/api/v1/verifications/v");
  const Json body = Json::parse(answer.body);
  EXPECT_EQ(body["damaged_backups"].size(), 2u);
  EXPECT_EQ(body["images"][0]["result"], "damaged");
  EXPECT_EQ(body["images"][0]["damaged"][0]["offset"], 1048576);
  EXPECT_EQ(body["images"][1]["result"], "sound");
}

TEST_F(Verifications, WhatCannotBeRightIsRefused) {
  for (const char* const body :
       {R"({"skip_days":-1})", R"({"skip_days":"7"})", R"({"skip_days":36501})",
        R"({"bytes_per_second":-1})", "[]", R"({"readers":[]})", R"({"readers":["qemu"]})",
        R"({"readers":"varve"})", R"({"readers":[1]})"}) {
    expect_problem(post("/backups/x/verify", body), 400, "invalid request body", "invalid_body");
    expect_problem(post("/verifications", body), 400, "invalid request body", "invalid_body");
  }
  EXPECT_CALL(engine_, verify).WillOnce(Throw(engine::refusals::verification_is_running("v")));
  expect_problem(post("/verifications", ""), 409, "a verification is running",
                 "verification_is_running");
  EXPECT_CALL(engine_, verification("v"))
      .WillOnce(Throw(engine::refusals::verification_not_found("v")));
  expect_problem(request("GET", "/api/v1/verifications/v"), 404, "verification not found",
                 "verification_not_found");
}

}  // namespace
}  // namespace api_tests
