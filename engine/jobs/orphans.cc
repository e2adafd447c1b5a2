// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <map>
#include <set>

#include "engine/jobs/recovery.h"
#include "engine/repository/marker.h"
#include "engine/repository/storage.h"
#include "engine/values/layout.h"
#include "io/counted.h"
#include "io/log.h"

namespace engine {
namespace {

using Owners = std::map<std::string, KnownImage>;  // by final path

constexpr std::string_view kTemporary = io::kTemporarySuffix;
constexpr size_t kNamedAtMost = 5;

/// Whether the name is one of io::temporary_path's, or of earlier versions, which gave them no
/// digits: anything else that ends so is a user's file.
bool is_temporary(std::string_view name) {
  constexpr size_t kDigits = 16;
  if (!name.ends_with(kTemporary)) return false;
  name.remove_suffix(kTemporary.size());
  const bool is_chain_file = name.ends_with(fmt::format("/{}", kChainFileName));
  if (is_chain_file || name.ends_with(kSidecarEnding) || name == kVmFileName) return true;
  if (name.size() <= kDigits || name[name.size() - kDigits - 1] != '.') return false;
  return name.substr(name.size() - kDigits).find_first_not_of("0123456789abcdef") ==
         std::string_view::npos;
}

/// A manifest, or a last proof, belongs to the image of its name, whoever made that. Without an
/// image it is kept for a point, whose image may come back, and for a job that has yet to be
/// published.
bool is_without_image(const Owners& owners, const std::string& image, bool has_image) {
  if (has_image) return false;
  const auto owner = owners.find(image);
  return owner == owners.end() || (owner->second.job_state != JobState::finalizing &&
                                   owner->second.job_state != JobState::completed);
}

/// Whether a file of a disk's directory, with these `names`, is left over. Nothing is being filled
/// during recovery, but a decided job that is held up needs its images, and a failed one may be
/// resumed. Images that no row knows
/// are left where they are: they may be all that is left of a lost catalogue.
bool is_orphan(const Owners& owners, const std::set<std::string>& names, const std::string& path) {
  if (is_temporary(path)) return true;
  for (const std::string_view ending : {kSumsEnding, kProofEnding}) {
    if (!path.ends_with(ending)) continue;
    const std::string image = path.substr(0, path.size() - ending.size() + kImageEnding.size());
    return is_without_image(owners, image, names.contains(image.substr(image.rfind('/') + 1)));
  }
  const bool is_note = path.ends_with(kArrivedEnding);
  if (!is_note && !path.ends_with(kPartialEnding)) return false;
  const size_t ending = is_note ? kArrivedEnding.size() : kPartialEnding.size();
  const auto owner = owners.find(image_file_name(path.substr(0, path.size() - ending)));
  if (owner == owners.end()) return true;
  if (owner->second.kept) return false;
  return is_note || owner->second.job_state != JobState::finalizing;
}

/// Other people's links stay, whether they lead anywhere or not.
bool is_unfinished_link(const io::DirectoryEntry& entry) {
  return entry.kind == io::FileKind::symlink && is_temporary(entry.name) &&
         (entry.name.starts_with(kLatestLinkName) ||
          entry.name.find("-disk-") != std::string::npos);
}

class Sweep {
 public:
  Sweep(Core& core, const Repository& repository, Owners owners)
      : core_(core),
        files_(core.files()),
        root_(repository.directory),
        repository_id_(repository.id),
        owners_(std::move(owners)) {}

  io::Task<void> run() {
    const auto entries = co_await files_.list(root_);
    for (const io::DirectoryEntry& entry : entries) {
      const std::string path = root_ + "/" + entry.name;
      if (entry.kind == io::FileKind::directory && entry.name.starts_with(kContextPrefix)) {
        co_await sweep_vm(path);
      } else if (entry.name.starts_with(kTrialPrefix) || is_unfinished_link(entry) ||
                 (entry.name.starts_with(kMarkerName) && entry.name.ends_with(kTemporary))) {
        co_await take_away(path);  // a link too
      }
    }
    advise_on_unknown();
    co_await report_missing();
  }

 private:
  io::Task<void> sweep_vm(std::string directory) {
    const auto entries = co_await files_.list(directory);
    for (const io::DirectoryEntry& entry : entries) {
      const std::string path = directory + "/" + entry.name;
      if (entry.kind == io::FileKind::directory && entry.name.starts_with(kDiskPrefix)) {
        co_await sweep_disk(path);
      } else if (entry.kind == io::FileKind::file && is_temporary(entry.name)) {
        co_await take_away(path);
      }
    }
  }

  io::Task<void> sweep_disk(std::string directory) {
    const auto entries = co_await files_.list(directory);
    std::set<std::string> names;
    for (const io::DirectoryEntry& entry : entries) names.insert(entry.name);
    bool removed = false;
    for (const io::DirectoryEntry& entry : entries) {
      const std::string path = directory + "/" + entry.name;
      if (entry.kind != io::FileKind::file && !is_unfinished_link(entry)) continue;
      if (is_orphan(owners_, names, path)) {
        co_await take_away(path);
        removed = true;
      } else if (path.ends_with(kImageEnding) && !owners_.contains(path)) {
        report_unknown(path);
      }
    }
    if (removed) co_await files_.sync_directory(directory);
  }

  /// After the loss of a catalogue that is every image there is: the first few stand for all.
  void report_unknown(const std::string& path) {
    if (++unknown_ > kNamedAtMost) return;
    io::log(io::LogLevel::warning, "{} is unknown to the catalogue and is left alone", path);
  }

  void advise_on_unknown() const {
    if (unknown_ == 0) return;
    io::log(io::LogLevel::warning,
            "{} of {} unknown to the catalogue; if a catalogue was lost, bring them back "
            "before the next backup: stop varve and run 'varve rebuild --repository {} "
            "--repository-id {} --catalogue {}'",
            io::counted(unknown_, "image"), root_ + (unknown_ == 1 ? " is" : " are"), root_,
            repository_id_, core_.options.catalogue_path);
  }

  io::Task<void> take_away(std::string path) {
    if (core_.options.failed_images == FailedImages::quarantine && path.ends_with(kPartialEnding)) {
      const std::string directory = quarantine_directory(root_, "strays");
      co_await files_.make_directories(directory);
      const std::string to = directory + path.substr(path.rfind('/'));
      co_await files_.rename(path, to, true);
      io::log(io::LogLevel::warning, "{} belongs to no running backup and was moved to {}", path,
              to);
    } else {
      co_await files_.remove(path);
      io::log(io::LogLevel::warning, "{} belongs to no backup and was removed", path);
    }
  }

  io::Task<void> report_missing() {
    for (const auto& [path, image] : owners_) {
      if (image.job_state != JobState::completed || image.deleting) continue;
      const auto status = co_await files_.status(path);
      if (!status) {
        io::log(io::LogLevel::error, "{} of backup {} is missing", path, image.job_id);
      }
    }
  }

  Core& core_;
  io::FileSystem& files_;
  const std::string root_, repository_id_;
  const Owners owners_;
  size_t unknown_ = 0;  // images that no row names
};

}  // namespace

io::Task<void> remove_orphans(Core& core, Repository repository) {
  Owners owners;
  for (KnownImage& image : core.catalogue->jobs.known_images(repository.id)) {
    std::string path = image.image_path;
    owners.emplace(std::move(path), std::move(image));
  }
  Sweep sweep(core, repository, std::move(owners));
  co_await sweep.run();
}

}  // namespace engine
