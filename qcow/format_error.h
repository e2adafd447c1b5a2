#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace qcow {

/// An image that varve refuses, or metadata in it that contradict the format.
///
/// The text is the image's name in quotes, a colon, and a sentence from section 7 of the QCOW2
/// reference (docs/qcow2-writing.md, "Refusals"), for example
/// `"a.qcow2": encrypted images are not supported (method 1)`.
class FormatError : public std::runtime_error {
 public:
  FormatError(std::string_view image_name, std::string_view text)
      : std::runtime_error('"' + std::string(image_name) + "\": " + std::string(text)) {}
};

}  // namespace qcow
