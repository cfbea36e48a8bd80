#!/usr/bin/env python3
"""Deletes one barrier or wait of a kernel at a time and requires that a test fails.

    delete_barriers.py --build BUILD --all [--table TABLE]
    delete_barriers.py --build BUILD --library LIBRARY_race SOURCE TEST[:FILTER] [SOURCE TEST...]

    tests/simt/delete_barriers.py --build build --library simt_planted_race \\
        tests/simt/planted.cu simt_planted_test_race

--all tries every barrier of the kernels; TABLE (barriers.toml, which explains itself) says which tests
must notice. In the other form SOURCE is a kernel source of the CMake target LIBRARY_race
(rodimus_simt_library made it), TEST the name of a program linked with it, FILTER for --gtest_filter.
Build the tests first.

A barrier of a header counts as found when the tests of any of the sources that include it notice. A source
whose object stays the same bit for bit does not use the barrier and proves nothing.

Nothing in the source tree or the build is touched: a mutant is compiled in a temporary folder with the
build's own command (but -O1) and linked in front of the library. Prints a line for each barrier; the
exit code is 1 when one survives, that is, when no test notices that it is gone.
"""
import argparse
import json
import pathlib
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
BARRIER = re.compile(r"\b(?:(?:(?:rodimus::)?cuda::)?ptx::)?"
                     r"(?:__syncthreads|__syncwarp|cp_wait\s*<[^;]*?>|cp_commit|bar_sync)"
                     r"\s*\([^;]*?\)\s*;")
SUFFIXES = {".cu", ".cuh", ".h"}
EXCEPT = {"dev.cuh", "ptx.cuh"}  # they define the barriers
TIMEOUT_S = 300


@dataclass(frozen=True)
class Barrier:
    path: pathlib.Path
    start: int
    end: int

    def __str__(self):
        text = self.path.read_text()
        line = text.count("\n", 0, self.start) + 1
        code = re.sub(r"\s+", " ", text[self.start:self.end])
        return f"{f'{shown(self.path)}:{line}':<44} {code:<40}"

    def deleted(self):
        """The text of the file without it; every other character keeps its place."""
        text = self.path.read_text()
        gone = re.sub(r"[^\n]", " ", text[self.start:self.end - 1]) + ";"
        return text[:self.start] + gone + text[self.end:]


def shown(path):
    return path.relative_to(ROOT) if ROOT in path.parents else path


def barriers(path):
    """Those of a file. In planted.cu the ones are left out that are part of a fault, not of its kernel."""
    code = path.read_text()
    if path == ROOT / "tests/simt/planted.cu":
        code = re.sub(r"[^\n]*// planted\n", lambda m: " " * (len(m[0]) - 1) + "\n", code)
    code = re.sub(r"//[^\n]*", lambda m: " " * len(m[0]), code)
    return [Barrier(path, *match.span()) for match in BARRIER.finditer(code)]


class Source:
    """A kernel source, and the tests ("TEST[:FILTER]") that must notice what is deleted."""

    def __init__(self, build, library, path, tests, folder):
        self.build, self.path = build, path
        self.tests = [test.partition(":")[::2] for test in tests]
        self.overlay = folder / path.name / "overlay"
        self.object, self.program = (folder / path.name / name for name in ("mutant.o", "mutant"))
        self.compile = self.compile_command(library)
        self.links = [self.link_command(test) for test, _ in self.tests]
        self.files = [path, *self.headers()]
        self.unchanged = None  # the object without any deletion

    def compile_command(self, library):
        for entry in json.loads((self.build / "compile_commands.json").read_text()):
            if pathlib.Path(entry["file"]) == self.path and f"/{library}.dir/" in entry["command"]:
                words = shlex.split(entry["command"])
                words[words.index("-o") + 1] = str(self.object)
                words[words.index("-c") + 1] = str(self.overlay / self.path.relative_to(ROOT))
                if pathlib.Path(words[0]).name == "ccache":  # no mutant comes a second time
                    del words[0]
                # The overlay comes first: its headers hide those of the tree. A variable that only the
                # deleted line used is no reason to fail.
                return [words[0], f"-I{self.overlay}", *words[1:], "-O1", "-g0", "-Wno-error"]
        sys.exit(f"error: {library} does not compile {self.path}; see {self.build}/compile_commands.json")

    def link_command(self, test):
        commands = subprocess.run(["ninja", "-C", self.build, "-t", "commands", test],
                                  capture_output=True, text=True)
        if commands.returncode:
            sys.exit(f"error: no target {test} in {self.build}: {commands.stderr.strip()}")
        last = commands.stdout.strip().splitlines()[-1]
        words = shlex.split(last)
        words = words[words.index("&&") + 1:] if words[0] == ":" else words
        words = words[:words.index("&&")] if "&&" in words else words
        output = words.index("-o")
        words[output + 1] = str(self.program)
        return [*words[:output], str(self.object), *words[output:]]

    def headers(self):
        """Those of the source's own folder that it includes and that have barriers."""
        words = list(self.compile)
        words[words.index("-c"):words.index("-c") + 2] = ["-M", str(self.path)]
        del words[words.index("-o"):words.index("-o") + 2]
        listed = subprocess.run(words, capture_output=True, text=True, cwd=self.build)
        if listed.returncode:
            sys.exit(f"error: {listed.stderr}")
        names = shlex.split(listed.stdout.replace("\\\n", " "))  # spaces in paths are escaped
        paths = {pathlib.Path(name) for name in names if pathlib.Path(name).suffix in SUFFIXES}
        return sorted(p for p in paths if p.parent == self.path.parent and p.name not in EXCEPT and
                      barriers(p))

    def build_object(self, barrier=None):
        """Compiles the source without `barrier`. Returns an error or None."""
        for path in self.files:  # all of them, as paths that differ would make objects differ
            copy = self.overlay / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(barrier.deleted() if barrier and path == barrier.path else path.read_text())
        return self.call(self.compile)

    def call(self, command):
        run = subprocess.run(["nice", *command], cwd=self.build, capture_output=True, text=True)
        return (run.stderr.strip() or f"exit code {run.returncode}").splitlines()[0] if run.returncode else None

    def run(self, test_filter):
        """The first thing that the linked test complains of, or None when it passes."""
        # At its first failure the program ends, not only the test: the schedules still to come tell nothing new.
        command = ["nice", self.program, "--gtest_break_on_failure", f"--gtest_filter={test_filter or '*'}"]
        try:
            run = subprocess.run(command, cwd=self.build, capture_output=True, text=True,
                                 timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return "does not end"
        if re.search(r"^\[==========\] 0 tests|^\[==========\] Running 0 tests", run.stdout, re.M):
            sys.exit(f"error: no test matches {test_filter}")
        reason = re.search(r"\[([a-z][a-z-]+)\] ", run.stdout) or re.search(r"(\w*Failure)", run.stdout)
        return (reason[1] if reason else f"exit code {run.returncode}") if run.returncode else None

    def prepare(self):
        """The tests must pass as long as nothing is deleted."""
        error = self.build_object()
        for (test, test_filter), link in zip(self.tests, self.links):
            error = error or self.call(link) or self.run(test_filter)
            if error:
                sys.exit(f"error: {test} fails without any deletion in {shown(self.path)}: {error}")
        self.unchanged = self.object.read_bytes()

    def examine(self, barrier):
        """What becomes of a deletion: ("found", by what), ("survives", why) or ("unused", where)."""
        if self.unchanged is None:
            self.prepare()
        error = self.build_object(barrier)
        if error:
            return "survives", f"does not compile: {error}"
        if self.object.read_bytes() == self.unchanged:
            return "unused", shown(self.path)
        for (test, test_filter), link in zip(self.tests, self.links):
            error = self.call(link)
            if error:
                return "survives", f"does not link: {error}"
            reason = self.run(test_filter)
            if reason:
                return "found", f"by {test}: {reason}"
        return "survives", " and ".join(test for test, _ in self.tests)


def verdict(barrier, sources):
    """(state, text) of a barrier: found when one of the sources' tests finds it."""
    tried = []
    for source in sources:
        state, text = source.examine(barrier)
        if state == "found":
            return state, text
        tried.append((state, text))
    survived = [text for state, text in tried if state == "survives"]
    if survived:
        return "survives", ", ".join(survived)
    return "unused", "no code of " + ", ".join(str(text) for _, text in tried)


def read_table(path):
    """(library, {source: tests}). Every file of the folder that has a barrier must be covered, see uncovered()."""
    table = tomllib.loads(path.read_text())
    folder = ROOT / table["folder"]
    for name in table["tests"]:
        if not (folder / name).is_file():
            sys.exit(f"error: {path}: {name} is no file of {folder}")
    return table["library"], {folder / name: tests for name, tests in table["tests"].items()}


def uncovered(sources):
    """Files with barriers beside the sources that no source is or includes."""
    covered = {file for source in sources for file in source.files}
    folders = {source.path.parent for source in sources}
    files = [f for folder in folders for f in sorted(folder.iterdir()) if f.suffix in SUFFIXES and f.name not in EXCEPT]
    return [f for f in files if f not in covered and barriers(f)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--all", action="store_true", help="every source of the table")
    parser.add_argument("--table", type=pathlib.Path, default=ROOT / "tests/simt/barriers.toml")
    parser.add_argument("--library")
    parser.add_argument("pairs", nargs="*", metavar="SOURCE TEST[:FILTER]")
    options = parser.parse_args()
    if options.all == bool(options.pairs) or bool(options.pairs) != bool(options.library):
        parser.error("expected --all, or --library and pairs of SOURCE and TEST")
    if len(options.pairs) % 2:
        parser.error("expected pairs of SOURCE and TEST")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a test ends by a trap
    if options.all:
        library, tests = read_table(options.table)
    else:
        paths = [pathlib.Path(source).resolve() for source in options.pairs[::2]]
        library, tests = options.library, {}
        for path, test in zip(paths, options.pairs[1::2]):
            tests.setdefault(path, []).append(test)

    with tempfile.TemporaryDirectory() as folder:
        sources = [Source(options.build.resolve(), library, path, tests, pathlib.Path(folder))
                   for path, tests in tests.items()]
        if options.all and (missing := uncovered(sources)):
            sys.exit(f"error: {options.table} names no test for the barriers of "
                     f"{', '.join(str(shown(f)) for f in missing)}")
        files = dict.fromkeys(file for source in sources for file in source.files)
        work = [barrier for file in files for barrier in barriers(file)]
        count, start = {"found": 0, "survives": 0, "unused": 0}, time.monotonic()
        for done, barrier in enumerate(work, 1):
            state, text = verdict(barrier, [s for s in sources if barrier.path in s.files])
            if state == "unused" and options.all:
                state = "survives"  # nothing else could show that it is needed
            count[state] += 1
            left_s = (time.monotonic() - start) / done * (len(work) - done)
            print(f"[{done}/{len(work)}, {left_s / 60:.0f} min left] {barrier} "
                  f"{state.upper() if state == 'survives' else state} {text}", flush=True)
    unused = f", {count['unused']} not used by these sources" if count["unused"] else ""
    print(f"{count['found'] + count['survives']} deletions, {count['survives']} of them unnoticed{unused}")
    return 1 if count["survives"] or not count["found"] else 0


if __name__ == "__main__":
    sys.exit(main())
