"""Evaluation, checkpoints as other programs see them, and the commands that read checkpoints."""
import json
import math
import unittest

from support import VOCAB, Case, metrics, parameters, run


class Eval(Case):
    def evaluate(self, ranks, *arguments):
        return json.loads(run(ranks, "eval", "--json", "--checkpoint", *arguments).stdout.splitlines()[-1])

    def test_reports_what_training_reported(self):
        output = self.train("run", run__eval_every=4)
        for line in metrics(output, "eval")[-3:]:
            result = self.evaluate(2, output / f"step_{line['step']:08d}")
            self.assertEqual(result["tokens"], line["tokens"])
            self.assertAlmostEqual(result["perplexity"], line["perplexity"], delta=1e-6 * line["perplexity"])
            self.assertAlmostEqual(math.exp(result["nats_per_token"]), result["perplexity"], delta=1e-9 * VOCAB)
            self.assertAlmostEqual(result["bits_per_token"], result["nats_per_token"] / math.log(2), places=9)

    def test_scores_in_the_type_that_the_run_computed_in(self):
        """Whatever this CPU would choose by itself, and so one of the two types here is not that."""
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
        # Every token of a document but its first is predicted.
        self.assertEqual(want["tokens"], 700 - 9)

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
        for thing in (output, data, data / "tokenizer.model", path):
            self.assertEqual(run(0, "inspect", thing).returncode, 0)

        # The run folder is all that it takes, wherever it is and wherever one stands.
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


if __name__ == "__main__":
    unittest.main(verbosity=2)
