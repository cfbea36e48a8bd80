#!/usr/bin/env python3
"""Runs clang-tidy with the checks of .clang-tidy over the sources of a build; any finding is an error.

    scripts/tidy.py [--build DIR] [PATH]...   PATH: files or folders (default: all folders of the program)

Needs a configured build (default: build/) for its compile_commands.json, and clang-tidy (scripts/setup.sh --dev).
Example: scripts/tidy.py data/ train/metrics.cpp
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ["base", "kernels", "autograd", "layers", "data", "dist", "checkpoints", "interop", "train"]


def clang_command(entry):
    """The command of one source without what clang cannot read: GCC's precompiled headers."""
    words = entry.get("arguments") or shlex.split(entry["command"])
    while not pathlib.Path(words[0]).name.startswith(("c++", "g++", "clang++")):
        words = words[1:]  # a compiler cache
    kept, skip = [], False
    for word, following in zip(words, [*words[1:], ""]):
        if skip:
            skip = False
        elif word == "-include" and "cmake_pch" in following:
            skip = True
        elif word not in ("-Winvalid-pch", "-Werror"):
            kept.append(word)
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("paths", nargs="*", metavar="PATH", default=FOLDERS)
    options = parser.parse_args()
    tidy = shutil.which("clang-tidy") or shutil.which("clang-tidy-14")
    if not tidy:
        sys.exit("tidy.py: clang-tidy not found: run scripts/setup.sh --dev")
    database = options.build / "compile_commands.json"
    if not database.is_file():
        sys.exit(f"tidy.py: {database} does not exist: run scripts/build.sh first, or name its folder with --build")
    wanted = [(ROOT / path).resolve() for path in options.paths]
    for path in wanted:
        if not path.exists():
            sys.exit(f"tidy.py: {path} does not exist")
    entries = {}
    for entry in json.loads(database.read_text()):
        file = (pathlib.Path(entry["directory"]) / entry["file"]).resolve()
        if file.suffix == ".cpp" and any(path in (file, *file.parents) for path in wanted):
            entries.setdefault(file, {"directory": entry["directory"], "file": str(file),
                                      "arguments": clang_command(entry)})
    if not entries:
        sys.exit(f"tidy.py: no source of {database} is in {', '.join(map(str, options.paths))}")
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "compile_commands.json").write_text(json.dumps(list(entries.values())))

        def check(file):
            return subprocess.run([tidy, "--quiet", f"--config-file={ROOT}/.clang-tidy", "-p", folder, str(file)],
                                  capture_output=True, text=True)

        failed = 0
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for result in pool.map(check, sorted(entries)):
                if result.returncode:
                    failed += 1
                    print(result.stdout or result.stderr, file=sys.stderr)
    print(f"tidy: {len(entries)} sources, {failed} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
