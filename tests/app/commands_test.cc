// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "api/schema.h"
#include "app/exit_status.h"
#include "app/failure.h"
#include "app/nearest.h"
#include "app/operate/columns.h"
#include "app/operate/progress.h"
#include "app/operate/table.h"
#include "app/operate/verbs.h"
#include "app/reference.h"
#include "engine/values/refusal.h"
#include "engine/values/time_text.h"
#include "tests/app/parse.h"

namespace app {
namespace {

std::string refusal_of(std::vector<const char*> words) {
  words.insert(words.begin(), "varve");
  try {
    parse_command_line(static_cast<int>(words.size()), words.data());
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(UnknownWords, AreNamedWithTheNearestKnownOne) {
  EXPECT_EQ(refusal_of({"bakcup"}), "unknown command 'bakcup'; did you mean 'backup'?");
  EXPECT_EQ(refusal_of({"vm", "lsit"}), "unknown command 'vm lsit'; did you mean 'vm list'?");
  EXPECT_EQ(refusal_of({"vm", "frob"}), "unknown command 'vm frob'; see varve vm --help");
  EXPECT_EQ(refusal_of({"status", "--jsn"}),
            "varve status: unknown option '--jsn'; did you mean '--json'?");
  EXPECT_EQ(refusal_of({"status", "--jsn=yes"}),
            "varve status: unknown option '--jsn'; did you mean '--json'?");
  EXPECT_EQ(refusal_of({"frob"}), "unknown command 'frob'; see varve --help");
  EXPECT_EQ(refusal_of({"backup", "list", "vm1"}),
            "varve backup: unexpected argument 'vm1'; see varve backup --help");
  EXPECT_EQ(refusal_of({"vm"}),
            "varve vm needs one of list, show, add, set, remove; see varve vm --help");
  EXPECT_EQ(refusal_of({"--jsno", "status"}),
            "unknown option '--jsno' before the command; options come after it; see varve --help");
  EXPECT_EQ(refusal_of({"status", "--json=x"}),
            "varve status: --json takes no value; see varve status --help");
  EXPECT_EQ(refusal_of({"restore", "web", "--to"}),
            "varve restore: --to needs a value; see varve restore --help");
}

TEST(UnknownWords, TheNearestIsASlipOfTheHandOrABeginning) {
  const std::vector<std::string> known = {"backup", "restore", "verify"};
  EXPECT_EQ(nearest("bckup", known), "backup");
  EXPECT_EQ(nearest("vreify", known), "verify");
  EXPECT_EQ(nearest("rest", known), "restore");
  EXPECT_EQ(nearest("copy", known), "");
  EXPECT_EQ(nearest("", known), "");
}

TEST(VerbTable, EveryVerbHasAGroupASummaryAndAHelpThatEndsInItsOptions) {
  std::set<std::string_view> names;
  for (const Verb& verb : all_verbs()) {
    SCOPED_TRACE(verb.name);
    EXPECT_TRUE(names.insert(verb.name).second);
    EXPECT_FALSE(verb.summary.empty());
    if (!verb.is_shown()) continue;
    std::vector<std::string> words = {std::string(verb.first_word())};
    if (words.front() != verb.name) words.emplace_back(verb.name.substr(words.front().size() + 1));
    EXPECT_NE(help_text(words).find("Usage: varve " + std::string(verb.name)), std::string::npos);
    EXPECT_NE(help_text({}).find("  " + words.front()), std::string::npos);
  }
}

TEST(VerbTable, OptionsOfAVerbHaveNamesThatAreTheirOwn) {
  for (const Verb& verb : all_verbs()) {
    DeclaredVerb declared(verb);
    std::set<std::string> names;
    for (const CLI::Option* const option : declared.command().get_options()) {
      for (const std::string& name : option->get_lnames()) {
        EXPECT_TRUE(names.insert(name).second) << verb.name << " --" << name;
      }
    }
  }
}

TEST(VerbTable, HelpIsAskedForInEveryWay) {
  const std::string help = parse<PrintText>({"vm", "list", "--help"}).text;
  EXPECT_EQ(parse<PrintText>({"help", "vm", "list"}).text, help);
  EXPECT_NE(help.find("--server URL"), std::string::npos);
  EXPECT_EQ(parse<PrintText>({"help", "vm"}).text, parse<PrintText>({"vm", "--help"}).text);
  EXPECT_EQ(parse<PrintText>({"version"}).text, parse<PrintText>({"--version"}).text);
  EXPECT_EQ(refusal_of({"help", "bakcup"}), "unknown command 'bakcup'; did you mean 'backup'?");
  const std::string serve = parse<PrintText>({"help", "serve"}).text;
  for (const char* group : {"\nStorage:", "\nHTTP:", "\nNBD:", "\nVerification:"}) {
    EXPECT_NE(serve.find(group), std::string::npos) << group;
  }
}

TEST(Columns, EverySelectedNameIsAMemberOfItsSchema) {
  for (const Selection* const selection : all_selections()) {
    ASSERT_NE(api::find_schema(selection->schema), nullptr) << selection->schema;
    for (const Column& column : selection->columns) {
      EXPECT_NO_THROW(type_of(*selection, column)) << selection->schema << "." << column.member;
    }
  }
  EXPECT_THROW(type_of({"Backup", {}}, {"no_such_member", ""}), std::logic_error);
  EXPECT_EQ(type_of(kRepositories, {"storage_info.used_percent", ""}), "number");
}

TEST(Text, SizesHaveUnits) {
  EXPECT_EQ(size_text(0), "0 B");
  EXPECT_EQ(size_text(1023), "1023 B");
  EXPECT_EQ(size_text(1024), "1.0 KiB");
  EXPECT_EQ(size_text((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(size_text(uint64_t{3} << 29), "1.5 GiB");
  EXPECT_EQ(size_text(UINT64_MAX), "16.0 EiB");
  EXPECT_EQ(size_text(1536, Style{.bytes = true}), "1536 B");
}

TEST(Text, TimesHaveAnAge) {
  Style style{.utc = true, .now = engine::from_unix_seconds(1000000)};
  EXPECT_EQ(time_text(engine::from_unix_seconds(1000000 - 45), style),
            "1970-01-12T13:45:55Z, 45 s ago");
  EXPECT_EQ(time_text(engine::from_unix_seconds(1000000 + 2), style),
            "1970-01-12T13:46:42Z, 0 s ago")
      << "the server's clock is a little ahead, or it has rounded up";
  EXPECT_EQ(time_text(engine::from_unix_seconds(1000000 + 60), style),
            "1970-01-12T13:47:40Z, in 60 s");
  EXPECT_EQ(duration_text(119), "119 s");
  EXPECT_EQ(duration_text(120), "2 min");
  EXPECT_EQ(duration_text(3 * 3600), "3 h");
  EXPECT_EQ(duration_text(5 * 86400), "5 d");
}

TEST(Text, ValuesAreWrittenAsTypeAndNameSay) {
  const Style style{.utc = true, .now = engine::from_unix_seconds(60)};
  EXPECT_EQ(value_text(2048, "bytes_stored", "integer", "-", style), "2.0 KiB");
  EXPECT_EQ(value_text(2048, "allocated_bytes", "integer?", "-", style), "2.0 KiB");
  EXPECT_EQ(value_text(2048, "transfer_speed_bps", "integer", "-", style), "2.0 KiB/s");
  EXPECT_EQ(value_text(2048, "generation", "integer", "-", style), "2048");
  EXPECT_EQ(value_text(90000, "expected_interval_seconds", "integer", "-", style), "25h");
  EXPECT_EQ(value_text(0, "expected_interval_seconds", "integer", "none", style), "none");
  EXPECT_EQ(value_text(12.34, "progress_percent", "number", "-", style), "12.3 %");
  EXPECT_EQ(value_text(true, "available", "boolean", "-", style), "yes");
  EXPECT_EQ(value_text(nullptr, "verified_at", "time|null", "never", style), "never");
  EXPECT_EQ(value_text("", "change_id", "string", "-", style), "-");
  EXPECT_EQ(value_text("1970-01-01T00:00:00Z", "completed_at", "time", "-", style),
            "1970-01-01T00:00:00Z, 60 s ago");
  EXPECT_EQ(value_text({"a", "b"}, "uris", "[string]", "-", style), "a, b");
  EXPECT_EQ(value_text("a\033[2Jb\xc2\x9b", "vm_name", "string", "-", style), "a?[2Jb?");
}

TEST(Table, AlignsColumnsAndEndsLinesWithoutBlanks) {
  const Selection selection{"Point", {{"vm_name", "VM"}, {"bytes_stored", "STORED"}}};
  const Style style;
  Table table(selection, style);
  EXPECT_EQ(table.text(), "");
  table.add({{"vm_name", "a"}, {"bytes_stored", 5}});
  table.add({{"vm_name", "größer"}, {"bytes_stored", 1 << 20}}, "└─ ");
  EXPECT_EQ(table.text(),
            "VM          STORED\n"
            "a              5 B\n"
            "└─ größer  1.0 MiB\n");
  const Selection names{"Point", {{"vm_name", "VM"}}};
  Table one(names, style);
  one.add({{"vm_name", "a"}});
  EXPECT_EQ(one.text(), "VM\na\n");
}

TEST(Table, ColoursOnlyWhereTheyAreAskedFor) {
  const Selection selection{"Backup", {{"state", "STATE"}}};
  const Style plain, coloured_style{.colour = true};
  Table one(selection, plain), other(selection, coloured_style);
  for (Table* const table : {&one, &other}) table->add({{"state", "failed"}});
  EXPECT_EQ(one.text(), "STATE\nfailed\n");
  EXPECT_EQ(other.text(), "\033[1mSTATE \033[0m\n\033[1;31mfailed\033[0m\n");
}

TEST(Progress, SaysWhatWasReceivedZeroElidedAndStored) {
  const nlohmann::json backup = {{"bytes_transferred", 1 << 20},
                                 {"bytes_zeroed", 2 << 20},
                                 {"bytes_elided", 0},
                                 {"bytes_stored", 1 << 19},
                                 {"transfer_speed_bps", 1 << 18},
                                 {"progress_percent", 25.0},
                                 {"total_bytes", 4 << 20},
                                 {"seconds_left", 12U}};
  EXPECT_EQ(progress_text(backup, Style()),
            "25.0 %  received 1.0 MiB, zero 2.0 MiB, elided 0 B, stored 512.0 KiB  256.0 KiB/s, "
            "ETA 12 s");
}

TEST(Progress, SaysNoTimeThatTheServerDoesNotKnow) {
  const nlohmann::json backup = {{"bytes_transferred", 1 << 20},
                                 {"transfer_speed_bps", 1 << 18},
                                 {"progress_percent", 0.1},
                                 {"total_bytes", 4 << 20}};
  EXPECT_EQ(progress_text(backup, Style()).find("ETA"), std::string::npos);
}

TEST(ExitStatus, OfARefusalIsMadeOfItsHttpStatus) {
  const auto status = [](int http) {
    return failure_of(ServerRefused(http, "code", "no", "do this")).exit_status;
  };
  EXPECT_EQ(status(400), 2);
  EXPECT_EQ(status(401), 12);
  EXPECT_EQ(status(403), 12);
  EXPECT_EQ(status(404), 10);
  EXPECT_EQ(status(409), 11);
  EXPECT_EQ(status(500), 1);
  EXPECT_EQ(status(507), 1);
}

TEST(ExitStatus, ErrorsInJsonHaveFourMembers) {
  const Failure refused = failure_of(ServerRefused(409, "vm_busy", "a backup runs", "wait"));
  EXPECT_EQ(refused.json().dump(),
            R"({"error":"a backup runs","code":"vm_busy","hint":"wait","exit_status":11})");
  EXPECT_EQ(refused.text(), "a backup runs; wait");
  EXPECT_EQ(failure_of(ServerRefused(409, "x", "a backup runs", "Wait for it.")).text(),
            "a backup runs. Wait for it.");
  EXPECT_EQ(failure_of(ServerUnreachable("ask https://x: wrong version number (SSL routines)",
                                         "is it there?"))
                .hint,
            "What answers there does not speak TLS: write http:// for it");
  EXPECT_EQ(failure_of(UsageError("no")).json().dump(),
            R"({"error":"no","code":"usage","hint":"","exit_status":2})");
  EXPECT_EQ(failure_of(ServerUnreachable("ask x: refused", "is it there?")).code, "unreachable");
  EXPECT_EQ(failure_of(CommandFailed(kInterrupted, "x")).exit_status, 130);
}

TEST(Hints, OfRefusalsThatVerbsMeetNameVerbsAndNoEndpoint) {
  namespace refusals = engine::refusals;
  for (const engine::Refusal& refusal :
       {refusals::vm_not_found("x"), refusals::no_disks(), refusals::repository_not_found("9"),
        refusals::vm_has_no_vcenter("x"), refusals::credentials_missing(),
        refusals::credentials_unresolved("no secret is named 'x'"), refusals::no_ports(1, 2),
        refusals::backup_not_found("x"), refusals::job_not_found("x", ""),
        refusals::backup_is_running("x"), refusals::backup_has_dependents("x", {"y"}),
        refusals::point_not_found("x", 0, "y"), refusals::backup_is_not_completed("x", "failed"),
        refusals::verification_is_running("x"), refusals::points_not_comparable("x", "y"),
        refusals::vm_context_not_found("x"), refusals::vm_of_other_vcenter("x")}) {
    const std::string hint =
        failure_of(ServerRefused(409, refusal.code, refusal.error, refusal.hint)).hint;
    EXPECT_FALSE(hint.empty()) << refusal.code;
    for (const char* const http : {"/api/", "?", "\"", "vm_name", "POST", "DELETE"}) {
      EXPECT_EQ(hint.find(http), std::string::npos) << refusal.code << ": " << hint;
    }
  }
}

TEST(ClientVerbs, TakeTheirServerAndTokenFromOptionOrEnvironment) {
  EXPECT_EQ(parse<StatusOptions>({"status"}).server, "http://127.0.0.1:8082");
  ::setenv("VARVE_URL", "unix:/run/varve.sock", 1);
  ::setenv("VARVE_TOKEN", "of the environment", 1);
  EXPECT_EQ(parse<StatusOptions>({"status"}).server, "unix:/run/varve.sock");
  EXPECT_EQ(parse<StatusOptions>({"status", "--server", "http://x"}).server, "http://x");
  EXPECT_EQ(parse<StatusOptions>({"status"}).token, "of the environment");
  EXPECT_EQ(parse<StatusOptions>({"status", "--token", "given"}).token, "given");
  ::unsetenv("VARVE_URL");
  ::unsetenv("VARVE_TOKEN");
  EXPECT_EQ(refusal_of({"status", "--token-file", "/nonexistent"}),
            "--token-file: read /nonexistent: No such file or directory");
  EXPECT_TRUE(parse<BackupOptions>({"backup", "vm", "--full", "--wait"}).full);
  EXPECT_EQ(refusal_of({"backup", "vm", "--full", "--incremental"}),
            "varve backup: --full and --incremental exclude each other; see varve backup --help");
}

TEST(ClientVerbs, TakeAnIntervalOfAtLeastASecondNoneOrTheServersDefault) {
  for (const char* const interval : {"25h", "1s", "none", "default"}) {
    EXPECT_EQ(parse<VmSetOptions>({"vm", "set", "web01", "--expected-interval", interval})
                  .expected_interval,
              interval);
  }
  EXPECT_EQ(refusal_of({"vm", "set", "web01", "--expected-interval", "10ms"}),
            "--expected-interval: \"10ms\" is less than a second; none expects no backup");
  EXPECT_NE(refusal_of({"vm", "set", "web01"}).find("--expected-interval is required"),
            std::string::npos);
}

TEST(Reference, CompletionsNameEveryVerbAndOption) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(shell);
    for (const Verb& verb : all_verbs()) {
      if (!verb.is_shown()) continue;
      EXPECT_NE(script.find(verb.first_word()), std::string::npos) << shell << " " << verb.name;
    }
    EXPECT_NE(script.find("commit-interval"), std::string::npos) << shell;
    EXPECT_EQ(script.find("read-image"), std::string::npos) << shell;
  }
  EXPECT_THROW(completion_script("tcsh"), UsageError);
}

TEST(Reference, EveryPageHasItsParts) {
  const std::string page = manual_page("varve-vm");
  EXPECT_TRUE(page.starts_with("varve-vm(1) ")) << page.substr(0, 80);
  for (const char* part :
       {"# SYNOPSIS", "*varve vm add*", "# EXIT STATUS", "*--token-file* _FILE_"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part;
  }
  EXPECT_NE(manual_page("varve.toml").find("*commit\\_interval* = _TIME_"), std::string::npos);
  EXPECT_THROW(manual_page("varve-frob"), UsageError);
}

}  // namespace
}  // namespace app
