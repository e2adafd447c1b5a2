// SPDX-License-Identifier: Apache-2.0
#include "api/page.h"

#include <algorithm>

#include "api/routes.h"

/// The page for a browser: docs/page.md.
namespace api {
namespace {

/// Only what varve itself serves is loaded, run or asked, and nothing of it as text: no inline
/// script or style, and no markup from a string, whatever a VM is called.
constexpr const char* kPolicy =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

bool has_etag(std::string_view header, std::string_view etag) {
  return header == "*" || header.find(etag) != header.npos;
}

Response answer_with(const Call& call, const PageFile& file) {
  Response response{200, std::string(file.content_type), "", {}};
  response.headers = {{"ETag", std::string(file.etag)},
                      {"Cache-Control", "no-cache"},  // kept, and asked about each time
                      {"Content-Security-Policy", kPolicy},
                      {"X-Content-Type-Options", "nosniff"},
                      {"Referrer-Policy", "no-referrer"}};
  if (has_etag(call.request.if_none_match, file.etag)) {
    response.status = 304;
    response.content_type = "";
  } else {
    response.body = file.bytes;
  }
  return response;
}

Response index(const Call& call) { return answer_with(call, *find_page_file("index.html")); }

Response part(const Call& call) {
  const std::string& name = call.variable("file");
  const PageFile* const file = find_page_file(name);
  if (file == nullptr) {
    throw engine::Refusal(engine::RefusalKind::not_found, "page_file_not_found",
                          "the page has no such file", name, "The page is at /.");
  }
  return answer_with(call, *file);
}

}  // namespace

const PageFile* find_page_file(std::string_view name) {
  const auto files = page_files();
  const auto found =
      std::ranges::find_if(files, [name](const PageFile& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

const std::vector<Route>& page_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/",
       .handler = index,
       .summary = "The page for a browser",
       .answer = "",
       .instant = true,
       .is_page = true},
      {.method = "GET",
       .pattern = "/page/{file}",
       .handler = part,
       .summary = "A file of the page",
       .answer = "",
       .instant = true,
       .is_page = true},
  };
  return routes;
}

}  // namespace api
