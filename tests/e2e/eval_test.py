"""Evaluation, checkpoints as read by other programs, and the commands that read checkpoints."""
import json
import math
import struct
import unittest

from support import VOCAB, Case, metrics, parameters, run, tokens, write_shard


class Eval(Case):
    def evaluate(self, ranks, *arguments):
        return json.loads(run(ranks, "eval", "--json", "--checkpoint", *arguments).stdout.splitlines()[-1])

    def test_reports_what_training_reported(self):
        output = self.train("run", run__eval_every=4)
        for line in metrics(output, "eval")[-3:]:
            result = self.evaluate(2, output / f"step_{line['step']:08d}")
            self.assertEqual(result["tokens"], line["tokens"])
            # The windows of the shard and its remainder.
            self.assertEqual(result["tokens"], 699)
            self.assertEqual((result["predictable_tokens"], line["predictable_tokens"]), (699, 699))
            self.assertAlmostEqual(result["perplexity"], line["perplexity"], delta=1e-6 * line["perplexity"])
            self.assertAlmostEqual(math.exp(result["nats_per_token"]), result["perplexity"], delta=1e-9 * VOCAB)
            self.assertAlmostEqual(result["bits_per_token"], result["nats_per_token"] / math.log(2), places=9)

    def test_scores_in_the_type_that_the_run_computed_in(self):
        """eval uses the run's type: one of the two types here is not what this CPU would choose by default."""
        for compute in ("f32", "bf16"):
            output = self.train(compute, run__compute=f'"{compute}"')
            trained = metrics(output, "eval")[-1]["perplexity"]
            result = self.evaluate(1, output)
            self.assertEqual(result["compute"], compute)
            self.assertAlmostEqual(result["perplexity"], trained, delta=1e-6 * trained)
        other = run(1, "eval", "--checkpoint", output, "--compute", "f32")
        self.assertIn("trained in bf16", other.stderr)
        self.assertIn("trained in bf16", run(0, "generate", "--checkpoint", output, "--ids", 3, "--compute", "f32",
                                             "--tokens", 3).stderr)
        self.assertNotIn("trained in", run(0, "generate", "--checkpoint", output, "--ids", 3, "--tokens", 3).stderr)

    def test_same_on_any_number_of_ranks_and_batch(self):
        output = self.train("run")
        for mode in ("windows", "documents"):
            want = self.evaluate(0, output, "--mode", mode)
            for ranks, batch in ((1, 1), (2, 4), (3, 2)):
                got = self.evaluate(ranks, output, "--mode", mode, "--micro-batch", batch)
                self.assertEqual(got["tokens"], want["tokens"])
                self.assertAlmostEqual(got["nats_per_token"], want["nats_per_token"],
                                       delta=1e-6 * want["nats_per_token"], msg=f"{mode}, {ranks} ranks")
        # Every token of a document except its first is predicted.
        self.assertEqual(want["tokens"], 700 - 9)

    def test_shards_shorter_than_a_window_and_tails(self):
        """Every token except the first of each shard is scored, in both modes, by any number of ranks."""
        output = self.train("run")
        sizes = (5, 1, 40, 2, 32, 33)
        for i, size in enumerate(sizes):
            write_shard(self.folder / f"short/{i}", [tokens(size, 50 + i)])
        want = sum(sizes) - len(sizes)
        for mode in ("windows", "documents"):
            results = [self.evaluate(ranks, output, "--data", self.folder / "short", "--mode", mode, "--micro-batch", batch)
                       for ranks, batch in ((0, 1), (1, 4), (3, 2))]
            for result in results:
                self.assertEqual((result["tokens"], result["predictable_tokens"]), (want, want))
                self.assertAlmostEqual(result["nats_per_token"], results[0]["nats_per_token"], delta=1e-6 * 5)
            self.assertIn(f"{want} of {want} predictable tokens scored",
                          run(0, "eval", "--checkpoint", output, "--data", self.folder / "short", "--mode", mode).stdout)
            limited = self.evaluate(2, output, "--data", self.folder / "short", "--mode", mode, "--limit", 1)
            self.assertEqual((limited["tokens"], limited["predictable_tokens"]), (4, want))
        # Nothing is known about their text.
        for key in ("bytes_from", "bits_per_byte", "words_from", "perplexity_per_word", "bos_token"):
            self.assertIsNone(result[key], key)
        self.assertIn("no EOS is known", result["document_start"])
        one = run(0, "eval", "--checkpoint", output, "--data", self.folder / "short/1", check=False)
        self.assertEqual(one.returncode, 1)
        self.assertIn("nothing to predict", one.stderr)
        # Training reports it before its first step.
        path = self.config("none", data__val=f'["{self.folder}/short/1"]')
        refused = run(0, "train", path, *self.overrides, check=False)
        self.assertIn("data.val: there is nothing to predict", refused.stderr)

    def test_h5py_sees_whole_tensors_of_three_ranks(self):
        three, one = self.train("three", ranks=3), self.train("one", ranks=1)
        for group in ("params", "adam_m", "adam_v"):
            a, b = parameters(three, 20, group), parameters(one, 20, group)
            self.assertEqual(a.keys(), b.keys())
            for name in a:
                self.assertEqual(a[name].shape, b[name].shape)
                scale = abs(b[name]).max()
                self.assertLessEqual(abs(a[name] - b[name]).max(), 1e-2 * scale, f"{group}/{name}")
        import h5py
        folder = three / "step_00000020"
        pieces = [h5py.File(file) for file in sorted(folder.glob("rank_*.h5"))]
        for name, tensor in parameters(three, 20).items():
            held = b"".join(piece["params"][name][()].tobytes() for piece in pieces if name in piece["params"])
            self.assertEqual(tensor.tobytes(), held, name)
        self.assertEqual(a["model.embeddings.weight"].shape, (VOCAB, 32))
        self.assertEqual(a["model.layers.1.mixer.inner_mixer.short_conv.conv1d.weight"].shape, (64, 1, 4))
        self.assertEqual(len(list((three / "step_00000020").glob("rank_*.h5"))), 3)

    def test_generate_continues_and_repeats_itself(self):
        text = self.folder / "text"
        text.mkdir()
        for i in range(40):
            (text / f"{i}.txt").write_text("".join(f"line {j} of document {i}\n" for j in range(30)))
        data = self.folder / "tokens"
        run(0, "tokenize", "--input", text, "--vocab-size", 300, "--val-fraction", 0.1, "--out", data)
        path = self.config("run", model__vocab_size=300, data__train=f'["{data}/train"]', data__val=f'["{data}/val"]',
                           data__tokenizer=f'"{data}/tokenizer.model"')
        run(2, "train", path, *self.overrides)
        output = self.folder / "run"
        words = ("generate", "--checkpoint", output, "--prompt", "line 3 of", "--tokens", 20, "--seed", 4)
        first, second = run(0, *words), run(0, *words)
        self.assertTrue(first.stdout.startswith("line 3 of"), first.stdout)
        self.assertGreater(len(first.stdout), len("line 3 of") + 5)
        self.assertEqual(first.stdout, second.stdout)
        result = self.evaluate(1, output)
        self.assertGreater(result["bytes"], result["tokens"] / 2)
        self.assertAlmostEqual(result["bits_per_byte"],
                               result["bits_per_token"] * result["tokens"] / result["bytes"], places=9)
        self.document_begins_after_eos(output, data)
        for thing in (output, data, data / "tokenizer.model", path):
            self.assertEqual(run(0, "inspect", thing).returncode, 0)

        # The run folder is all it takes, wherever it is and whatever the working folder.
        moved = self.folder / "elsewhere" / "run"
        moved.parent.mkdir()
        output.rename(moved)
        (data / "tokenizer.model").rename(self.folder / "kept.model")
        words = ("generate", "--checkpoint", moved, *words[3:])
        self.assertEqual(run(0, *words, cwd=moved.parent).stdout, first.stdout)
        self.assertEqual(run(0, *words[:2], "run", *words[3:], cwd=moved.parent).stdout, first.stdout)
        self.assertEqual(self.evaluate(1, moved)["bytes"], result["bytes"])
        (moved / "tokenizer.model").unlink()
        refused = run(0, *words, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("--tokenizer", refused.stderr)
        refused = run(0, "eval", "--checkpoint", moved, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("--tokenizer", refused.stderr)
        self.assertEqual(run(0, *words, "--tokenizer", self.folder / "kept.model").stdout, first.stdout)

    def document_begins_after_eos(self, output, data):
        info = json.loads((data / "val.json").read_text())
        eos = info["eos_id"]
        result = self.evaluate(2, output, "--mode", "documents")
        self.assertEqual(result["bos_token"], eos)
        self.assertEqual((result["tokens"], result["predictable_tokens"]), (info["tokens"], info["tokens"]))
        self.assertEqual((result["bytes"], result["words"]), (info["text_bytes"], info["text_words"]))
        self.assertEqual((result["bytes_from"], result["words_from"]), ("text", "text"))
        self.assertAlmostEqual(math.log(result["perplexity_per_word"]),
                               result["nats_per_token"] * result["tokens"] / info["text_words"], places=9)
        bare = self.evaluate(0, output, "--mode", "documents", "--no-bos")
        self.assertIsNone(bare["bos_token"])
        self.assertEqual(bare["tokens"], info["tokens"] - info["documents"])
        self.assertEqual((bare["bytes_from"], bare["words_from"]), ("tokenizer", "estimate"))

        # The prompt as tokenized, which is the first document of a shard.
        (self.folder / "prompt").mkdir()
        for i in range(2):
            (self.folder / "prompt" / f"{i}.txt").write_text("line 3 of")
        run(0, "tokenize", "--input", self.folder / "prompt", "--tokenizer", data / "tokenizer.model", "--val-fraction", 0,
            "--out", self.folder / "ids")
        content = (self.folder / "ids/train.bin").read_bytes()
        ids = list(struct.unpack(f"<{len(content) // 2}H", content))
        ids = ids[:ids.index(eos)]
        greedy = ("generate", "--checkpoint", output, "--tokens", 8, "--temperature", 0)

        def after(words):
            return run(0, *greedy, "--ids", ",".join(map(str, words))).stdout
        self.assertNotEqual(after(ids), "")
        with_eos = run(0, *greedy, "--prompt", "line 3 of")
        self.assertEqual(with_eos.stdout, "line 3 of" + after([eos, *ids]))
        self.assertIn(f"{len(ids) + 1} prompt tokens; the text begins so: after EOS (token {eos})", with_eos.stderr)
        without = run(0, *greedy, "--prompt", "line 3 of", "--no-bos")
        self.assertEqual(without.stdout, "line 3 of" + after(ids))
        self.assertIn(f"{len(ids)} prompt tokens", without.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
