#!/usr/bin/env python3
"""Tests of delete_barriers.py on the kernels of barrier_sample, where it is known what is needed.

    delete_barriers_test.py BUILD    simt_barrier_sample_test_race is built there
"""
import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
SAMPLE = "tests/simt/barrier_sample"
TABLE = HERE / "barrier_sample/barriers.toml"
BUILD = None


def delete_barriers(table):
    return subprocess.run([sys.executable, HERE / "delete_barriers.py", "--build", BUILD, "--all",
                           "--table", table], capture_output=True, text=True)


class DeleteBarriers(unittest.TestCase):
    def test_needed_and_redundant(self):
        run = delete_barriers(TABLE)
        self.assertEqual(run.returncode, 1, run.stdout + run.stderr)  # one survives
        *lines, total = run.stdout.splitlines()
        found = {line.split()[4].split(":")[0]: line for line in lines}
        self.assertEqual(set(found), {f"{SAMPLE}/{f}" for f in ("needed.cu", "redundant.cu", "sum.cuh")})
        for file in "needed.cu", "sum.cuh":
            self.assertIn("found by simt_barrier_sample_test_race", found[f"{SAMPLE}/{file}"])
        self.assertIn("SURVIVES", found[f"{SAMPLE}/redundant.cu"])
        self.assertEqual(total, "3 deletions, 1 of them unnoticed")

    def refused(self, old, new):
        """What is said to the table with `new` in place of `old`."""
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as table:
            text = TABLE.read_text()
            self.assertIn(old, text)
            table.write(text.replace(old, new))
            table.flush()
            run = delete_barriers(table.name)
        self.assertEqual((run.returncode, run.stdout), (1, ""))
        return run.stderr

    def test_source_without_entry(self):
        self.assertIn(f"names no test for the barriers of {SAMPLE}/needed.cu",
                      self.refused('"needed.cu"', '# "needed.cu"'))

    def test_entry_without_source(self):
        self.assertIn("gone.cu is no file", self.refused('"needed.cu"', '"gone.cu"'))

    def test_filter_that_matches_nothing(self):
        self.assertIn("no test matches *.Thrice/*", self.refused("*.Twice/*", "*.Thrice/*"))


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main()
