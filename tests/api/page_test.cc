// SPDX-License-Identifier: Apache-2.0
#include "api/page.h"

#include <map>
#include <set>

#include "api/schema.h"
#include "api_fixture.h"

/// The page's files, as a browser gets them; what they do is tests/e2e/test_page.py's.
namespace api_tests {
namespace {

class PageFiles : public ApiTest {
 protected:
  static std::string text_of(std::string_view name) {
    const api::PageFile* const file = api::find_page_file(name);
    return file ? std::string(file->bytes) : "";
  }

  static std::string header(const api::Response& response, std::string_view name) {
    for (const auto& [key, value] : response.headers) {
      if (key == name) return value;
    }
    return "";
  }

  /// The object behind "export const NAME = " of a file, which is written as JSON.
  static Json constant(std::string_view file, const std::string& name) {
    const std::string text = text_of(file), head = "export const " + name + " = ";
    const size_t begin = text.find(head);
    EXPECT_NE(begin, text.npos);
    const size_t end = text.find("\n};", begin);
    EXPECT_NE(end, text.npos);
    return Json::parse(text.substr(begin + head.size(), end + 2 - begin - head.size()));
  }
};

TEST_F(PageFiles, AreAnsweredWithTheirTypeAndTheRulesForTheBrowser) {
  for (const auto& [target, type] : {std::pair("/", "text/html; charset=utf-8"),
                                     {"/page/style.css", "text/css; charset=utf-8"},
                                     {"/page/app.js", "text/javascript; charset=utf-8"},
                                     {"/page/icon.svg", "image/svg+xml"}}) {
    SCOPED_TRACE(target);
    const auto response = request("GET", target);
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.content_type, type);
    EXPECT_TRUE(header(response, "Content-Security-Policy").starts_with("default-src 'self';"));
    EXPECT_EQ(header(response, "X-Content-Type-Options"), "nosniff");
    EXPECT_EQ(header(response, "Referrer-Policy"), "no-referrer");
  }
  expect_problem(request("GET", "/page/none.js"), 404, "the page has no such file",
                 "page_file_not_found", "none.js");
}

TEST_F(PageFiles, AreNotSentAgainToWhoHasThem) {
  const auto first = request("GET", "/page/app.js");
  const std::string etag = header(first, "ETag");
  ASSERT_TRUE(etag.starts_with('"') && etag.ends_with('"')) << etag;
  api::Request again{"GET", "/page/app.js", "", "", "", true};
  again.if_none_match = "\"other\", " + etag;
  const auto kept = api_.handle(again);
  EXPECT_EQ(kept.status, 304);
  EXPECT_EQ(kept.body, "");
  EXPECT_EQ(header(kept, "ETag"), etag);
  again.if_none_match = "\"other\"";
  EXPECT_EQ(api_.handle(again).status, 200);
}

TEST_F(PageFiles, NeedNoTokenFromAnywhere) {
  api::Settings guarded = settings();
  guarded.tokens = one_token("s3cret");
  const api::Api api(engine_, guarded);
  EXPECT_EQ(api.handle({"GET", "/", "", "", "", false}).status, 200);
  EXPECT_EQ(api.handle({"GET", "/page/app.js", "", "", "", false}).status, 200);
  EXPECT_EQ(api.handle({"GET", "/api/v1/backups", "", "", "", false}).status, 401);
}

TEST_F(PageFiles, EveryModuleThatOneImportsIsThere) {
  std::set<std::string> missing;
  for (const api::PageFile& file : api::page_files()) {
    if (!file.name.ends_with(".js") || file.name == "chart.min.js") continue;
    const std::string text(file.bytes);
    for (size_t at = 0; (at = text.find("\"./", at)) != text.npos;) {
      at += 3;
      const std::string name = text.substr(at, text.find('"', at) - at);
      if (api::find_page_file(name) == nullptr) missing.insert(name);
    }
  }
  EXPECT_EQ(missing, std::set<std::string>());
  EXPECT_NE(text_of("chart.min.js").find("Released under the MIT License"), std::string::npos);
}

// Nothing under api/ repeats a field list unseen: what the page reads is in the schemas.
TEST_F(PageFiles, ReadOnlyMembersThatTheSchemasHave) {
  const Json fields = constant("fields.js", "FIELDS");
  EXPECT_GT(fields.size(), 20u);
  for (const auto& [name, members] : fields.items()) {
    const api::Schema* const schema = api::find_schema(name);
    ASSERT_TRUE(schema) << name;
    std::map<std::string, std::string> types;
    for (const api::Member& member : schema->members) types.emplace(member.name, member.type);
    for (const std::string field : members) {
      const size_t space = field.find(' ');
      const std::string member = field.substr(0, space);
      ASSERT_TRUE(types.contains(member)) << name << "." << member;
      if (space == field.npos) continue;
      const std::string type = field.substr(space + 1), known = types[member];
      EXPECT_TRUE(known == type || known == type + "?" || known == type + "|null")
          << name << "." << member << " is " << known << ", not " << type;
    }
  }
}

}  // namespace
}  // namespace api_tests
