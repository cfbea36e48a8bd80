#!/usr/bin/env python3
"""Holds the compiled kernels to the table kernels/cuda/resources.toml.

    resources.py --table TABLE --objects LIST [--nvcc VERSION] [--update]

LIST is a file with one object a line; those without device code are passed over. For every kernel
and architecture: no local memory (LDL = STL = 0, no frame), a __launch_bounds__, and registers,
static shared memory, HMMA instructions and resident blocks as in the table. After a change that is
meant, --update writes the table anew; the diff says what the change did. With another version of nvcc
than the table's, its figures are not comparable: then occupancy may not fall, and the rest is not
compared.

`dynamic_shared` cannot be read from the code: write what the launch asks for, --update keeps it.
"""
import argparse
import pathlib
import sys
import tomllib

import sass

COMPARED = ("registers", "shared", "hmma", "blocks_per_sm")


def collect(objects, table):
    """({kernel: row of the table}, problems)"""
    rows, problems = {}, []
    for path in objects:
        kernels = sass.kernels_of_file(path)
        names = sass.demangle(kernel.name for kernel in kernels)
        for kernel in kernels:
            key = f"{path.name.removesuffix('.o')}: {names[kernel.name]}"
            where = f"{key} ({kernel.arch})"
            loads, stores = kernel.opcodes["LDL"], kernel.opcodes["STL"]
            if loads or stores or kernel.frame:
                problems.append(f"{where}: {kernel.frame} bytes of local memory a thread, {loads} loads "
                                f"and {stores} stores of it: registers spill or an array is indexed at "
                                "run time")
            if kernel.threads is None:
                problems.append(f"{where}: no __launch_bounds__")
                continue
            dynamic = table.get(key, {}).get("dynamic_shared", 0)
            row = rows.setdefault(key, {"threads": kernel.threads, "dynamic_shared": dynamic})
            if kernel.arch in row:
                problems.append(f"{where}: two kernels of one name: give one of them another")
            row[kernel.arch] = {"registers": kernel.registers, "shared": kernel.shared,
                                "hmma": kernel.opcodes["HMMA"],
                                "blocks_per_sm": kernel.blocks_per_sm(dynamic)}
    return rows, problems


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
        if not same_compiler:
            good = column != "blocks_per_sm" or got[column] >= want.get(column, 0)
        if not good:
            yield f"{where}: {column} = {got[column]}, the table says {want.get(column)}"


def write(path, rows, nvcc):
    lines = ["# Resources of each kernel on each architecture, written by tests/simt/resources.py --update.",
             "# blocks_per_sm: blocks of `threads` threads that a multiprocessor holds. dynamic_shared: bytes",
             "# that the launch asks for, written by hand.", f'nvcc = "{nvcc}"']
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
    parser.add_argument("--nvcc", default="unknown")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    table = tomllib.loads(options.table.read_text()) if options.table.exists() else {}
    same_compiler = table.pop("nvcc", options.nvcc) == options.nvcc
    objects = [pathlib.Path(line) for line in options.objects.read_text().split("\n") if line]
    rows, problems = collect(objects, table)
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
