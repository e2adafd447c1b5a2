// SPDX-License-Identifier: Apache-2.0
#include "nbd/export_table.h"

#include <cerrno>
#include <mutex>

#include "io/failure.h"

namespace nbd {

void ExportTable::add(std::shared_ptr<Export> exported) {
  const std::unique_lock lock(mutex_);
  const std::string name = exported->name();
  if (aliases_.contains(name) || !exports_.try_emplace(name, std::move(exported)).second) {
    throw io::failure("add export", name, EEXIST);
  }
}

void ExportTable::add_alias(std::string alias, std::shared_ptr<Export> exported) {
  const std::unique_lock lock(mutex_);
  if (exports_.contains(alias)) throw io::failure("add export alias", alias, EEXIST);
  aliases_.insert_or_assign(std::move(alias), std::move(exported));
}

bool ExportTable::remove(const Export& exported) {
  const std::unique_lock lock(mutex_);
  std::erase_if(aliases_, [&](const auto& entry) { return entry.second.get() == &exported; });
  const auto found = exports_.find(exported.name());
  if (found == exports_.end() || found->second.get() != &exported) return false;
  exports_.erase(found);
  return true;
}

std::shared_ptr<Export> ExportTable::find(std::string_view name) const {
  const std::shared_lock lock(mutex_);
  if (const auto found = exports_.find(name); found != exports_.end()) return found->second;
  if (const auto found = aliases_.find(name); found != aliases_.end()) return found->second;
  return nullptr;
}

std::vector<std::shared_ptr<Export>> ExportTable::list() const {
  const std::shared_lock lock(mutex_);
  std::vector<std::shared_ptr<Export>> all;
  all.reserve(exports_.size());
  for (const auto& [name, exported] : exports_) all.push_back(exported);
  return all;
}

std::shared_ptr<Export> ExportTable::next_after(std::string_view name) const {
  const std::shared_lock lock(mutex_);
  const auto next = exports_.upper_bound(name);
  return next == exports_.end() ? nullptr : next->second;
}

Visibility Visibility::all(const ExportTable& table, std::string default_export,
                           ExportSource* source) {
  Visibility view;
  view.table_ = &table;
  view.source_ = source;
  view.default_export_ = std::move(default_export);
  return view;
}

Visibility Visibility::only(std::shared_ptr<Export> exported) {
  Visibility view;
  view.only_ = std::move(exported);
  return view;
}

Visibility Visibility::seen_by(std::string owner) const {
  Visibility view = *this;
  view.owner_ = std::move(owner);
  return view;
}

/// `named`: the client has said the export's name, so it knows it.
bool Visibility::admits(ExportAccess access, const std::string& owner, bool named) const {
  if (!owner_.empty()) return owner == owner_;
  switch (access) {
    case ExportAccess::anybody:
      return true;
    case ExportAccess::by_name:
      return named;
    case ExportAccess::owner:
      break;
  }
  return false;
}

std::shared_ptr<Export> Visibility::find(std::string_view name) const {
  std::shared_ptr<Export> found = find_any(name);
  // A job that is over is as good as removed (O12): its name opens nothing any more.
  if (!found || found->state() == ExportState::closed) return nullptr;
  return admits(found->access(), found->owner(), !name.empty()) ? found : nullptr;
}

io::Task<std::shared_ptr<Export>> Visibility::open(std::string name) const {
  std::shared_ptr<Export> found = find(name);
  if (found || only_ || !source_ || name.empty()) co_return found;
  found = co_await source_->open(name);
  if (found && !admits(found->access(), found->owner(), true)) found = nullptr;
  co_return found;
}

std::shared_ptr<Export> Visibility::find_any(std::string_view name) const {
  if (only_) return name.empty() || name == only_->name() ? only_ : nullptr;
  return table_->find(name.empty() ? std::string_view(default_export_) : name);
}

std::shared_ptr<Export> Visibility::next_after(std::string_view name) const {
  const auto next = [this](std::string_view before) {
    if (!only_) return table_->next_after(before);
    return before < only_->name() ? only_ : nullptr;
  };
  std::shared_ptr<Export> exported = next(name);
  const auto is_hidden = [this](const Export& of) {
    return !admits(of.access(), of.owner(), false) || of.connect_refusal();
  };
  while (exported && is_hidden(*exported)) exported = next(exported->name());
  return exported;
}

io::Task<std::vector<OfferedExport>> Visibility::list_source_after(std::string& name) const {
  constexpr size_t kExportsAtOnce = 256;
  std::vector<OfferedExport> shown;
  while (source_ && !only_ && shown.empty()) {
    std::vector<OfferedExport> page = co_await source_->list_after(name, kExportsAtOnce);
    if (page.empty()) break;
    name = page.back().name;
    for (OfferedExport& listed : page) {
      if (admits(listed.access, listed.owner, false)) shown.push_back(std::move(listed));
    }
  }
  co_return shown;
}

}  // namespace nbd
