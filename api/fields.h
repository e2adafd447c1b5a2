// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "engine/values/types.h"

/// Header fields of HTTP: dates and entity tags. Pure. Spec: RFC 9110, 5.6.7, 8.8.3 and 13.1.2.
namespace api {

/// "Wed, 08 Oct 2025 08:54:54 GMT".
std::string http_date(engine::Time time);

/// A strong tag of these bytes, in its quotes.
std::string entity_tag(std::string_view body);

/// Whether If-None-Match, a header, names `tag`: the client has these bytes already.
bool names_tag(std::string_view if_none_match, std::string_view tag);

}  // namespace api
