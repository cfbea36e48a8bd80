"""Every kind of bad input leads at once to one clear line and a non-zero exit code on all ranks."""
import resource
import time
import unittest

from support import VOCAB, Case, run, tokens, write_shard

SECONDS = 30  # upper limit for "within seconds" on a loaded two-core machine, including the start-up of MPI


class BadInput(Case):
    def refuse(self, wanted, *arguments, ranks=2, code=1, **kwargs):
        """Checks that the command fails quickly, with one error line that contains every word of `wanted`."""
        begin = time.monotonic()
        result = run(ranks, *arguments, check=False, timeout=SECONDS, **kwargs)
        self.assertLess(time.monotonic() - begin, SECONDS)
        errors = [line for line in (result.stdout + result.stderr).splitlines() if "rodimus: error:" in line]
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertEqual(len(errors), 1, result.stdout + result.stderr)
        for word in wanted if isinstance(wanted, tuple) else (wanted,):
            self.assertIn(word, errors[0])
        self.assertNotIn("terminate called", result.stderr)
        self.assertNotIn("Segmentation", result.stderr)
        return result

    def refuse_training(self, wanted, options=(), ranks=2, name="bad", **settings):
        path = self.config(name, **settings)
        self.refuse(wanted, "train", path, *self.overrides, *options, ranks=ranks)

    # --- configuration

    def test_configuration(self):
        for wanted, settings in (
                (("run.stepz", "run.steps"), dict(run__stepz=3)),
                (("modle", "model"), dict(modle__d_model=3)),
                (("run.steps", "integer"), dict(run__steps='"many"')),
                (("run.steps",), dict(run__steps=0)),
                (("n_heads", "divisible"), dict(model__n_heads=5)),
                (("window", "full"), dict(model__window=0)),
                (("window",), dict(model__window=-4)),
                (("global_batch", "rank"), dict(run__global_batch=5)),
                (("micro_batch",), dict(run__micro_batch=2)),
                (("seq_len",), dict(data__seq_len=5000)),
                (("compute", "bf16"), dict(run__compute='"fp8"')),
                (("schedule", "cosine"), dict(optimizer__schedule='"cosin"')),
                (("device",), dict(run__device='"tpu"'))):
            with self.subTest(settings=settings):
                self.refuse_training(wanted, **settings)
        self.assertFalse((self.folder / "bad").exists(), "nothing is written before everything is checked")
        self.refuse(("missing.toml",), "train", self.folder / "missing.toml")
        broken = self.folder / "broken.toml"
        broken.write_text("[model\nd_model = 3\n")
        self.refuse(("broken.toml", "1"), "train", broken)

    def test_command_line(self):
        self.refuse(("trian", "train"), "trian", code=2)
        self.refuse(("--resum", "--resume"), "train", "x.toml", "--resum", "auto", code=2)
        self.refuse(("eval",), "eval", code=2, ranks=0)
        self.refuse(("missing.toml",), "bench", "missing.toml")
        self.refuse(("--stepz", "--steps"), "bench", "x.toml", "--stepz", 3, code=2)
        self.refuse(("--decode", "without mpirun"), "bench", self.config("x"), "--decode")

    def test_commands_that_do_not_share_their_work(self):
        out = self.folder / "out"
        for words in (("inspect", self.config("x")), ("generate", "--checkpoint", "nowhere"),
                      ("tokenize", "--input", self.folder, "--vocab-size", 300, "--out", out)):
            self.refuse((words[0], "2 processes", "without mpirun"), *words)
        self.assertFalse(out.exists())

    # --- shards

    def test_shards(self):
        data = self.folder / "data"
        whole = {end: (data / f"train.{end}").read_bytes() for end in ("bin", "idx")}
        def with_file(end, content):
            (data / f"train.{end}").write_bytes(content)
        for end in ("bin", "idx"):
            for what, content in (("empty", b""), ("truncated", whole[end][:-5]), ("short", whole[end][:20])):
                with self.subTest(end=end, what=what):
                    with_file(end, content)
                    self.refuse_training(("train.",))
                    with_file(end, whole[end])
            with self.subTest(end=end, what="missing"):
                (data / f"train.{end}").unlink()
                self.refuse_training(("train",))
                with_file(end, whole[end])
        for position in (0, 9, 17, 20, 34, 60, len(whole["idx"]) - 9):
            with self.subTest(flipped=position):
                flipped = bytearray(whole["idx"])
                flipped[position] ^= 0x40
                with_file("idx", bytes(flipped))
                self.refuse_training(("train.",))
                with_file("idx", whole["idx"])
        self.refuse_training(("nowhere",), data__train='["nowhere"]')

    def test_token_above_the_vocabulary(self):
        write_shard(self.folder / "data" / "train", [tokens(500, 1) + [VOCAB] + tokens(500, 2)])
        self.refuse_training(("train.bin", str(VOCAB)))
        self.refuse_training(("train.bin", str(VOCAB)), data__verify="false", run__steps=1000)

    def tokenized(self):
        text = self.folder / "text"
        text.mkdir()
        for i in range(30):
            (text / f"{i}.txt").write_text(f"document {i}: " + "some words again and again. " * 40)
        for name, vocab in (("one", 320), ("two", 310)):
            run(0, "tokenize", "--input", text, "--vocab-size", vocab, "--val-fraction", 0.1, "--out", self.folder / name)
        return self.folder / "one", self.folder / "two"

    def test_tokenizer_of_other_shards_and_flipped_bits(self):
        one, two = self.tokenized()
        settings = dict(model__vocab_size=330, data__train=f'["{one}/train"]', data__val=f'["{one}/val"]')
        self.refuse_training(("tokenizer",), data__tokenizer=f'"{two}/tokenizer.model"', **settings)
        self.refuse_training(("missing.model",), data__tokenizer='"missing.model"', **settings)
        for name in ("train.bin", "train.idx"):
            content = bytearray((one / name).read_bytes())
            content[len(content) // 2] ^= 1
            (one / name).write_bytes(bytes(content))
            self.refuse_training((name,), data__tokenizer=f'"{one}/tokenizer.model"', **settings)
            self.refuse((name,), "inspect", one, ranks=0)
            content[len(content) // 2] ^= 1
            (one / name).write_bytes(bytes(content))

    def test_text(self):
        folder = self.folder / "text"
        folder.mkdir()
        out = self.folder / "out"
        arguments = ("tokenize", "--input", folder, "--vocab-size", 300, "--out", out)
        self.refuse(("no file", "text"), *arguments, ranks=0)
        (folder / "empty.jsonl").write_text("")
        self.refuse(("no text",), *arguments, ranks=0)
        (folder / "a.txt").write_bytes(b"fine so far \xff\xfe no more" * 50)
        self.refuse(("a.txt", "UTF-8"), *arguments, ranks=0)
        self.assertEqual(list(out.glob("*.bin")) + list(out.glob("*.idx")), [])
        self.refuse(("nowhere",), "tokenize", "--input", self.folder / "nowhere", "--vocab-size", 300, "--out", out, ranks=0)

    # --- checkpoints

    def test_checkpoints(self):
        output = self.train("run", checkpoint__keep_last=0)
        newest = output / "step_00000020"
        files = sorted(newest.iterdir())
        self.assertGreaterEqual(len(files), 3)
        for file in files:
            whole = file.read_bytes()
            for what, content in (("empty", b""), ("truncated", whole[:len(whole) // 2]),
                                  ("flipped", bytes([*whole[:-40], whole[-40] ^ 2, *whole[-39:]]))):
                with self.subTest(file=file.name, what=what):
                    file.write_bytes(content)
                    # If named, it is rejected. Automatically, it is reported, and the run resumes from the previous
                    # checkpoint.
                    self.refuse_training((file.name,), options=("--resume", newest))
                    self.refuse((file.name,), "inspect", newest, ranks=0)
                    file.write_bytes(whole)
            with self.subTest(file=file.name, what="missing"):
                file.unlink()
                self.refuse_training((newest.name,), options=("--resume", newest))
                file.write_bytes(whole)
        damaged = next(newest.glob("rank_*.h5"))
        damaged.write_bytes(damaged.read_bytes()[:100])
        result = run(2, "train", self.config("run", checkpoint__keep_last=0), *self.overrides)
        self.assertIn("skipping a damaged checkpoint", result.stdout + result.stderr)
        self.assertIn("step_00000016", result.stdout + result.stderr)
        for folder in output.glob("step_*"):
            next(folder.glob("rank_*.h5")).write_bytes(b"")
        self.refuse(("none of its",), "train", self.config("run"))

    def test_checkpoint_of_another_model(self):
        output = self.train("run")
        for settings, word in ((dict(model__d_model=64), "d_model"), (dict(model__n_layers=3), "n_layers"),
                               (dict(model__window=10), "window"), (dict(run__seed=4), "seed")):
            self.refuse_training((word,), options=("--resume", output), **settings)
        self.refuse_training(("--resume none",), options=("--resume", "none"), name="run")

    def test_nan_in_parameters(self):
        # No file that passes its checksum can cause this, so the run itself does, with a learning rate that
        # overflows.
        path = self.config("nan", optimizer__lr=1e30, optimizer__min_lr=0, optimizer__warmup_steps=0, optimizer__clip=0,
                           run__max_skipped=3, optimizer__schedule='"constant"')
        self.refuse(("not finite",), "train", path, *self.overrides)

    # --- output

    def test_unwritable_output(self):
        blocker = self.folder / "blocker"
        blocker.write_text("a file, not a folder")
        path = self.config("blocked")
        self.refuse(("blocker",), "train", path, "--set", f'run.output="{blocker}/run"')
        self.refuse(("blocker",), "tokenize", "--input", path, "--vocab-size", 300, "--out", blocker / "x", ranks=0)

    def test_full_output(self):
        """No space for a checkpoint: the run reports it, continues, keeps the older ones, and fails at its end."""
        output = self.train("full", ranks=0, run__steps=8)
        before = {p: p.read_bytes() for p in output.glob("step_*/*")}
        path = self.config("full", run__steps=16)
        no_room = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        result = self.refuse(("checkpoint", "could not be saved"), "train", path, *self.overrides, ranks=0,
                             preexec_fn=no_room)
        self.assertIn("not saved, the run continues", result.stdout + result.stderr)
        self.assertEqual(before, {p: p.read_bytes() for p in output.glob("step_*/*")})
        run(0, "train", path, *self.overrides)
        self.assertTrue((output / "step_00000016").is_dir())


if __name__ == "__main__":
    unittest.main(verbosity=2)
