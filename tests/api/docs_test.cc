// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "api/match.h"
#include "api_fixture.h"
#include "sample_engine.h"

/// A53: the examples of docs/http-api.md are executed.
///
/// A block "```http" holds a request, the block behind it, "```json 200" or "```text 200", the
/// answer. With VARVE_UPDATE_PAGES set, the answers are written anew instead of compared.
namespace api_tests {
namespace {

struct Example {
  std::string method, target, body;
  std::string kind, status;  // of the answer
  std::string answer;
  size_t answer_begin = 0, answer_size = 0;  // in the page
};

std::string page_path() {
  const char* path = std::getenv("VARVE_HTTP_API_PAGE");
  return path ? path : "docs/http-api.md";
}

std::string read_page() {
  std::ostringstream text;
  text << std::ifstream(page_path()).rdbuf();
  return text.str();
}

std::vector<Example> examples_of(const std::string& page) {
  constexpr std::string_view kFence = "```http\n";
  std::vector<Example> examples;
  for (size_t at = 0; (at = page.find(kFence, at)) != page.npos;) {
    at += kFence.size();
    const size_t end = page.find("```\n", at);
    std::istringstream request(page.substr(at, end - at));
    Example example;
    request >> example.method >> example.target;
    std::getline(request, example.body, '\0');
    example.body.erase(0, example.body.find_first_not_of("\n"));
    const size_t fence = page.find("```", end + 4);
    const size_t line_end = page.find('\n', fence);
    std::istringstream words(page.substr(fence + 3, line_end - fence - 3));
    words >> example.kind >> example.status;
    example.answer_begin = line_end + 1;
    example.answer_size = page.find("```", line_end) - example.answer_begin;
    example.answer = page.substr(example.answer_begin, example.answer_size);
    examples.push_back(example);
    at = line_end;
  }
  return examples;
}

class Page : public ApiTest {
 protected:
  Page() { answer_with_samples(samples_); }
  api::Response run(const Example& example) {
    return sampled_.handle({example.method, example.target, "", "", example.body, true});
  }
  static std::string written(const Example& example, const api::Response& response) {
    if (example.kind == "text") return response.body;
    return nlohmann::ordered_json::parse(response.body).dump(2) + "\n";
  }

  ::testing::NiceMock<MockEngine> samples_;
  api::Api sampled_{samples_, settings()};
};

TEST_F(Page, EveryExampleGivesTheAnswerThatIsWritten) {
  std::string page = read_page();
  std::vector<Example> examples = examples_of(page);
  ASSERT_GT(examples.size(), 30u);
  const bool update = std::getenv("VARVE_UPDATE_PAGES") != nullptr;
  for (auto example = examples.rbegin(); example != examples.rend(); ++example) {
    SCOPED_TRACE(example->method + " " + example->target);
    const auto response = run(*example);
    EXPECT_EQ(std::to_string(response.status), example->status) << response.body;
    const std::string answer = written(*example, response);
    if (update) {
      page.replace(example->answer_begin, example->answer_size, answer);
    } else {
      EXPECT_EQ(example->answer, answer);
    }
  }
  if (update) std::ofstream(page_path()) << page;
}

TEST_F(Page, EveryRouteHasAnExample) {
  std::set<const api::Route*> shown;
  for (const Example& example : examples_of(read_page())) {
    shown.insert(sampled_.route_of({example.method, example.target, "", "", "", true}));
  }
  for (const api::Route& route : api::all_routes()) {
    const bool is_twin =
        route.pattern == "/api/v1/health" || route.pattern.ends_with("openapi.json");
    // The page's files are for a browser: docs/page.md shows what it makes of them.
    EXPECT_TRUE(route.is_page || is_twin || shown.contains(&route))
        << route.method << " " << route.pattern;
  }
}

}  // namespace
}  // namespace api_tests
