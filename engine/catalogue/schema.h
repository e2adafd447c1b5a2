// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/catalogue/db.h"

/// The catalogue's tables, its documented views, and the way from one schema to the next.
///
/// Invariant: `PRAGMA user_version` is the number of migrations applied; a file is moved to the
/// newest schema in one transaction or stays as it was. A migration that was released is never
/// edited. Spec: docs/catalogue.md. On the catalogue's thread.
namespace engine {

/// SQL that lifts a file from schema i to schema i + 1, for i = 0, 1, ...
std::span<const char* const> catalogue_migrations();

/// SQL of the views of docs/catalogue.md; they are made anew after each migration.
std::span<const char* const> catalogue_views();

/// Applies what is missing. Throws DbError when the file is newer than `migrations`, or is no
/// catalogue of varve's.
void migrate(Db& db, std::span<const char* const> migrations, std::span<const char* const> views);

/// Throws DbError unless the file is a catalogue to which exactly `migrations` were applied.
void require_schema(Db& db, std::span<const char* const> migrations);

uint32_t schema_version(Db& db);

/// What PRAGMA integrity_check and foreign_key_check find; empty when all is well.
std::vector<std::string> integrity_problems(Db& db);

}  // namespace engine
