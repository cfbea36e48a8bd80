#!/usr/bin/env python3
"""Tests of the compiler gates: sass.py against what ptxas itself prints, and planted faults.

    sass_test.py NVCC FLAGS...    FLAGS: those with which the project compiles its kernels
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import resources
import sass

HERE = pathlib.Path(__file__).resolve().parent
ARCHITECTURES = ["80", "90", "100"]
NVCC, FLAGS = None, []


def compile_sample(folder, *flags, name="gate_sample.cu.o"):
    """(completed process, object)"""
    output = pathlib.Path(folder) / name
    generate = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    run = subprocess.run([NVCC, "-std=c++20", f"-I{HERE.parents[1]}", *generate, "--no-compress", *flags,
                          "-c", "-o", output, HERE / "gate_sample.cu"], capture_output=True, text=True)
    return run, output


def printed_by_ptxas(text):
    """{(mangled, arch): (registers, shared)} from the output of -Xptxas=-v"""
    found = {}
    blocks = re.split(r"Compiling entry function '(\w+)' for '(\w+)'", text)[1:]
    for name, arch, body in zip(blocks[::3], blocks[1::3], blocks[2::3]):
        registers = int(re.search(r"Used (\d+) registers", body)[1])
        shared = re.search(r"(\d+) bytes smem", body)
        found[name, arch] = registers, int(shared[1]) if shared else 0
    return found


def launched(threads=64, static=2048, dynamic=0, kernel="_ZN7rodimus4gate11good_kernelEPfPKji"):
    """The record of one launch on each architecture."""
    return resources.Launches("".join(f"sm_{arch}\t\t{kernel}\t{threads}\t{static}\t{dynamic}\n"
                                      for arch in ARCHITECTURES))


class Gates(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        run, cls.planted = compile_sample(cls.folder.name, "-DGATE_PLANTED", "-Xptxas=-v",
                                          name="planted.cu.o")
        cls.printed = printed_by_ptxas(run.stdout + run.stderr)
        assert run.returncode == 0, run.stderr

    def test_clean_kernel(self):
        run, output = compile_sample(self.folder.name, *FLAGS)
        self.assertEqual(run.returncode, 0, run.stderr)
        kernels = sass.kernels_of_file(output)
        self.assertEqual([k.arch for k in kernels], ["sm_80", "sm_90", "sm_100"])
        for kernel in kernels:
            self.assertEqual(kernel.opcodes["HMMA"], 8)
            self.assertEqual(kernel.opcodes["BAR"], 1)
            self.assertEqual((kernel.opcodes["LDL"], kernel.opcodes["STL"], kernel.frame), (0, 0, 0))
            self.assertEqual((kernel.threads, kernel.shared), (64, 2048))
        rows, problems = resources.collect([output], launched())
        self.assertEqual(problems, [])
        self.assertEqual(list(rows), ["gate_sample.cu: gate::good_kernel"])
        self.assertEqual(list(resources.compare(rows, rows, True)), [])
        # The most that a launch asks for, and as many blocks as then fit.
        rows, problems = resources.collect([output], launched(dynamic=100 << 10))
        self.assertEqual(problems, [])
        row = rows["gate_sample.cu: gate::good_kernel"]
        self.assertEqual([row[f"sm_{a}"]["dynamic_shared"] for a in ARCHITECTURES], [100 << 10] * 3)
        self.assertEqual([row[f"sm_{a}"]["blocks_per_sm"] for a in ARCHITECTURES], [1, 2, 2])
        for faulty, what in [(launched(threads=65), "__launch_bounds__ says 64"),
                             (launched(static=2032), "the emulator counts 2032"),
                             (launched(dynamic=230 << 10), "no block fits a multiprocessor"),
                             (launched(kernel="_ZN7rodimus4gate5otherEv"), "never launched")]:
            _, problems = resources.collect([output], faulty)
            self.assertEqual([what in problem for problem in problems], [True] * 3, problems)

    def test_agrees_with_ptxas(self):
        self.assertEqual(len(self.printed), 4 * len(ARCHITECTURES))
        read = {(k.name, k.arch): (k.registers, k.shared) for k in sass.kernels_of_file(self.planted)}
        self.assertEqual(read, self.printed)

    def test_planted_faults_are_found(self):
        _, problems = resources.collect([self.planted], launched())
        for arch in ARCHITECTURES:
            for name, what in [("spilling", "local memory"), ("local_array", "local memory"),
                               ("unbounded", "no __launch_bounds__")]:
                found = [p for p in problems if f"{name}_kernel (sm_{arch})" in p and what in p]
                self.assertEqual(len(found), 1, f"{name} on sm_{arch}: {problems}")
        for kernel in sass.kernels_of_file(self.planted):
            if "spilling" in kernel.name or "local_array" in kernel.name:
                self.assertGreater(kernel.opcodes["LDL"], 0, kernel.name)
                self.assertGreater(kernel.opcodes["STL"], 0, kernel.name)

    def test_spill_fails_the_build(self):
        run, _ = compile_sample(self.folder.name, "-DGATE_PLANTED", *FLAGS)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("spill", run.stdout + run.stderr)

    def test_changed_table_is_found(self):
        row = {"registers": 40, "shared": 0, "dynamic_shared": 64, "hmma": 8, "blocks_per_sm": 4}
        want = {"k": {"threads": 64, "sm_90": row}}
        for column in row:
            got = {"k": {**want["k"], "sm_90": {**row, column: row[column] - 1}}}
            self.assertEqual(len(list(resources.compare(got, want, True))), 1, column)
        for column, found in [("blocks_per_sm", 1), ("dynamic_shared", 1), ("registers", 0)]:
            got = {"k": {**want["k"], "sm_90": {**row, column: row[column] - 1}}}
            self.assertEqual(len(list(resources.compare(got, want, False))), found, column)
        self.assertEqual(len(list(resources.compare({}, want, True))), 1)
        self.assertEqual(len(list(resources.compare(want, {}, True))), 1)

    def test_occupancy(self):
        # Worked out by hand from the limits: (registers, static shared, threads, arch) -> blocks.
        for registers, shared, threads, arch, want in [
                (32, 0, 256, "sm_80", 8), (128, 0, 128, "sm_80", 4), (255, 0, 256, "sm_90", 1),
                (64, 49152, 128, "sm_80", 3), (64, 49152, 128, "sm_90", 4), (16, 0, 32, "sm_90", 32)]:
            kernel = sass.Kernel("k", arch, registers, shared, 0, threads, None)
            self.assertEqual(kernel.blocks_per_sm(0), want, (registers, shared, threads, arch))


if __name__ == "__main__":
    NVCC, *FLAGS = sys.argv[1:]
    unittest.main(argv=sys.argv[:1])
