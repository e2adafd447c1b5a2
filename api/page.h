// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

/// The page at "/": the files of api/page/ and Chart.js, as they were when varve was built. Static
/// data; usable on any thread. Spec: docs/page.md.
namespace api {

struct PageFile {
  std::string_view name;          ///< "index.html"; the others are asked for as "/page/NAME"
  std::string_view content_type;  ///< "text/html; charset=utf-8"
  std::string_view etag;          ///< with its quotation marks; another one for other bytes
  std::string_view bytes;
};

/// All of them, by name. Made by api/page/embed.py.
std::span<const PageFile> page_files();

/// Nothing for a name that no file has.
const PageFile* find_page_file(std::string_view name);

}  // namespace api
