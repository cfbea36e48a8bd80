"""A run that was killed and resumed equals an uninterrupted run, bit for bit."""
import os
import pathlib
import random
import resource
import signal
import tarfile
import time
import unittest

from support import Case, end, end_after_kill, metrics, parameters, pids_of, run, start, trajectory, wait_until

KILLS = int(os.environ.get("RODIMUS_KILLS", "20"))


class Resume(Case):
    def assert_same_run(self, straight, other, step):
        self.assertEqual(trajectory(straight), trajectory(other))
        for group in ("params", "adam_m", "adam_v"):
            a, b = parameters(straight, step, group), parameters(other, step, group)
            self.assertEqual(a.keys(), b.keys())
            self.assertGreater(len(a), 20)
            for name in a:
                self.assertEqual(a[name].tobytes(), b[name].tobytes(), f"{group}/{name}")

    def test_random_kills(self):
        # Gradient accumulation (three micro-batches per step), and 120 steps of 6 over 32 windows: 22 epochs.
        settings = dict(run__steps=120, run__micro_batch=1, checkpoint__every=2, run__eval_every=7)
        straight = self.train("straight", **settings)
        dice = random.Random(1)
        kills = during_save = rounds = 0
        while kills < KILLS:  # a fast machine may finish a run before all kills are done: then start another one
            rounds += 1
            self.assertLess(rounds, 20)
            path = self.config(f"killed{rounds}", **settings)
            output = self.folder / f"killed{rounds}"
            while kills < KILLS:
                process = start(2, "train", path, *self.overrides)
                self.assertTrue(wait_until(lambda: len(pids_of(path)) == 2 or process.poll() is not None))
                in_save = kills % 2 == 1
                if in_save:  # shortly after a save has begun
                    wait_until(lambda: any(".tmp" in p.name for p in output.glob("step_*"))
                               or process.poll() is not None, timeout=20, pause=0.0005)
                    time.sleep(dice.uniform(0, 0.02))
                else:
                    time.sleep(dice.uniform(0, 1.2))
                saving = any(".tmp" in p.name for p in output.glob("step_*"))
                victims = pids_of(path)
                if victims:
                    os.kill(dice.choice(victims), signal.SIGKILL)
                end_after_kill(process, path)
                if process.returncode == 0:
                    break  # the run finished before the kill
                kills += 1
                during_save += in_save and saving
            run(2, "train", path, *self.overrides)
            self.assert_same_run(straight, output, 120)
            self.assertEqual([line["loss"] for line in metrics(straight, "eval")],
                             [line["loss"] for line in metrics(output, "eval")])
            self.assertEqual([p.name for p in output.glob("*") if "tmp" in p.name], [])
        self.assertGreater(during_save, 0)
        print(f"{kills} kills in {rounds} runs, {during_save} of them during a save")

    def test_signals_save_and_leave_with_code_0(self):
        straight = self.train("straight", run__steps=40)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            name = number.name
            path = self.config(name, run__steps=40, checkpoint__every=0, run__eval_every=3)
            output = self.folder / name
            process = start(2, "train", path, *self.overrides)
            self.assertTrue(wait_until(lambda: (output / "metrics.jsonl").exists() and len(metrics(output)) >= 4))
            for pid in pids_of(path):  # as a batch system does; mpirun itself forwards SIGUSR1
                os.kill(pid, number)
            out = end(process)
            self.assertEqual(process.returncode, 0, out)
            self.assertEqual(len(list(output.glob("step_*"))), 1, out)
            run(2, "train", path, *self.overrides)
            self.assertEqual(trajectory(straight), trajectory(output))

    def test_other_numbers_of_ranks(self):
        straight = self.train("straight", ranks=2, run__steps=60)
        for ranks in (1, 3):
            name = f"to{ranks}"
            path = self.config(name, run__steps=60, checkpoint__every=10)
            output = self.folder / name
            process = start(2, "train", path, *self.overrides)
            self.assertTrue(wait_until(lambda: (output / "step_00000010").exists()))
            for pid in pids_of(path):
                os.kill(pid, signal.SIGKILL)
            end_after_kill(process, path)
            self.assertNotEqual(process.returncode, 0)
            self.assertLess(len(metrics(output)), 60, "the run finished before the kill")
            run(ranks, "train", path, *self.overrides)
            # Sums of six gradients in another order: f32 rounding of 1e-7, amplified by fifty steps of AdamW.
            for (step, loss, *_), (other_step, other, *_) in zip(trajectory(straight), trajectory(output), strict=True):
                self.assertEqual(step, other_step)
                self.assertAlmostEqual(loss, other, delta=1e-5 * loss)

    def test_a_signal_to_one_rank_when_nothing_can_be_saved(self):
        """All ranks must exit the same way, whichever got the signal."""
        path = self.config("full", run__steps=100000, checkpoint__every=0)
        output = self.folder / "full"
        process = start(2, "train", path, *self.overrides)
        self.assertTrue(wait_until(lambda: (output / "metrics.jsonl").exists() and len(metrics(output)) >= 4))
        pids = pids_of(path)
        self.assertEqual(len(pids), 2)
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (40_000, 40_000))
        os.kill(pids[1], signal.SIGUSR1)
        out = end(process, timeout=30)
        self.assertEqual(process.returncode, 1, out)
        self.assertEqual(out.count("rodimus: error:"), 1, out)
        self.assertEqual(list(output.glob("step_*")), [])

    def test_resume_says_what_changed_and_refuses_other_data(self):
        output = self.train("run", run__steps=8)
        path = self.config("run", run__steps=12, optimizer__lr=1e-3)
        out = run(2, "train", path, *self.overrides).stdout
        self.assertIn("optimizer.lr is 0.001, was 0.003", out)
        self.assertIn("run.steps is 12, was 8", out)
        path = self.config("run", run__steps=16, data__train=f'["{self.folder}/data/val"]')
        refused = run(2, "train", path, *self.overrides, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("--allow-other-data", refused.stderr)
        run(2, "train", path, *self.overrides, "--allow-other-data")
        self.assertTrue((output / "step_00000016").is_dir())
        refused = run(2, "train", path, *self.overrides, "--resume", output / "step_00000012", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("already holds step 16", refused.stderr)

    def test_resume_keeps_the_type_it_computed_in(self):
        same = dict(optimizer__schedule='"constant"')  # independent of the number of steps
        straight = self.train("straight", run__steps=8, run__compute='"bf16"', **same)
        self.train("run", run__steps=4, run__compute='"bf16"', **same)
        path = self.config("run", run__steps=8, run__compute='"f32"')
        refused = run(2, "train", path, *self.overrides, check=False)
        self.assertEqual(refused.returncode, 1)
        for word in ('"f32"', "bf16", "--allow-other-compute"):
            self.assertIn(word, refused.stderr)
        # auto was resolved when the run began, whatever it would resolve to here.
        output = self.train("run", run__steps=8, run__compute='"auto"', **same)
        self.assertEqual(trajectory(straight), trajectory(output))
        self.assertIn('compute = "bf16"', (output / "config.toml").read_text())
        out = run(2, "train", self.config("run", run__steps=12), *self.overrides, "--allow-other-compute").stdout
        self.assertIn('run.compute is "f32", was "bf16"', out)
        self.assertNotIn("auto", (straight / "config.toml").read_text())

    def test_a_longer_cosine_jumps_and_says_so(self):
        self.train("run", run__steps=8)
        path = self.config("run", run__steps=30)
        out = run(2, "train", path, *self.overrides).stdout
        self.assertIn("in the last step", out)
        self.assertIn("warning: the learning rate jumps", out)
        path = self.config("run", run__steps=30)
        (self.folder / "run" / "step_00000030" / "manifest.json").write_text("x")  # back to step 28
        out = run(2, "train", path, *self.overrides).stdout
        self.assertIn("in the last step", out)
        self.assertNotIn("warning: the learning rate", out)

    def test_a_new_run_begins_with_the_parameters_of_another(self):
        first = self.train("first", run__steps=20)
        fresh = self.train("fresh", run__steps=8)
        options = ("--init-from", first)
        tuned = self.train("tuned", options=options, run__steps=8)
        rates = [lr for *_, lr in trajectory(fresh)]
        self.assertEqual([lr for *_, lr in trajectory(tuned)], rates)  # its own schedule, from step 0
        self.assertLess(metrics(tuned)[0]["loss"], metrics(fresh)[0]["loss"] - 0.1)
        self.assertEqual(metrics(tuned)[0]["tokens"], metrics(fresh)[0]["tokens"])
        moments = self.train("moments", options=(*options, "--init-moments"), run__steps=8)
        self.assertEqual(trajectory(moments)[0][1:3], trajectory(tuned)[0][1:3])  # same parameters, same data
        self.assertNotEqual(trajectory(moments)[1], trajectory(tuned)[1])

        # The same command resumes and does not start over.
        path = self.config("tuned", run__steps=8)
        (tuned / "step_00000008" / "manifest.json").write_text("x")
        before = trajectory(tuned)
        out = run(2, "train", path, *self.overrides, *options).stdout
        self.assertIn("resumed from", out)
        self.assertIn("step_00000004, step 4", out)
        self.assertNotIn("a new run", out)
        self.assertEqual(before, trajectory(tuned))
        out = run(2, "train", path, *self.overrides, "--init-from", first / "step_00000016", check=False)
        self.assertEqual(out.returncode, 1)
        self.assertIn("began with", out.stderr)
        refused = run(2, "train", self.config("fresh", run__steps=12), *options, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("another run.output", refused.stderr)
        refused = run(2, "train", self.config("wide", model__d_model=64), *self.overrides, *options, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("rodimus: error:", refused.stderr)
        self.assertEqual(list((self.folder / "wide").glob("step_*")), [])

    def test_data_is_left_out_after_a_spike(self):
        settings = dict(run__steps=12, data__shuffle="false")
        straight = self.train("straight", **settings)
        options = ("--resume", straight / "step_00000004", "--skip-steps", 2)
        runs = {ranks: self.train(f"skipped{ranks}", ranks=ranks, options=options, **settings) for ranks in (1, 2, 3)}
        for output in runs.values():
            self.assertEqual([line["step"] for line in metrics(output)], list(range(5, 13)))
            self.assertEqual(metrics(output, "left_out"),
                             [{"kind": "left_out", "step": 5, "steps": 2, "from_sample": 24, "to_sample": 36}])
            for one, other in zip(metrics(runs[2]), metrics(output), strict=True):
                self.assertAlmostEqual(one["loss"], other["loss"], delta=1e-5 * one["loss"])
            # The token count includes only what was trained on.
            self.assertEqual(metrics(output)[-1]["tokens"], metrics(straight)[-1]["tokens"])
        # The first loss after the gap is for step 7's data with the parameters of step 4.
        self.assertNotEqual(metrics(runs[2])[0]["loss"], metrics(straight)[4]["loss"])

        # The same command resumes and skips nothing more; so does one without the option.
        for again in (options, ()):
            (runs[2] / "step_00000012" / "manifest.json").write_text("x")
            before = trajectory(runs[2])
            run(2, "train", self.config("skipped2", **settings), *self.overrides, *again)
            self.assertEqual(before, trajectory(runs[2]))
            self.assertEqual(len(metrics(runs[2], "left_out")), 1)
        refused = run(2, "train", self.config("auto", **settings), *self.overrides, "--skip-steps", 2, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("--resume PATH", refused.stderr)

    def test_one_run_per_folder(self):
        path = self.config("run", run__steps=100000)
        process = start(1, "train", path, *self.overrides)
        self.assertTrue(wait_until(lambda: (self.folder / "run" / "metrics.jsonl").exists()))
        second = run(1, "train", path, *self.overrides, check=False)
        self.assertEqual(second.returncode, 1)
        self.assertIn("in use", second.stderr)
        for pid in pids_of(path):
            os.kill(pid, signal.SIGTERM)
        end(process)
        self.assertEqual(process.returncode, 0)

    def test_a_finished_run_stays_as_it_is(self):
        output = self.train("done")
        before = sorted((p, p.stat().st_mtime_ns) for p in output.glob("step_*/*"))
        result = run(2, "train", self.config("done"))
        self.assertIn("complete", result.stdout)
        self.assertEqual(before, sorted((p, p.stat().st_mtime_ns) for p in output.glob("step_*/*")))


class SameBits(Case):
    def test_same_command_twice(self):
        self.assertEqual(trajectory(self.train("a")), trajectory(self.train("b")))

    def test_recomputation_changes_nothing(self):
        for compute in ("f32", "bf16"):
            kept = self.train(f"kept_{compute}", run__compute=compute)
            again = self.train(f"again_{compute}", run__compute=compute, run__recompute="true")
            self.assertEqual(trajectory(kept), trajectory(again))

    def test_one_rank_equals_two_over_50_steps(self):
        for block in ("rodimus", "rodimus_plus"):
            one = self.train(f"one_{block}", ranks=1, block=block, run__steps=50)
            two = self.train(f"two_{block}", ranks=2, block=block, run__steps=50)
            for (step, loss, *_), (_, other, *_) in zip(trajectory(one), trajectory(two), strict=True):
                self.assertAlmostEqual(loss, other, delta=1e-5 * loss, msg=f"step {step}")

    def test_training_learns(self):
        losses = [loss for _, loss, *_ in trajectory(self.train("learn", run__steps=60))]
        self.assertLess(losses[-1], losses[0] - 0.5)  # log 61 = 4.11 would be guessing

    def test_checkpoint_with_another_layout(self):
        # Written by two ranks when parameters with weight decay came first in the flat buffers; an uninterrupted
        # run of that program is next to it. Another program rounds differently.
        archive = pathlib.Path(__file__).parents[1] / "golden" / "checkpoints" / "decayed_first.tar.xz"
        with tarfile.open(archive) as files:
            files.extractall(self.folder)
        run(2, "train", "run.toml", cwd=self.folder)
        want = metrics(self.folder / "straight.jsonl")[3:]
        got = metrics(self.folder / "run" / "metrics.jsonl")
        self.assertEqual([line["step"] for line in got], [4, 5, 6])
        for a, b in zip(got, want):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=1e-5)
            self.assertAlmostEqual(a["grad_norm"], b["grad_norm"], delta=1e-5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
