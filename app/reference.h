// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

/// What is written of the table of verbs for other programs: completions of shells, and the pages
/// of `man` in the language of scdoc. All of it comes from the options as the parser knows them.
namespace app {

/// A script for "bash", "zsh" or "fish" that completes verbs, options and files. Throws UsageError
/// for another shell.
std::string completion_script(std::string_view shell);

/// The source of a manual page: "varve", "varve-vm" (of all verbs that begin so), or "varve.toml".
/// Throws UsageError for a page that there is not.
std::string manual_page(std::string_view name);

/// The names of all pages, with their sections: "varve-vm.1". A line each.
std::string manual_page_names();

}  // namespace app
