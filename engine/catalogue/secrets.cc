// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/secrets.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

namespace engine {

io::Task<Secrets> Secrets::open(io::Runtime runtime, std::string path,
                                std::map<std::string, Credentials> named) {
  Secrets secrets(runtime, path, std::move(named));
  co_await io::remove_temporaries(runtime.files, path);
  const auto status = co_await runtime.files.status(path);
  if (!status) co_return secrets;
  const std::string text = co_await io::read_text(runtime.files, path);
  const auto json = nlohmann::json::parse(text, nullptr, false);
  // The parser's own message would quote the text, and with it a password.
  if (!json.is_object()) throw std::runtime_error(fmt::format("{} is damaged", path));
  for (const auto& [context_id, entry] : json.items()) {
    if (!entry.is_object()) throw std::runtime_error(fmt::format("{} is damaged", path));
    secrets.by_context_[context_id] = {.username = entry.value("username", ""),
                                       .password = entry.value("password", "")};
  }
  co_return secrets;
}

std::optional<Credentials> Secrets::find(const Vm& vm) const {
  const bool by_name = vm.credentials.kind == CredentialsRef::Kind::reference;
  if (!by_name && vm.credentials.kind != CredentialsRef::Kind::inline_secret) return std::nullopt;
  const auto& among = by_name ? named_ : by_context_;
  const auto found = among.find(by_name ? vm.credentials.ref : vm.context_id);
  if (found == among.end()) return std::nullopt;
  return found->second;
}

io::Task<void> Secrets::store(std::string context_id, Credentials credentials) {
  by_context_[context_id] = std::move(credentials);
  co_await write();
}

io::Task<void> Secrets::remove(std::string context_id) {
  if (by_context_.erase(context_id) != 0) co_await write();
}

io::Task<void> Secrets::write() {
  const io::Grant turn = co_await writing_->lock();
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [context_id, credentials] : by_context_) {
    json[context_id]["username"] = credentials.username;
    json[context_id]["password"] = credentials.password;
  }
  const std::string text = json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
  co_await io::replace_text(runtime_, path_, text, io::OpenMode::create_private);
}

}  // namespace engine
