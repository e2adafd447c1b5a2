// SPDX-License-Identifier: Apache-2.0
#include "app/tls_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "app/options.h"
#include "app/psk_file.h"
#include "io/owned_fd.h"

namespace app {
namespace {

/// A file of credentials is short; more than this is something else.
constexpr size_t kFileBytesMax = 16 << 20;

UsageError unreadable(const std::string& path, int error) {
  return UsageError(fmt::format("read {}: {}", path, std::strerror(error)));
}

std::string read_all(const io::OwnedFd& fd, const std::string& path) {
  std::string text;
  std::array<char, 65536> part;
  for (;;) {
    const ssize_t count = ::read(fd.get(), part.data(), part.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw unreadable(path, errno);
    if (count == 0) return text;
    text.append(part.data(), static_cast<size_t>(count));
    if (text.size() > kFileBytesMax) throw unreadable(path, EFBIG);
  }
}

/// The service manager keeps these for the service alone, by an ACL that the mode does not show.
bool is_credential(const std::string& path) {
  const char* const directory = std::getenv("CREDENTIALS_DIRECTORY");
  return directory != nullptr && *directory == '/' &&
         path.starts_with(std::string(directory) + "/");
}

/// With `optional`, a file that is not there is empty.
std::string read_file(const std::string& path, bool optional = false) {
  const io::OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.valid()) return read_all(fd, path);
  if (optional && errno == ENOENT) return {};
  throw unreadable(path, errno);
}

}  // namespace

nbd::TlsCertificates read_server_certificates(const TlsOptions& options) {
  const std::string& directory = options.certificates;
  nbd::TlsCertificates certificates;
  certificates.ca = read_file(directory + "/ca-cert.pem");
  certificates.certificate = read_file(directory + "/server-cert.pem");
  certificates.key = read_file(directory + "/server-key.pem");
  certificates.crl = read_file(directory + "/ca-crl.pem", true);
  certificates.verify_peer = options.verify_peer;
  certificates.allowed_names = options.allowed_names;
  return certificates;
}

std::string read_private_file(const std::string& path, struct stat* status) {
  const io::OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat seen {};
  if (!fd.valid() || ::fstat(fd.get(), &seen) != 0) throw unreadable(path, errno);
  if ((seen.st_mode & 077) != 0 && !is_credential(path)) {
    throw UsageError(fmt::format(
        "{} may be read or written by others than its owner (mode {:04o}); chmod 0600 it", path,
        seen.st_mode & 07777));
  }
  if (status != nullptr) *status = seen;
  return read_all(fd, path);
}

nbd::TlsMode parse_tls_mode(const std::string& text) {
  if (text == "off") return nbd::TlsMode::off;
  if (text == "on") return nbd::TlsMode::on;
  if (text == "require") return nbd::TlsMode::require;
  throw UsageError(fmt::format("\"{}\" is not one of off, on, require", text));
}

nbd::TlsMode tls_mode_of(const TlsOptions& options, bool allow_plain, const ListenerTls& listener) {
  nbd::TlsMode mode = options.has_credentials() ? nbd::TlsMode::on : nbd::TlsMode::off;
  if (!listener.is_local && !allow_plain) mode = nbd::TlsMode::require;
  const auto said = listener.own ? listener.own : options.mode;
  if (said) mode = *said;
  if (!listener.is_local && !allow_plain &&
      (mode != nbd::TlsMode::require || !options.has_credentials())) {
    throw UsageError(fmt::format(
        "{}: this is not a loopback address, and nothing on it would encrypt or authenticate; "
        "give --tls=require with --tls-certificates or --tls-psk, or say --allow-plain if plain "
        "NBD is meant",
        listener.option));
  }
  if (mode != nbd::TlsMode::off && !options.has_credentials()) {
    throw UsageError(
        fmt::format("{}: TLS needs credentials; give --tls-certificates DIR or --tls-psk FILE",
                    listener.option));
  }
  return mode;
}

std::shared_ptr<const nbd::TlsServer> load_tls(const TlsOptions& options) {
  const bool names_peers = options.verify_peer || !options.allowed_names.empty();
  if (names_peers && options.certificates.empty()) {
    throw UsageError("--tls-verify-peer and --tls-allowed-name need --tls-certificates");
  }
  if (!options.has_credentials()) return nullptr;
  nbd::TlsSettings settings;
  if (!options.certificates.empty()) settings.certificates = read_server_certificates(options);
  if (!options.psk.empty()) {
    settings.psk = [file = std::make_shared<PskFile>(options.psk)](const std::string& user) {
      return file->find(user);
    };
  }
  try {
    return nbd::TlsServer::make(settings);
  } catch (const std::runtime_error& failure) {
    throw UsageError(
        fmt::format("--tls-certificates {}: {}", options.certificates, failure.what()));
  }
}

std::shared_ptr<const nbd::TlsClient> load_tls_client(const TlsClientFiles& files) {
  nbd::TlsClientSettings settings;
  if (const std::string& directory = files.certificates; !directory.empty()) {
    settings.ca = read_file(directory + "/ca-cert.pem");
    settings.certificate = read_file(directory + "/client-cert.pem", true);
    settings.key = read_file(directory + "/client-key.pem", settings.certificate.empty());
  }
  if (!files.psk.empty()) {
    PskFile keys(files.psk);
    settings.psk_user = files.user.empty() ? keys.only_user().value_or("") : files.user;
    const auto key = keys.find(settings.psk_user);
    if (!key) {
      throw UsageError(files.user.empty()
                           ? fmt::format("{} has the keys of several users: name one, by "
                                         "--tls-user or as nbds://USER@HOST",
                                         files.psk)
                           : fmt::format("{} has no key of \"{}\"", files.psk, files.user));
    }
    settings.psk = *key;
  }
  try {
    return nbd::TlsClient::make(settings);
  } catch (const std::runtime_error& failure) {
    throw UsageError(fmt::format("--tls-certificates {}: {}", files.certificates, failure.what()));
  }
}

}  // namespace app
