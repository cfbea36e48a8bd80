"""The build itself: presets configure, an installed tree can be moved, and the program knows its commit."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

CMAKE, SOURCE, BUILD = (os.environ[name] for name in ("CMAKE", "SOURCE", "BUILD"))
HAS_CUDA = os.environ["HAS_CUDA"] == "ON"
SOURCE = pathlib.Path(SOURCE)


def run(*words, **kwargs):
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True, **kwargs)
    if result.returncode != 0:
        raise AssertionError(f"{words}: exit code {result.returncode}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
    return result.stdout


class Build(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rodimus build "))  # with a blank, which paths may contain
        self.addCleanup(shutil.rmtree, self.folder)

    def test_presets_configure(self):
        presets = {p["name"]: p for p in json.loads((SOURCE / "CMakePresets.json").read_text())["configurePresets"]}
        self.assertEqual(list(presets), ["release", "debug", "asan", "cuda", "ci"])
        for name, preset in presets.items():
            variables, parent = dict(preset["cacheVariables"]), preset.get("inherits")
            while parent:
                variables = {**presets[parent]["cacheVariables"], **variables}
                parent = presets[parent].get("inherits")
            if variables.get("RODIMUS_CUDA") == "ON" and not HAS_CUDA:
                continue
            with self.subTest(preset=name):
                folder = self.folder / name
                run(CMAKE, "--preset", name, "-B", folder, "-DRODIMUS_BUILD_TESTS=OFF", cwd=SOURCE)
                cache = dict(line.split(":", 1) for line in (folder / "CMakeCache.txt").read_text().splitlines()
                             if ":" in line and not line.startswith(("#", "//")))
                for key, value in variables.items():
                    self.assertEqual(cache[key].split("=", 1)[1], value, key)
                self.assertTrue((folder / "build.ninja").exists())

    def test_an_installed_tree_can_be_moved(self):
        run(CMAKE, "--install", BUILD, "--prefix", self.folder / "here")
        (self.folder / "here").rename(self.folder / "there")
        tree = self.folder / "there"
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        program = tree / "bin" / "rodimus"
        version = run(program, "--version", cwd=elsewhere)
        self.assertRegex(version, r"^rodimus \d+\.\d+ \(commit ([0-9a-f]{12}(-dirty)?|unknown)\)\nfeatures: .*-march=")
        for preset in ("tiny", "small"):
            run(program, "inspect", tree / "share" / "rodimus" / "configs" / f"{preset}.toml", cwd=elsewhere)
        for document in ("README.md", "CHANGELOG.md", "config.md", "formats.md"):
            self.assertTrue((tree / "share" / "doc" / "rodimus" / document).is_file(), document)
        path = [line for line in run("readelf", "-d", program).splitlines() if "PATH" in line]
        self.assertEqual(len(path), 1)
        self.assertIn("[$ORIGIN/../lib", path[0])
        for place in (BUILD, str(SOURCE), str(self.folder)):
            self.assertNotIn(place, path[0].replace(f"{SOURCE}/.cuda", ""), "the toolkit may lie in the project")

    def test_the_commit_of_git_of_an_archive_and_of_neither(self):
        script = SOURCE / "cmake" / "commit.cmake"
        source, output = self.folder / "source", self.folder / "commit.cpp"
        (source / "cmake").mkdir(parents=True)

        def commit():
            run(CMAKE, f"-DSOURCE={source}", f"-DOUTPUT={output}", "-P", script)
            return re.search('return "(.*)"', output.read_text())[1]

        shutil.copy(SOURCE / "cmake" / "commit.txt", source / "cmake")
        self.assertEqual(commit(), "unknown")
        (source / "cmake" / "commit.txt").write_text("0123456789abcdef0123456789abcdef01234567\n")
        self.assertEqual(commit(), "0123456789ab")
        before = output.stat().st_mtime_ns
        commit()
        self.assertEqual(output.stat().st_mtime_ns, before, "nothing is to be compiled again")

        git = ("git", "-C", source, "-c", "user.name=x", "-c", "user.email=x@example.org")
        run(*git, "init", "--quiet")
        shutil.copy(SOURCE / "cmake" / "commit.txt", source / "cmake")
        shutil.copy(SOURCE / ".gitattributes", source)
        run(*git, "add", "--all")
        run(*git, "commit", "--quiet", "--message", "a file")
        head = run(*git, "rev-parse", "HEAD").strip()
        self.assertEqual(commit(), head[:12])
        (source / ".gitattributes").write_text("cmake/commit.txt export-subst\n")
        self.assertEqual(commit(), head[:12] + "-dirty")
        run(*git, "archive", "--output", self.folder / "archive.tar", "HEAD")
        shutil.rmtree(source)
        source.mkdir()
        run("tar", "-xf", self.folder / "archive.tar", "-C", source)
        self.assertEqual(commit(), head[:12])


if __name__ == "__main__":
    unittest.main(verbosity=2)
