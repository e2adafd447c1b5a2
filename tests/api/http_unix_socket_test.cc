// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "http_fixture.h"

namespace api_tests {
namespace {

class UnixSocket : public HttpServer {
 protected:
  UnixSocket() {
    char pattern[] = "/tmp/varve-api-XXXXXX";
    directory_ = ::mkdtemp(pattern);
    path_ = directory_ + "/http.sock";
  }
  ~UnixSocket() override { std::filesystem::remove_all(directory_); }
  std::string directory_, path_;
};

TEST_F(UnixSocket, IsServedLikeLoopbackAndRemovedAtTheEnd) {
  const api::Api secured(engine_, {.tokens = one_token("t"), .now = [] { return sample_time(); }});
  {
    const api::HttpServer server(secured, {.unix_socket = path_});
    struct stat status {};
    ASSERT_EQ(::stat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0660u);
    Connection connection(Connection::Unix{}, path_);
    connection.send(get_text("/health"));
    EXPECT_EQ(status_of(connection.receive()), 200);
    connection.send(get_text("/api/v1/backups"));
    EXPECT_EQ(status_of(connection.receive()), 401);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(UnixSocket, AStaleOneIsReplacedALiveOneAndAFileAreNot) {
  const int stale = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  path_.copy(at.sun_path, sizeof at.sun_path - 1);
  ASSERT_EQ(::bind(stale, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  ::close(stale);
  serve({.addresses = {}, .unix_socket = path_});
  EXPECT_THROW(api::HttpServer(api_, {.unix_socket = path_}), std::system_error);
  server_.reset();
  const std::string file = directory_ + "/file";
  std::ofstream(file) << "kept";
  EXPECT_THROW(api::HttpServer(api_, {.unix_socket = file}), std::system_error);
  EXPECT_TRUE(std::filesystem::exists(file));
}

TEST_F(UnixSocket, OfANewerServerStaysWhenAnOlderOneEnds) {
  serve({.addresses = {}, .unix_socket = path_});
  std::filesystem::remove(path_);
  const api::HttpServer newer(api_, {.unix_socket = path_});
  server_.reset();
  ASSERT_TRUE(std::filesystem::exists(path_));
  Connection connection(Connection::Unix{}, path_);
  connection.send(get_text("/health"));
  EXPECT_EQ(status_of(connection.receive()), 200);
}

TEST_F(UnixSocket, APathThatIsTooLongIsRefused) {
  const std::string path = directory_ + "/" + std::string(120, 'x');
  EXPECT_THROW(api::HttpServer(api_, {.unix_socket = path}), std::invalid_argument);
}

}  // namespace
}  // namespace api_tests
