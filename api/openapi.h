// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "api/json.h"
#include "api/routes.h"

namespace api {

/// The OpenAPI 3.1 description of the routes and of every schema. Pure.
Json openapi_document(std::span<const Route> routes, std::string_view version);

}  // namespace api
