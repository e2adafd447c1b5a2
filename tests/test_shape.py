#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Classes stay small enough to be read, and functions take what they use instead of the bag of everything."""
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import run  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("app", "api", "engine", "io", "nbd", "qcow")
# Plain values are structs: rows, requests and answers have as many members as their specification names.
PRIVATE_METHODS_MAX = 25
FIELDS_MAX = 20
IS_METHOD = re.compile(r"\b~?\w+\s*\([^()]*(\([^()]*\)[^()]*)*\)\s*(const|noexcept|override|final|\s)*(=\s*\w+\s*)?$|operator")
SKIPPED = re.compile(r"^(using|friend|typedef|template\s*<[^>]*>\s*friend|static_assert|enum|struct|class|union)\b")


def sources():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".h", ".cc"}:
                yield path


def code_of(path):
    """Without comments, texts and preprocessor lines."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.S)
    text = re.sub(r'"(\\.|[^"\\\n])*"', '""', text)
    text = re.sub(r"'(\\.|[^'\\\n])'", "' '", text)
    return re.sub(r"^#[^\n]*(\\\n[^\n]*)*", "", text, flags=re.M)


def block_end(text, start):
    """Behind the brace that closes the one before `start`."""
    depth = 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[start], 0)
        start += 1
    return start


def statements(body):
    """The declarations directly inside a class, those of functions without their bodies."""
    at, begun, depth = 0, 0, 0
    while at < len(body):
        if body[at] in "(<" and body[at - 1 : at + 1] != "<<":
            depth += body[at] == "("
        elif body[at] == ")":
            depth -= 1
        elif body[at] == "{" and depth == 0:
            end = block_end(body, at + 1)
            head = body[begun:at].strip()
            if re.search(r"[=\w>\]]$", head) and not re.search(r"\)\s*(const|noexcept|override|final|\s)*$", head) \
                    and not SKIPPED.match(head):
                body = body[:at] + body[end:]  # a field's initializer
                continue
            yield head
            at = begun = end
            continue
        elif body[at] == ";" and depth == 0:
            if body[begun:at].strip():
                yield body[begun:at].strip()
            begun = at + 1
        at += 1


def classes(text):
    """(name, is_struct, body) of every class, those inside others too."""
    for match in re.finditer(r"\b(class|struct)\s+(?:\[\[\w+\]\]\s*)?([\w:]+)(?:\s+final)?\s*(?::[^;{]*)?\{", text):
        end = block_end(text, match.end())
        yield match.group(2), match.group(1) == "struct", text[match.end() : end - 1]


def members(is_struct, body):
    """How many private methods and how many fields."""
    access = "public" if is_struct else "private"
    methods = fields = 0
    for statement in statements(body):
        labels = re.findall(r"\b(public|protected|private)\s*:", statement)
        statement = re.sub(r"\b(public|protected|private)\s*:(?!:)", "", statement).strip()
        if labels:
            access = labels[-1]
        statement = re.sub(r"^\s*(\[\[[^\]]*\]\]\s*)", "", statement)
        if not statement or SKIPPED.match(statement) or "static constexpr" in statement:
            continue
        if IS_METHOD.search(re.sub(r"\)\s*:.*", ")", statement, flags=re.S)) and not re.search(r"std::function<[^;]*$", statement):
            methods += access == "private"
        else:
            fields += 1 + statement.count(",") * (not re.search(r"[<(]", statement))
    return methods, fields


class Classes(unittest.TestCase):
    def test_no_class_has_more_private_methods_or_fields_than_one_remembers(self):
        too_large = {}
        for path in sources():
            for name, is_struct, body in classes(code_of(path)):
                methods, fields = members(is_struct, body)
                if methods > PRIVATE_METHODS_MAX or (fields > FIELDS_MAX and not is_struct):
                    too_large[name] = f"{path.relative_to(ROOT)}: {methods} private methods, {fields} fields"
        self.assertEqual(too_large, {})


class Coroutines(unittest.TestCase):
    def test_no_branch_of_a_conditional_expression_waits(self):
        """GCC 12 makes wrong code of `c ? co_await a : co_await b`: a copy went on for ever"""
        found = [str(path.relative_to(ROOT)) for path in sources() if re.search(r"\?\s*co_await\b", code_of(path))]
        self.assertEqual(found, [])


class Bag(unittest.TestCase):
    """engine::Core is what the steps of a job share; a function that needs one part of it takes that part."""

    FUNCTION = re.compile(r"^[\w:<>,&\*\[\] ]+?\b([\w:]+)\(((?:[^()]|\([^()]*\))*)\)(?: const)? \{", re.M)

    def functions(self):
        """Of each function that takes a Core: the members it names, and the functions it passes the Core to."""
        found = {}
        for path in sorted((ROOT / "engine").rglob("*.cc")):
            text = code_of(path)
            for match in self.FUNCTION.finditer(text):
                parameter = re.search(r"\bCore& (\w+)", match.group(2))
                if not parameter:
                    continue
                core = parameter.group(1)
                body = text[match.end() : block_end(text, match.end())]
                uses = {use.removeprefix("parts.") for use in re.findall(rf"\b{core}\.((?:parts\.)?\w+)", body)}
                callees = set(re.findall(rf"\b(\w+)\((?:[^()]|\([^()]*\))*?\b{core}\b(?!\.)", body))
                name = match.group(1).rpartition("::")[2]
                found.setdefault((path.name, name), []).append((uses, callees))
        return found

    def test_no_function_takes_the_core_to_reach_one_member_of_it(self):
        functions = self.functions()
        self.assertGreater(len(functions), 20)

        def reached(name, seen):
            members = set()
            if name in seen:
                return members
            seen.add(name)
            bodies = [body for (_, known), body in functions.items() if known == name]
            if not bodies:
                return {f"{name}()"}
            for body in bodies:
                for uses, callees in body:
                    members |= uses
                    for callee in callees:
                        members |= reached(callee, seen)
            return members

        for (file, name), bodies in functions.items():
            for uses, callees in bodies:
                members = set(uses)
                for callee in callees:
                    members |= reached(callee, set())
                self.assertGreater(len(members), 1, f"{file}: {name} needs only {members} of its Core")


if __name__ == "__main__":
    run.main()
