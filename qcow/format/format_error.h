// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace qcow {

/// An image that varve refuses, or metadata in it that contradict the format.
///
/// The text is the image's name in quotes, a colon and one sentence for the operator, for example
/// `"a.qcow2": encrypted images are not supported (method 1)`. The sentences are rules RF1–RF21 of
/// docs/qcow2-rules.md; tests/qcow pins each.
class FormatError : public std::runtime_error {
 public:
  FormatError(std::string_view image_name, std::string_view text)
      : std::runtime_error('"' + std::string(image_name) + "\": " + std::string(text)) {}
};

/// It is a published restore point: read, and never opened for writing.
class PublishedImageError : public FormatError {
 public:
  explicit PublishedImageError(std::string_view image_name)
      : FormatError(image_name, "is a published restore point and is never opened for writing") {}
};

}  // namespace qcow
