// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/operate/text.h"

/// Which members of the API's answers are shown, by name: how each is written, its schema in the
/// API says (api/schema.h).
namespace app {

struct Column {
  std::string_view member;  ///< "storage_info.used_percent" is one of a member
  std::string_view title;
  std::string_view missing = "-";  ///< stands for null, "" and what is left out
};

struct Selection {
  std::string_view
      schema;  ///< "": of no answer of the API; members are texts, times by their names
  std::vector<Column> columns;
};

// Tables.
extern const Selection kNewestPoints, kChainPoints, kVms, kVmDisks, kVmJobs, kRunningJobs,
    kBackupDisks, kPointDisks, kRepositories;
/// Of `varve token list`.
extern const Selection kTokens;
// Things shown one by one.
extern const Selection kHealth, kVm, kVmExpected, kBackup, kWarnings, kRepository, kRepositoryTest,
    kVerification, kPromotion;
/// What the progress of a backup is made of, in the order of ProgressMember.
extern const Selection kProgress;
/// What is done, and the whole.
extern const Selection kVerificationProgress, kPromotionProgress;

/// All that have a schema, so that a test can look every name up.
std::span<const Selection* const> all_selections();

/// The type of a member in its schema. Throws std::logic_error when there is none.
std::string_view type_of(const Selection& selection, const Column& column);
/// The member of an object, null when it is not there.
nlohmann::json member_of(const nlohmann::json& object, std::string_view path);

std::string cell_text(const Selection& selection, const Column& column,
                      const nlohmann::json& object, const Style& style);

}  // namespace app
