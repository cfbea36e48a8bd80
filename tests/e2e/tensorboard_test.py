"""Event files as read by TensorBoard's own server code (scripts/setup.sh --test fetches it)."""
import pathlib
import shutil
import sys
import unittest

from support import Case, run

FETCHED = pathlib.Path(__file__).resolve().parents[2] / ".python"
sys.path.insert(0, str(FETCHED))
try:
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.util import tensor_util
except ImportError as error:
    sys.exit(f"no TensorBoard in {FETCHED} ({error}): run scripts/setup.sh --test")


def read(folder):
    """{tag: [(step, value), ...]} in TensorBoard's order."""
    server = EventMultiplexer(tensor_size_guidance={"tensors": 0})
    server.AddRunsFromDirectory(str(folder))
    server.Reload()
    assert list(server.Runs()) == ["."], server.Runs()
    return {tag: [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in server.Tensors(".", tag)]
            for tag in server.Runs()["."]["tensors"]}


class TensorBoard(Case):
    def train_six_steps(self):
        """Checkpoints at steps 4 and 6."""
        self.path = self.config("run", run__steps=6, run__eval_every=2, checkpoint__every=4)
        self.output = self.folder / "run"
        run(0, "train", self.path, *self.overrides)
        self.board = self.output / "tensorboard"

    def resume_from_four(self):
        shutil.rmtree(self.output / "step_00000006")
        run(0, "train", self.path, *self.overrides)

    def expect_six_steps(self):
        scalars = read(self.board)
        for tag in ("train/loss", "train/lr", "train/grad_norm", "train/tokens_per_s"):
            self.assertEqual([step for step, _ in scalars[tag]], [1, 2, 3, 4, 5, 6], tag)
        self.assertEqual([step for step, _ in scalars["val/loss"]], [2, 4, 6])
        return scalars

    def test_steps_done_again_are_shown_once(self):
        self.train_six_steps()
        first = self.expect_six_steps()
        for files in (2, 3):
            self.resume_from_four()
            self.assertEqual(len(list(self.board.iterdir())), files)
            scalars = self.expect_six_steps()
            for tag in ("train/loss", "train/lr", "val/loss"):
                self.assertEqual(scalars[tag], first[tag])

    def test_a_clock_that_went_back_changes_nothing(self):
        """As if the first part had run on a machine whose clock is a day ahead."""
        self.train_six_steps()
        file, = self.board.iterdir()
        start, seconds, rest = file.name.rsplit(".tfevents.", 1)[0], *file.name.rsplit(".tfevents.", 1)[1].split(".", 1)
        file.rename(self.board / f"{start}.tfevents.{int(seconds) + 86400}.{rest}")
        self.resume_from_four()
        self.resume_from_four()
        self.expect_six_steps()

    def test_a_run_that_begins_again_replaces_what_there_was(self):
        """Killed before its first checkpoint, or restarted from scratch in the same folder."""
        self.train_six_steps()
        for step in self.output.glob("step_*"):
            shutil.rmtree(step)
        run(0, "train", self.path, *self.overrides)
        self.expect_six_steps()


if __name__ == "__main__":
    unittest.main(verbosity=2)
