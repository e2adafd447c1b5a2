#include "engine/values/types.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>

namespace engine {
namespace {

using std::string_view;

/// The words of an enumeration, in the order of its enumerators.
constexpr std::array<string_view, 6> kJobStates = {"preparing", "running", "finalizing",
                                                   "completed", "failed",  "cancelled"};
constexpr std::array<string_view, 6> kDiskStates = {"pending", "transferring", "sealing",
                                                    "sealed",  "completed",    "failed"};
constexpr std::array<string_view, 5> kShownStatuses = {"pending", "running", "completed", "failed",
                                                       "cancelled"};
constexpr std::array<string_view, 3> kBackupTypes = {"full", "incremental", "differential"};
constexpr std::array<string_view, 4> kRepositoryTypes = {"local", "nfs", "cifs", "smb"};
constexpr std::array<string_view, 7> kWarningCodes = {
    "sampled_zeroes",     "full_not_covered", "change_tracking_reset",
    "change_id_unusable", "disk_added",       "disk_shrunk",
    "long_chain"};
constexpr std::array<string_view, 2> kSampleSources = {"client", "server"};
constexpr std::array<string_view, 3> kCredentialsKinds = {"none", "reference", "inline"};

template <typename Enum, size_t N>
std::optional<Enum> find_word(const std::array<string_view, N>& words, string_view text) {
  const auto found = std::find(words.begin(), words.end(), text);
  if (found == words.end()) return std::nullopt;
  return static_cast<Enum>(std::distance(words.begin(), found));
}

template <typename Enum, size_t N>
string_view word(const std::array<string_view, N>& words, Enum value) {
  return words.at(static_cast<size_t>(value));
}

}  // namespace

string_view to_text(JobState state) { return word(kJobStates, state); }
string_view to_text(DiskState state) { return word(kDiskStates, state); }
string_view to_text(ShownStatus status) { return word(kShownStatuses, status); }
string_view to_text(BackupType type) { return word(kBackupTypes, type); }
string_view to_text(RepositoryType type) { return word(kRepositoryTypes, type); }
string_view to_text(WarningCode code) { return word(kWarningCodes, code); }
string_view to_text(SampleSource source) { return word(kSampleSources, source); }
string_view to_text(CredentialsRef::Kind kind) { return word(kCredentialsKinds, kind); }

template <>
std::optional<JobState> from_text(string_view text) {
  return find_word<JobState>(kJobStates, text);
}
template <>
std::optional<DiskState> from_text(string_view text) {
  return find_word<DiskState>(kDiskStates, text);
}
template <>
std::optional<ShownStatus> from_text(string_view text) {
  return find_word<ShownStatus>(kShownStatuses, text);
}
template <>
std::optional<BackupType> from_text(string_view text) {
  return find_word<BackupType>(kBackupTypes, text);
}
template <>
std::optional<RepositoryType> from_text(string_view text) {
  return find_word<RepositoryType>(kRepositoryTypes, text);
}
template <>
std::optional<WarningCode> from_text(string_view text) {
  return find_word<WarningCode>(kWarningCodes, text);
}
template <>
std::optional<SampleSource> from_text(string_view text) {
  return find_word<SampleSource>(kSampleSources, text);
}
template <>
std::optional<CredentialsRef::Kind> from_text(string_view text) {
  return find_word<CredentialsRef::Kind>(kCredentialsKinds, text);
}

ShownStatus shown_status(JobState state) {
  static constexpr std::array<ShownStatus, 6> kShown = {
      ShownStatus::pending,   ShownStatus::running, ShownStatus::running,
      ShownStatus::completed, ShownStatus::failed,  ShownStatus::cancelled};
  return kShown.at(static_cast<size_t>(state));
}

ShownStatus shown_status(DiskState state) {
  static constexpr std::array<ShownStatus, 6> kShown = {
      ShownStatus::pending,   ShownStatus::running,   ShownStatus::running,
      ShownStatus::completed, ShownStatus::completed, ShownStatus::failed};
  return kShown.at(static_cast<size_t>(state));
}

bool is_active(JobState state) {
  return state == JobState::preparing || state == JobState::running ||
         state == JobState::finalizing;
}

bool is_sealed(DiskState state) {
  return state == DiskState::sealed || state == DiskState::completed;
}

bool change_id_is_usable(string_view change_id) {
  return std::count(change_id.begin(), change_id.end(), '/') == 1;
}

string_view change_id_uuid(string_view change_id) {
  return change_id.substr(0, change_id.find('/'));
}

std::string vmware_disk_id(uint32_t key) { return "disk-" + std::to_string(key); }

std::optional<uint32_t> vmware_disk_key(string_view disk_id) {
  static constexpr string_view kPrefix = "disk-";
  static constexpr size_t kDigitsMax = 9;
  if (!disk_id.starts_with(kPrefix)) return std::nullopt;
  const string_view digits = disk_id.substr(kPrefix.size());
  if (digits.empty() || digits.size() > kDigitsMax) return std::nullopt;
  uint32_t key = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), key);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return key;
}

string_view inventory_name(string_view vm_path) {
  return vm_path.substr(vm_path.find_last_of('/') + 1);
}

}  // namespace engine
