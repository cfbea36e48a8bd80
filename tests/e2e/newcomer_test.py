"""From text to perplexity in three commands, as a new user types them: for one file, and for a folder of .jsonl.gz."""
import gzip
import json
import pathlib
import random
import unittest

from support import Case, run

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def prose(lines, seed):
    """Sentences whose words follow each other by a rule, so that there is something to learn."""
    rng = random.Random(seed)
    words = "the a small model reads every word of text and learns what follows it while states decay".split()
    return "".join(" ".join(words[(i * 5 + j * 3 + rng.randrange(2)) % len(words)] for j in range(9)) + ".\n"
                   for i in range(lines))


class Newcomer(Case):
    def three_commands(self, text, documents):
        data, output = self.folder / "data of mine", self.folder / "run"
        said = run(0, "tokenize", "--input", text, "--vocab-size", 320, "--out", data).stdout
        # The preset, made fast.
        settings = {"data.train": data / "train", "data.val": data / "val", "data.tokenizer": data / "tokenizer.model",
                    "run.output": output, "run.steps": 40, "run.global_batch": 2, "run.threads": 1, "data.seq_len": 64,
                    "optimizer.warmup_steps": 5, "optimizer.lr": 3e-3}
        run(0, "train", CONFIGS / "tiny.toml", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")))
        result = json.loads(run(0, "eval", "--checkpoint", output, "--json").stdout.splitlines()[-1])
        self.assertGreater(result["tokens"], 0)
        self.assertGreater(result["perplexity"], 1)
        self.assertLess(result["perplexity"], 200, "it learns: a guess among 320 tokens would be 320")
        shards = [json.loads((data / f"{name}.json").read_text()) for name in ("train", "val")]
        self.assertEqual(sum(shard["documents"] for shard in shards), documents)
        self.assertTrue(all(shard["lossless"] for shard in shards))
        return said, shards

    def test_one_text_file(self):
        text = self.folder / "input.txt"
        content = prose(6000, 1)
        text.write_text("\ufeff" + content)
        said, shards = self.three_commands(text, documents=2)
        self.assertIn("of the only document are val, cut at a line end", said)
        self.assertEqual(sum(shard["text_bytes"] for shard in shards), len(content.encode()))
        self.assertEqual(sum(shard["text_words"] for shard in shards), len(content.split()))

    def test_folder_of_compressed_json_lines(self):
        folder = self.folder / "corpus"
        folder.mkdir()
        for i in range(4):
            with gzip.open(folder / f"part-{i}.jsonl.gz", "wt") as out:
                for j in range(100):
                    out.write(json.dumps({"text": prose(20, 100 * i + j), "url": "\ud83d"}) + "\n")
        said, _ = self.three_commands(folder, documents=400)
        self.assertNotIn("cut", said)

    def test_a_truncated_download(self):
        file = self.folder / "part.jsonl.gz"
        whole = gzip.compress("".join(json.dumps({"text": prose(20, i)}) + "\n" for i in range(200)).encode())
        file.write_bytes(whole[:len(whole) // 2])
        out = self.folder / "out"
        result = run(0, "tokenize", "--input", file, "--vocab-size", 300, "--out", out, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("part.jsonl.gz", result.stderr)
        self.assertIn("cut short", result.stderr)
        self.assertEqual(list(out.iterdir()), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
