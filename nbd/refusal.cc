// SPDX-License-Identifier: Apache-2.0
#include "nbd/refusal.h"

#include <new>
#include <system_error>

namespace nbd {

namespace {

/// A failure has no text rather than a second failure.
std::string text_for_client(std::string_view text) noexcept try {
  return without_paths(text);
} catch (const std::bad_alloc&) {
  return {};
}

}  // namespace

Refusal refusal_for(std::exception_ptr failure) noexcept try {
  std::rethrow_exception(failure);
} catch (const Refused& refused) {
  return refused.refusal();
} catch (const std::system_error& error) {
  return {wire_error(error.code().value()), text_for_client(error.what())};
} catch (const std::bad_alloc&) {
  return {WireError::enomem, "out of memory"};
} catch (const std::exception& error) {
  return {WireError::eio, text_for_client(error.what())};
} catch (...) {
  return {WireError::eio, "unknown failure"};
}

std::string without_paths(std::string_view text) {
  constexpr std::string_view kBeforePath = " \t\"'(";
  constexpr std::string_view kAfterPath = " \t\"'():,;@";
  std::string shortened;
  for (size_t index = 0; index < text.size();) {
    const bool starts_path =
        text[index] == '/' &&
        (index == 0 || kBeforePath.find(text[index - 1]) != std::string_view::npos);
    if (!starts_path) {
      shortened += text[index++];
      continue;
    }
    const size_t end = std::min(text.find_first_of(kAfterPath, index), text.size());
    const std::string_view path = text.substr(index, end - index);
    shortened += path.substr(path.rfind('/') + 1);
    index = end;
  }
  return shortened;
}

}  // namespace nbd
