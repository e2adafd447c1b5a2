// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/problem.h"
#include "api/request.h"

/// What keeps web pages out. A browser lets every page send requests to loopback, under the page's
/// own name if that name is made to resolve there, and marks them by the headers Host, Origin and
/// Content-Type; other programs leave Origin out. Pure.
namespace api {

/// 403 for a host that is neither loopback, nor where the peer connected to, nor one of `names`;
/// and for a page that comes neither from that host nor from one of `origins` ("*": all).
std::optional<Problem> refusal_of_site(const Request& request,
                                       const std::vector<std::string>& names,
                                       const std::vector<std::string>& origins);

/// 415 for a body that says it is something else than JSON. A body that says nothing is taken, and
/// so is what `curl -d` calls a form, unless a page sends it.
std::optional<Problem> refusal_of_content_type(const Request& request);

/// Whether `host`, a Host header, names loopback: localhost, a name below it, 127.0.0.0/8, ::1.
bool is_loopback_host(std::string_view host);

}  // namespace api
