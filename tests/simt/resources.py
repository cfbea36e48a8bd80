#!/usr/bin/env python3
"""Holds the compiled kernels to the table kernels/cuda/resources.toml.

    resources.py --table TABLE --objects LIST --launches RECORD [--nvcc VERSION] [--update]

LIST is a file with one object a line; those without device code are passed over. RECORD is what
tests/train/launch_test.cpp writes: the launches at the sizes of all presets. For every kernel and
architecture: no local memory (LDL = STL = 0, no frame), a __launch_bounds__ that no launch exceeds, and
registers, static shared memory, the most dynamic shared memory of a launch, HMMA instructions and the
blocks that a multiprocessor then holds as in the table. After a change that is meant, --update writes
the table anew; the diff says what the change did. With another version of nvcc than the table's, its
figures are not comparable: then occupancy may not fall, and the rest is not compared.
"""
import argparse
import collections
import pathlib
import sys
import tomllib

import sass

COMPARED = ("registers", "shared", "dynamic_shared", "hmma", "blocks_per_sm")


class Launches:
    """What was launched, by architecture and kernel: the text that launch_test writes."""

    def __init__(self, record):
        rows = [line.split("\t") for line in record.splitlines()]
        names = sass.demangle(row[2] for row in rows)
        self.found = collections.defaultdict(set)  # (threads, static, dynamic)
        for arch, file, symbol, *numbers in rows:
            self.found[arch, file, names[symbol]].add(tuple(map(int, numbers)))

    def of(self, arch, file, kernel):
        """The record knows the files of those kernels alone that are local to one."""
        none = set()
        return self.found.get((arch, file, kernel), none) | self.found.get((arch, "", kernel), none)

    def of_template(self, arch, file, kernel):
        """Those of all instances."""
        template = kernel.partition("<")[0]
        return [one for key, found in self.found.items() for one in found
                if key[0] == arch and key[1] in ("", file) and key[2].partition("<")[0] == template]


def collect(objects, launches):
    """({kernel: row of the table}, problems)"""
    rows, problems = {}, []
    for path in objects:
        kernels = sass.kernels_of_file(path)
        names = sass.demangle(kernel.name for kernel in kernels)
        for kernel in kernels:
            file, name = path.name.removesuffix(".o"), names[kernel.name]
            key = f"{file}: {name}"
            where = f"{key} ({kernel.arch})"
            problems += [f"{where}: {problem}" for problem in faults(kernel)]
            if kernel.threads is None:
                continue
            of_kernel = launches.of(kernel.arch, file, name)
            problems += [f"{where}: {problem}" for problem in launch_faults(kernel, of_kernel)]
            # Without dynamic shared memory an instance has nothing that depends on sizes.
            of_template = launches.of_template(kernel.arch, file, name)
            if not of_kernel and (not of_template or any(dynamic for _, _, dynamic in of_template)):
                problems.append(f"{where}: never launched by tests/train/launch_test.cpp, and takes dynamic "
                                "shared memory: let the test reach it")
            dynamic = max((dynamic for _, _, dynamic in of_kernel), default=0)
            row = rows.setdefault(key, {"threads": kernel.threads})
            if kernel.arch in row:
                problems.append(f"{where}: two kernels of one name: give one of them another")
            row[kernel.arch] = {"registers": kernel.registers, "shared": kernel.shared,
                                "dynamic_shared": dynamic, "hmma": kernel.opcodes["HMMA"],
                                "blocks_per_sm": kernel.blocks_per_sm(dynamic)}
    return rows, problems


def faults(kernel):
    loads, stores = kernel.opcodes["LDL"], kernel.opcodes["STL"]
    if loads or stores or kernel.frame:
        yield (f"{kernel.frame} bytes of local memory a thread, {loads} loads and {stores} stores of it: "
               "registers spill or an array is indexed at run time")
    if kernel.threads is None:
        yield "no __launch_bounds__"


def launch_faults(kernel, launches):
    for threads, static, dynamic in launches:
        if threads > kernel.threads:
            yield f"launched with {threads} threads, __launch_bounds__ says {kernel.threads}"
        if static != kernel.shared:
            yield (f"{kernel.shared} bytes of static shared memory, the emulator counts {static}: its "
                   "limits are not those of the GPU (tests/simt/symbols.cpp)")
        if kernel.blocks_per_sm(dynamic) < 1:
            yield f"with {dynamic} bytes of dynamic shared memory no block fits a multiprocessor"


def compare(rows, table, same_compiler):
    for key in sorted(set(rows) | set(table)):
        if key not in rows:
            yield f"{key}: in the table, but not in the build"
        elif key not in table:
            yield f"{key}: not in the table"
        else:
            for arch in sorted(set(rows[key]) | set(table[key])):
                yield from compare_arch(f"{key} ({arch})", rows[key].get(arch),
                                        table[key].get(arch), same_compiler)


def compare_arch(where, got, want, same_compiler):
    if not isinstance(got, dict) or not isinstance(want, dict):
        if got != want:
            yield f"{where}: {got}, the table says {want}"
        return
    for column in COMPARED:
        good = got[column] == want.get(column)
        if not same_compiler and column != "dynamic_shared":  # which no compiler changes
            good = column != "blocks_per_sm" or got[column] >= want.get(column, 0)
        if not good:
            yield f"{where}: {column} = {got[column]}, the table says {want.get(column)}"


def write(path, rows, nvcc):
    lines = ["# Resources of each kernel on each architecture, written by tests/simt/resources.py --update.",
             "# shared: static, bytes. dynamic_shared: the most that a launch asks for at the sizes of the",
             "# presets. blocks_per_sm: blocks of `threads` threads with it that a multiprocessor holds.",
             f'nvcc = "{nvcc}"']
    for key in sorted(rows):
        lines += ["", f'["{key}"]']
        for name, value in rows[key].items():
            if isinstance(value, dict):
                value = "{ " + ", ".join(f"{k} = {v}" for k, v in value.items()) + " }"
            lines.append(f"{name} = {value}")
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", type=pathlib.Path, required=True)
    parser.add_argument("--objects", type=pathlib.Path, required=True)
    parser.add_argument("--launches", type=pathlib.Path, required=True)
    parser.add_argument("--nvcc", default="unknown")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    table = tomllib.loads(options.table.read_text()) if options.table.exists() else {}
    same_compiler = table.pop("nvcc", options.nvcc) == options.nvcc
    objects = [pathlib.Path(line) for line in options.objects.read_text().split("\n") if line]
    rows, problems = collect(objects, Launches(options.launches.read_text()))
    if not rows:
        problems.append(f"no kernel in any of the {len(objects)} objects")
    if options.update and rows:
        write(options.table, rows, options.nvcc)
    else:
        problems += compare(rows, table, same_compiler)
        if problems:
            problems.append(f"{options.table}: after a change that is meant, run this with --update")
    print("\n".join(problems) or f"{len(rows)} kernels as in {options.table}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
