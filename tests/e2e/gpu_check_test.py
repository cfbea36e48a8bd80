"""scripts/gpu_check.sh --bundle without a GPU: that it goes on after failures, counts them, keeps its limits and writes valid
JSON. The folder looks like a bundle, but its program trains on the CPU where a GPU is asked for, its tests are some that run on
the emulator, and nvidia-smi, ncu and compute-sanitizer are stand-ins that write down how they were called."""
import json
import os
import pathlib
import shutil
import subprocess
import time
import unittest

import support
from support import Case

SOURCE = pathlib.Path(__file__).resolve().parents[2]
KERNELS = [f"kernel_{n}" for n in range(12)]
PROGRAMS = {
    "bin/rodimus": f'exec "{support.RODIMUS}" "${{@/run.device=cuda/run.device=cpu}}"',
    "tools/nvidia-smi": 'echo "NVIDIA H200"',
    # Kernel n takes n us in each of two launches; the second time a comma separates thousands.
    "tools/ncu": """echo "$*" >>"$CALLS/ncu"
while (($# > 0)); do
  if [[ $1 = --log-file ]]; then
    for n in {0..11}; do
      for time in "$n" "$n,000"; do
        echo "\\"$n\\",\\"7\\",\\"rodimus\\",\\"127.0.0.1\\",\\"kernel_$n\\",\\"1\\",\\"gpu__time_duration.sum\\",\\"ns\\",\\"$time\\""
      done
    done >"$2"
  fi
  shift
done""",
    "tools/compute-sanitizer": """echo "$*" >>"$CALLS/sanitizer"
while [[ $1 != */gpu_tests ]]; do shift; done
exec "$@" """,
}


class GpuCheck(Case):
    def setUp(self):
        super().setUp()
        for name in ("scripts", "configs", "bin", "tools", "calls"):
            (self.folder / name).mkdir()
        for name in ("common", "gpu_check"):
            shutil.copy(SOURCE / "scripts" / f"{name}.sh", self.folder / "scripts")
        for name in ("tiny", "125m", "demo"):
            shutil.copy(self.config(name, run__threads=1), self.folder / "configs")
        demo = (self.folder / "configs/demo.toml").read_text()
        (self.folder / "configs/demo.toml").write_text(demo.replace("steps = 20\n", "steps = 210\n"))
        for name, text in PROGRAMS.items():
            self.program(name, text)
        self.program("bin/gpu_tests", f'GTEST_REPEAT=1 exec "{os.environ["GPU_TESTS"]}" "$@"')

    def program(self, name, text):
        path = self.folder / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def check(self, *options, golden=SOURCE / "tests/golden"):
        env = dict(os.environ, PATH=f"{self.folder}/tools:{os.environ['PATH']}", CALLS=str(self.folder / "calls"),
                   RODIMUS_GOLDEN=str(golden))
        out = self.folder / "out"
        result = subprocess.run([self.folder / "scripts/gpu_check.sh", "--bundle", "--out", out, *options], env=env,
                                capture_output=True, text=True, timeout=600)
        report = out / "report.json"
        sections = json.loads(report.read_text())["sections"] if report.exists() else []
        return result, {section["name"]: section for section in sections}

    def calls(self, name):
        return (self.folder / "calls" / name).read_text().splitlines()

    def test_a_failure_is_counted_and_the_rest_goes_on(self):
        result, sections = self.check("--part", "tests", golden=self.folder)  # no golden files there
        statuses = {name: section["status"] for name, section in sections.items()}
        self.assertEqual(statuses.pop("test DdtsGatesGolden"), "FAILED: exit code 1", result.stderr)
        self.assertEqual(set(statuses), {"list of the tests", "test DdtsGates/0", "test DdtsGates/1", "test DdtsGatesExtremes",
                                         "one step of tiny", "one step of 125m", "one step of demo"})
        self.assertEqual(set(statuses.values()), {"passed"}, result.stderr)
        self.assertEqual(result.returncode, 1)
        self.assertIn("7 passed, 1 failed, 0 not run", result.stderr)
        self.assertIn("cannot open directory", (self.folder / "out/report.txt").read_text())

        # Another part, in the same report; a tool that is missing is neither passed nor failed.
        for tool in ("ncu", "compute-sanitizer"):
            (self.folder / "tools" / tool).unlink()
        result, sections = self.check("--part", "memory")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("0 passed, 0 failed, 1 not run", result.stderr)
        self.assertEqual(sections["memcheck and racecheck"]["status"], "not run: compute-sanitizer was not found")
        self.assertEqual(sections["test DdtsGatesGolden"]["exit_code"], 1)

    def test_speed_memory_and_training(self):
        result, sections = self.check("--part", "speed", "--part", "memory", "--part", "training")
        self.assertEqual({section["status"] for section in sections.values()}, {"passed"}, result.stderr)
        self.assertEqual(result.returncode, 0)
        for name in ("bench_125m", "bench_tiny", "decode_125m"):
            json.loads((self.folder / f"out/{name}.json").read_text())
        calls = self.calls("ncu")
        self.assertEqual([call for call in calls if "--clock-control none" not in call], [])
        self.assertEqual([call.split("--kernel-name ")[1].split()[0] for call in calls[1:]], KERNELS[:1:-1])
        tools = [call.split("--tool ")[1].split()[0] for call in self.calls("sanitizer")]
        self.assertEqual(tools, ["memcheck"] * 4 + ["racecheck"] * 4)
        self.assertIn("steps to   200: CPU", (self.folder / "out/report.txt").read_text())

        # Other losses must be noticed: in the first step, and in the mean of a hundred.
        for before, after, words in (("", 'sed -i \'s/"loss":/"loss":1/\' "$output/metrics.jsonl"', "step 1: "),
                                     ("--set optimizer.lr=1e-3", "true", "steps to   200: ")):
            self.program("bin/rodimus", f"""if [[ "$*" != *demo_f32* ]]; then {PROGRAMS["bin/rodimus"]}; fi
"{support.RODIMUS}" "${{@/run.device=cuda/run.device=cpu}}" {before}
output="{self.folder}/out/demo_f32"
{after}""")
            result, sections = self.check("--part", "training")
            self.assertEqual(result.returncode, 1)
            self.assertEqual(sections["the demo in f32 against the CPU"]["status"], "FAILED: exit code 1", result.stderr)
            self.assertEqual(sections["the demo in bf16 against the CPU"]["status"], "passed", result.stderr)
            self.assertIn(words, (self.folder / "out/training.txt").read_text())

    def test_a_part_ends_within_its_time(self):
        self.program("bin/gpu_tests", f'exec "{os.environ["LONG_GPU_TESTS"]}" "$@"')
        begin = time.monotonic()
        result, sections = self.check("--part", "tests", "--seconds", "20")
        self.assertLess(time.monotonic() - begin, 25)  # and a little for this machine
        self.assertEqual(result.returncode, 1)
        statuses = [section["status"] for section in sections.values()]
        self.assertTrue(any(status.startswith("FAILED: not finished after ") for status in statuses), statuses)
        self.assertEqual(statuses[-1], "not run: the time of this part is over")
        self.assertLess(sum(section["seconds"] for section in sections.values()), 20)
        self.assertIn(f"{sum(status != 'passed' for status in statuses)} failed", result.stderr)

    def test_what_there_is_no_time_for_ends_nothing_else(self):
        result, sections = self.check("--part", "speed", "--part", "memory", "--seconds", "11")
        self.assertEqual(sections["the ten slowest kernels: ns in all, name"]["status"],
                         "not run: the time of this part is over", result.stderr)
        self.assertIn("list of the tests", sections)
        self.assertIn("0 not run; ", result.stderr)

    def test_without_a_gpu_it_says_so_in_one_line(self):
        self.program("bin/rodimus", f'CUDA_VISIBLE_DEVICES= exec "{support.RODIMUS}" "$@"')
        result, sections = self.check()
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, "^error: gpu_check.sh: .*there is no GPU: .*\n$")
        self.assertEqual(sections, {})

    def test_bad_options(self):
        for options, words in ((("--part", "all"), "no part 'all'; there are tests speed memory training"),
                               (("--seconds", "0"), "--seconds is '0', expected a number"), (("--part",), "--part needs a value"),
                               (("--quick",), "unknown option '--quick'")):
            with self.subTest(options=options):
                result, _ = self.check(*options)
                self.assertEqual(result.returncode, 1)
                self.assertIn(words, result.stderr)


if __name__ == "__main__":
    unittest.main()
