"""tokenizer.json as the library `tokenizers` reads it (scripts/setup.sh --test fetches it): the ids of `rodimus tokenize`."""
import json
import pathlib
import random
import struct
import sys

from support import Case, run

SOURCE = pathlib.Path(__file__).resolve().parents[2]
FETCHED = SOURCE / ".python"
sys.path.insert(0, str(FETCHED))
try:
    import tokenizers
except ImportError as error:
    sys.exit(f"no tokenizers in {FETCHED} ({error}): run scripts/setup.sh --test")

SYMBOLS = ["<|user|>", "<|user", "::"]
# What a tokenizer may trip over: each is a document, and all are material for random ones.
ODD = [
    "a", " ", "  ", "\n", "\n\n\n", " \n ", "a\n b", "  two  spaces   three ", "tab\tand\r\nreturn", "\u00a0\u2003\u3000",
    "the mark \u2581 itself\u2581\u2581", "\u2585", "</s>", "<unk> and </s>.", "<0x41><0x0A>", "<0x4", "x<0xFF>y",
    "<|user|>Hi<|user<|user|>::: <|us", "12345 3.14159 0xDEADBEEF", "naïve café", "e\u0301 a\u030a\u0323", "中文字符，混合English。",
    "日本語のテキスト", "한국어", "עברית العربية", "👩‍👩‍👧‍👦🇩🇪👍🏽", "\u0000\u0001\u001f\u007f", "\ufeffmark", "\ufffd", "\U0010ffff",
    "ﬁ ﬂ Å Ω ½", "if (x<y) { return a->b[i] & ~0x7f; }\n\t// done", "ÄÖÜ" * 40, "a" * 500, " " * 300, "\u2581 " * 50,
]


def documents_of(prefix):
    """The ids of every document of a Megatron-LM shard with 16-bit tokens."""
    index = prefix.with_suffix(".idx").read_bytes()
    assert index[:9] == b"MMIDIDX\0\0" and index[17] == 8, index[:18]
    count, = struct.unpack_from("<Q", index, 18)
    lengths = struct.unpack_from(f"<{count}i", index, 34)
    ids = struct.unpack(f"<{sum(lengths)}H", prefix.with_suffix(".bin").read_bytes())
    ends = [sum(lengths[:i + 1]) for i in range(count)]
    return [list(ids[end - length:end]) for length, end in zip(lengths, ends)]


class TokenizerJson(Case):
    def own_ids(self, name, texts):
        """Ids by the program, without the EOS that ends a document."""
        lines = self.folder / "texts.jsonl"
        lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        out = self.folder / f"{name} shards"
        run(0, "tokenize", "--input", lines, "--tokenizer", self.folder / name / "tokenizer.model", "--val-fraction", 0,
            "--no-eos", "--no-progress", "--force", "--out", out)
        return documents_of(out / "train")

    def tokenizer(self, name, run_folder, *options):
        """Trains one on the project's own documents; returns the exported one."""
        run(0, "tokenize", "--input", SOURCE / "README.md", "--input", SOURCE / "docs", "--vocab-size", 700,
            "--no-progress", "--extensions", ".md", "--out", self.folder / name, *options)
        folder = self.folder / f"{name} hf"
        result = run(0, "export", run_folder, "--out", folder, "--tokenizer", self.folder / name / "tokenizer.model")
        file = folder / "tokenizer.json"
        self.assertEqual("no tokenizer.json" in result.stderr, not file.exists())
        return tokenizers.Tokenizer.from_file(str(file)) if file.exists() else None

    def random_texts(self, count):
        draw = random.Random(20)
        words = (SOURCE / "README.md").read_text().split(" ")
        odd = list("".join(ODD))
        for _ in range(count):
            parts = []
            for _ in range(draw.randint(1, 12)):
                kind = draw.randrange(4)
                parts.append(draw.choice(words) + " " if kind == 0 else draw.choice(ODD)[:20] if kind == 1 else
                             "".join(draw.choices(odd, k=draw.randint(1, 8))) if kind == 2 else
                             draw.choice([" ", "\n", "<", ">", "x", "0", "\u2581"]))
            yield "".join(parts)

    def test_the_library_gives_the_same_ids_and_texts(self):
        trained = self.train("run", ranks=0, run__steps=1, model__vocab_size=700)
        texts = [*ODD, (SOURCE / "README.md").read_text(), (SOURCE / "docs" / "formats.md").read_text(),
                 (SOURCE / "train" / "trainer.cpp").read_text(), *self.random_texts(3000)]
        texts = [text for text in texts if text.strip(" \t\r\n\v\f")]  # the program passes over blank documents
        symbols = [word for symbol in SYMBOLS for word in ("--user-symbols", symbol)]
        # With few characters, many become bytes.
        for name, options in (("bpe", []), ("bpe with symbols", symbols), ("few", ["--character-coverage", 0.98])):
            with self.subTest(name):
                theirs = self.tokenizer(name, trained, *options)
                wanted = self.own_ids(name, texts)
                self.assertEqual(len(wanted), len(texts))
                for text, ids in zip(texts, wanted):
                    got = theirs.encode(text, add_special_tokens=False).ids
                    self.assertEqual(got, ids, repr(text[:200]))
                    self.assertEqual(theirs.decode(ids, skip_special_tokens=False), text)
                # EOS stands before a text, as before every document in training.
                self.assertEqual(theirs.encode("and").ids, [1] + theirs.encode("and", add_special_tokens=False).ids)
                self.assertEqual(theirs.get_vocab_size(), 700)
        # Ties are decided by rounding.
        self.assertIsNone(self.tokenizer("unigram", trained, "--model-type", "unigram"))


if __name__ == "__main__":
    import unittest
    unittest.main()
