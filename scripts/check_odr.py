#!/usr/bin/env python3
"""Looks for violations of the One Definition Rule: a function that two objects define in two places.

    scripts/check_odr.py BUILD        all objects in the folder BUILD, compiled with -O0 and -g1 or more
    scripts/check_odr.py --self-test  plants violations and checks that they are found

If several objects contain the same inline function or template, the linker keeps one copy: if they differ, some callers
run the wrong one. Gold compares the source lines of copies that differ in size. Use -O0, so that copies exist: what is
inlined everywhere is in no object. This check sees the results of macros and templates; the rule "one name" of
check_includes.py reads the text, and sees types, constants and copies of equal size.
"""
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# The emulator's race build contains the same sources again; nvcc has its own debug information; a GPU test is the
# CPU's test source in a separate program, with another backend in tests/support/device.h.
LEFT_OUT = re.compile(r"_race\.dir/|_test_cuda(_objects)?\.dir/|/rodimus_cuda\.dir/|/CompilerId|/CMakeScratch/")


def objects_of(build):
    return sorted(str(path) for path in build.rglob("*.o") if not LEFT_OUT.search(path.as_posix()))


def violations(objects):
    """The linker's report of each violation, sorted; SystemExit if it gives none."""
    gold = shutil.which("ld.gold")
    if not gold:
        sys.exit("error: check_odr.py needs the linker gold (ld.gold): install binutils (Debian 12) or binutils-gold")
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "objects"
        names.write_text("".join(f'"{name}"\n' for name in objects))
        # One relocatable object from all, including the main functions of several programs.
        run = subprocess.run([gold, "-r", "-z", "muldefs", "--detect-odr-violations", "-o", f"{folder}/all.o",
                              f"@{names}"], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"error: check_odr.py: ld.gold failed:\n{run.stderr[-2000:]}")
    found = re.findall(r"warning: while linking .*?: (symbol '.*?' defined in multiple places.*(?:\n  .*)*)", run.stderr)
    return sorted(set(found))


def check(build):
    objects = objects_of(build)
    if not objects:
        sys.exit(f"error: check_odr.py: no objects in {build}: build there first")
    found = violations(objects)
    for text in found:
        print(text)
    print(f"check_odr: {len(found)} violations in {len(objects)} objects")
    return not found


# Two files of one program, each a list of lines, and whether they break the rule.
BODY = "inline int chunk() {{ return {}; }}"
PLANTS = [
    (False, [BODY.format(1)], ["int other() { return 2; }"]),
    (False, ["namespace {", BODY.format(1), "}"], ["namespace {", "", BODY.format(2), "}"]),
    (False, ["namespace cpu {", BODY.format(1), "}", "int a() { return cpu::chunk(); }"],
            ["namespace cuda {", "", BODY.format(2), "}", "int b() { return cuda::chunk(); }"]),
    (True, [BODY.format(1), "int a() { return chunk(); }"], ["", "inline int chunk() { int x = 2; return x; }", "int b() { return chunk(); }"]),
    (True, ["struct Tiling { Tiling() : chunks(1) {} int chunks; };", "Tiling a() { return {}; }"],
           ["", "struct Tiling { Tiling() : keys(1), width(2) {} int keys, width; };", "Tiling b() { return {}; }"]),
    (True, ["template <class T> T twice(T x) { return 2 * x; }", "int a() { return twice(1); }"],
           ["", "template <class T> T twice(T x) { x += x; return x; }", "int b() { return twice(1); }"]),
]


def self_test():
    failures = 0
    for bad, *files in PLANTS:
        with tempfile.TemporaryDirectory() as folder:
            for number, lines in enumerate(files):
                source = Path(folder) / f"{number}.cpp"
                source.write_text("\n".join(lines) + "\n")
                subprocess.run(["g++", "-O0", "-g1", "-c", source, "-o", source.with_suffix(".o")], check=True)
            found = violations(objects_of(Path(folder)))
        if bool(found) != bad:
            failures += 1
            print(f"self-test: wanted {'a' if bad else 'no'} violation in {files}, got {found}")
    print(f"check_odr: self-test: {len(PLANTS) - failures} of {len(PLANTS)} passed")
    return failures == 0


def main(arguments):
    if arguments == ["--self-test"]:
        return 0 if self_test() else 1
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 2
    return 0 if check(Path(arguments[0])) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
