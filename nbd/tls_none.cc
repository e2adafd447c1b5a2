#include <stdexcept>

#include "nbd/tls.h"

/// A build without GnuTLS (meson -Dtls=disabled): STARTTLS is answered ERR_PLATFORM (T1).
namespace nbd {

bool TlsServer::available() { return false; }

std::shared_ptr<const TlsServer> TlsServer::make(const TlsSettings&) {
  throw std::runtime_error("this varve was built without TLS; build it with GnuTLS");
}

}  // namespace nbd
