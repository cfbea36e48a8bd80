#!/usr/bin/env python3
"""Deletes one barrier or wait of a kernel at a time and requires that a test fails.

    delete_barriers.py --build BUILD --library LIBRARY_race SOURCE TEST[:FILTER] [SOURCE TEST...]

    tests/simt/delete_barriers.py --build build --library simt_planted_race \\
        tests/simt/planted.cu simt_planted_test_race

SOURCE is a kernel source of the CMake target LIBRARY_race (rodimus_simt_library made it), TEST the
name of a program linked with it, FILTER for --gtest_filter. Build both first. Barriers are looked for
in the source and in the headers of kernels/cuda that it includes.

Nothing in the source tree or the build is touched: a mutant is compiled in a temporary folder with the
build's own command and linked in front of the library. Prints a table; the exit code is 1 when a mutant
survives, that is, when no test notices that a barrier is gone.
"""
import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BARRIER = re.compile(r"\b(?:(?:rodimus::)?ptx::)?"
                     r"(?:__syncthreads|__syncwarp|cp_wait\s*<[^;]*?>|cp_commit|bar_sync)"
                     r"\s*\([^;]*?\)\s*;")
EXCEPT = {"dev.cuh", "ptx.cuh"}  # they define the barriers
TIMEOUT_S = 300


def barriers(path):
    """(start, end, line number, text) of each barrier of a file. In planted.cu those are left out that
    are part of a fault, not of its kernel."""
    text = code = path.read_text()
    if path == ROOT / "tests/simt/planted.cu":
        code = re.sub(r"[^\n]*// planted\n", lambda m: " " * (len(m[0]) - 1) + "\n", code)
    code = re.sub(r"//[^\n]*", lambda m: " " * len(m[0]), code)
    for match in BARRIER.finditer(code):
        line = text.count("\n", 0, match.start()) + 1
        yield match.start(), match.end(), line, match[0]


class Mutants:
    def __init__(self, build, library, source, test, folder):
        self.build, self.source = build, source
        self.overlay = folder / "overlay"
        self.object, self.program = folder / "mutant.o", folder / "mutant"
        self.compile = self.compile_command(library)
        self.link = self.link_command(test)

    def compile_command(self, library):
        for entry in json.loads((self.build / "compile_commands.json").read_text()):
            if pathlib.Path(entry["file"]) == self.source and f"/{library}.dir/" in entry["command"]:
                words = shlex.split(entry["command"])
                words[words.index("-o") + 1] = str(self.object)
                # The overlay comes first: a mutated header there hides the one of the tree.
                compiler = 1 if "ccache" in words[0] else 0
                return [*words[:compiler + 1], f"-I{self.overlay}", *words[compiler + 1:]]
        sys.exit(f"error: {library} does not compile {self.source}; see {self.build}/compile_commands.json")

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

    def files(self):
        """The source and those headers of kernels/cuda that it includes."""
        words = list(self.compile)
        words[words.index("-c")] = "-M"
        del words[words.index("-o"):words.index("-o") + 2]
        words = [w for i, w in enumerate(words) if w not in ("-MD",) and
                 not (i and words[i - 1] in ("-MF", "-MT")) and w not in ("-MF", "-MT")]
        listed = subprocess.run(words, capture_output=True, text=True, cwd=self.build)
        if listed.returncode:
            sys.exit(f"error: {listed.stderr}")
        paths = {pathlib.Path(w) for w in listed.stdout.split() if w.endswith(".cuh")}
        cuda = ROOT / "kernels/cuda"
        return [self.source, *sorted(p for p in paths if cuda in p.parents and p.name not in EXCEPT)]

    def make(self, path, start, end):
        """Builds the program without the barrier at [start, end) of `path`. Returns an error or None."""
        for old in list(self.overlay.rglob("*.*")):
            old.unlink()
        text = path.read_text()
        mutant = self.overlay / path.relative_to(ROOT)
        mutant.parent.mkdir(parents=True, exist_ok=True)
        gone = re.sub(r"[^\n]", " ", text[start:end - 1]) + ";" if end > start else ""
        mutant.write_text(text[:start] + gone + text[end:])
        words = list(self.compile)
        if path == self.source:
            words[words.index("-c") + 1] = str(mutant)
        # A variable that only the deleted line used is no reason to fail.
        for command in ([*words, "-Wno-error"], self.link):
            run = subprocess.run(["nice", *command], cwd=self.build, capture_output=True, text=True)
            if run.returncode:
                return run.stderr.strip().splitlines()[0]
        return None

    def run(self, test_filter):
        """(whether the test passes, the first thing that it complained of)"""
        command = ["nice", self.program, "--gtest_fail_fast", f"--gtest_filter={test_filter}"]
        try:
            run = subprocess.run(command, cwd=self.build, capture_output=True, text=True,
                                 timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False, "does not end"
        if re.search(r"^\[==========\] 0 tests", run.stdout, re.M):
            sys.exit(f"error: no test matches {test_filter}")
        reason = re.search(r"\[([a-z][a-z-]+)\] ", run.stdout) or re.search(r"(\w*Failure)", run.stdout)
        return run.returncode == 0, reason[1] if reason else f"exit code {run.returncode}"


def examine(options, source, test, folder):
    """Rows (place, barrier, verdict); the verdict of a survivor starts with SURVIVES."""
    test, _, test_filter = test.partition(":")
    mutants = Mutants(options.build, options.library, source, test, folder)
    error = mutants.make(source, 0, 0)
    passes, reason = (False, error) if error else mutants.run(test_filter or "*")
    if not passes:
        sys.exit(f"error: {test} fails without any deletion: {reason}")
    for path in mutants.files():
        for start, end, line, text in barriers(path):
            error = mutants.make(path, start, end)
            passes, reason = (False, f"does not compile: {error}") if error else mutants.run(
                test_filter or "*")
            verdict = "SURVIVES" if passes or error else f"found: {reason}"
            if error:
                verdict += f" ({reason})"
            yield f"{path.relative_to(ROOT)}:{line}", re.sub(r"\s+", " ", text), verdict


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("pairs", nargs="+", metavar="SOURCE TEST[:FILTER]")
    options = parser.parse_args()
    if len(options.pairs) % 2:
        parser.error("expected pairs of SOURCE and TEST")
    options.build = options.build.resolve()
    total = survivors = 0
    for source, test in zip(options.pairs[::2], options.pairs[1::2]):
        with tempfile.TemporaryDirectory() as folder:
            for place, text, verdict in examine(options, pathlib.Path(source).resolve(), test,
                                                pathlib.Path(folder)):
                print(f"{place:<44} {text:<44} {verdict}", flush=True)
                total += 1
                survivors += verdict.startswith("SURVIVES")
    print(f"{total} deletions, {survivors} of them unnoticed")
    return 1 if survivors or not total else 0


if __name__ == "__main__":
    sys.exit(main())
