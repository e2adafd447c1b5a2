// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "nbd/protocol.h"

namespace nbd {

/// Why a request is not done, as the client reads it.
struct Refusal {
  WireError error = WireError::einval;
  std::string text;
};

/// A request that was under way is not done to its end; refusal_for() gives the refusal back.
class Refused : public std::runtime_error {
 public:
  explicit Refused(Refusal refusal)
      : std::runtime_error(refusal.text), refusal_(std::move(refusal)) {}
  const Refusal& refusal() const { return refusal_; }

 private:
  Refusal refusal_;
};

/// Door 1: the only place where a failure becomes an NBD error number and its text.
Refusal refusal_for(std::exception_ptr failure) noexcept;

/// The text with every absolute path shortened to its last part: clients learn what failed, not
/// where the server keeps its files (H12).
std::string without_paths(std::string_view text);

}  // namespace nbd
