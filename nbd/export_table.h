// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/export.h"
#include "nbd/export_source.h"

namespace nbd {

/// All exports by name. Thread-safe: handshakes look names up while the engine adds and removes.
class ExportTable {
 public:
  /// Throws std::system_error (EEXIST) when the name is taken.
  void add(std::shared_ptr<Export> exported);

  /// A second name; clients that use it learn the first (INFO_NAME). Replaces an earlier alias.
  void add_alias(std::string alias, std::shared_ptr<Export> exported);

  /// Takes the export and its aliases out; connections continue. False when it was not there.
  bool remove(const Export& exported);

  /// Null when nothing has that name.
  std::shared_ptr<Export> find(std::string_view name) const;

  /// Without aliases, in the order of names.
  std::vector<std::shared_ptr<Export>> list() const;

  /// The first export after `name` in the order of list(), or null. For a walk over the table that
  /// may take long.
  std::shared_ptr<Export> next_after(std::string_view name) const;

 private:
  using ByName = std::map<std::string, std::shared_ptr<Export>, std::less<>>;
  mutable std::shared_mutex mutex_;
  ByName exports_;
  ByName aliases_;
};

/// The part of a table that the clients of one listener may see and open.
///
/// A main listener serves every export by name. The listener of a port range serves exactly one
/// export, which also answers to the empty name (O10, L8).
class Visibility {
 public:
  static Visibility all(const ExportTable& table, std::string default_export = {},
                        ExportSource* source = nullptr);
  static Visibility only(std::shared_ptr<Export> exported);

  /// The same as an owner of exports sees it, whom TLS has proved to be that (T9, T11): his and no
  /// others.
  Visibility seen_by(std::string owner) const;

  /// Null when the name is not in the table or not for this listener's clients (O9).
  std::shared_ptr<Export> find(std::string_view name) const;
  /// The same over table and source. Throws what the source throws.
  io::Task<std::shared_ptr<Export>> open(std::string name) const;

  /// What LIST answers, one after the other: the first after `name` of the table's exports that can
  /// be opened now, or null (O3).
  std::shared_ptr<Export> next_after(std::string_view name) const;
  /// And then those of the source, a few at a time: after `name`, which becomes the last one's.
  /// Nothing when `name` was the last.
  io::Task<std::vector<OfferedExport>> list_source_after(std::string& name) const;

 private:
  std::shared_ptr<Export> find_any(std::string_view name) const;
  bool admits(ExportAccess access, const std::string& owner, bool named) const;

  const ExportTable* table_ = nullptr;
  ExportSource* source_ = nullptr;
  std::string default_export_;
  std::shared_ptr<Export> only_;
  std::string owner_;
};

}  // namespace nbd
