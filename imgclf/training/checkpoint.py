"""Checkpoints that survive kill -9: written aside and renamed by orbax, hashed, checked when read, the one before used if damaged."""

import dataclasses
import errno
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console

from imgclf.errors import UserError
from imgclf.remote import mirror
from imgclf.training.state import TrainState, Tree, tree_sha256

_STEP_PREFIX = "step"
_KEEP = 2  # the newest, and the one before should that be damaged


@dataclasses.dataclass(frozen=True)
class Restored:
    state: TrainState
    progress: dict[str, Any]  # what stood beside the state: early stopping, the best so far, train_seconds


class Checkpoints:
    """The `checkpoints/` folder of a run: `last/step_N` to resume from, and `best-…` or `final-…`, the model that is kept."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self._last = self.folder / "last"
        # Synchronous: on few cores a writer beside the training doubles the time of its steps.
        self._manager = ocp.CheckpointManager(
            self._last,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=_KEEP, step_prefix=_STEP_PREFIX, enable_async_checkpointing=False, cleanup_tmp_directories=True, create=True
            ),
        )

    def close(self) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def interrupted(self, step: int) -> bool:
        """Whether the cluster has announced the end of this job; the same answer on every host."""
        return self._manager.reached_preemption(step)

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Writes the state of this step, with its hash; does nothing if the step is there already.

        Where the run is at a URL, the state is sent there meanwhile.

        Raises:
          UserError: when the disk is full; the older checkpoints stay as they are. Where a state before this one could not be sent.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        meta = progress | {"state_sha256": tree_sha256(state)}
        self._need_space(state)
        try:
            self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(meta)))
        except Exception as error:
            self._explain_full_disk(error, step)
            raise
        mirror.saved(self.folder)

    def restore(self, like: Callable[[int], TrainState], console: Console) -> Restored | None:
        """Reads the newest sound checkpoint, or None where there is none.

        A damaged one is named, moved to `damaged/`, and the one before is used. `like` gives the structure, shapes, dtypes and shardings
        of the state of a step.

        Raises:
          UserError: if there are checkpoints but all are damaged.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                return self._read(step, like(step))
            except Exception as error:  # any failure to read is damage; it is told, and the folder kept for a look
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                damaged.append(self._set_aside(step))
                console.print(f"[yellow]Checkpoint of step {step} is damaged ({reason[:200]}); it was moved to {damaged[-1]}.[/]")
        if damaged:
            raise UserError(
                f"All checkpoints in {self._last} were damaged (moved to {damaged[-1].parent}); start anew with another --workdir."
            )
        return None

    def _read(self, step: int, like: TrainState) -> Restored:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        )
        progress = dict(restored.progress)
        expected = progress.pop("state_sha256")
        if tree_sha256(restored.state) != expected:
            raise ValueError("its contents don't match the hash that was written with them")
        return Restored(state=restored.state, progress=progress)

    def _set_aside(self, step: int) -> Path:
        target = self.folder / "damaged" / f"{_STEP_PREFIX}_{step}"
        if jax.process_index() == 0:
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            (self._last / f"{_STEP_PREFIX}_{step}").rename(target)
        self._manager.reload()
        return target

    def save_model(self, name: str, params: Tree, batch_stats: Tree, about: dict[str, Any]) -> None:
        """Writes the model that is kept, as `checkpoints/NAME`, over one of that name."""
        self._need_space((params, batch_stats))
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                model = {"params": params, "batch_stats": batch_stats}
                checkpointer.save(self.folder / name, model, force=True, custom_metadata=about)
        except Exception as error:
            self._explain_full_disk(error, None)
            raise

    def keep_only(self, names: Collection[str]) -> None:
        """Deletes kept models other than these; called once the progress that names them is on disk."""
        if jax.process_index() == 0:
            for folder in self.folder.iterdir():
                if folder.name.startswith(("best-", "final-")) and folder.name not in names:
                    shutil.rmtree(folder)

    def _need_space(self, tree: Any) -> None:
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + 2**20
        if shutil.disk_usage(self.folder).free < needed:
            self._explain_full_disk(OSError(errno.ENOSPC, "No space left on device"), None)

    def _explain_full_disk(self, error: Exception, step: int | None) -> None:
        text = str(error)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "RESOURCE_EXHAUSTED" in text
        if not full:
            return
        kept = [old for old in self.steps() if old != step]
        intact = f"the checkpoint of step {kept[-1]} is intact" if kept else "no checkpoint had been written yet"
        raise UserError(f"The disk of {self.folder} is full; {intact}. Free some space and give the same command to continue.") from error


def load_model(folder: Path) -> tuple[dict[str, Tree], dict[str, Any]]:
    """Reads a kept model: `{"params", "batch_stats"}` as numpy arrays, and what stands beside it (`class_names`, step, metric).

    Raises:
      UserError: if the folder isn't a kept model, or is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} holds no kept model; give the folder of a finished run.")
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            metadata = checkpointer.metadata(folder.absolute())
            about = metadata.custom_metadata
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), metadata.item_metadata.tree)
            model = checkpointer.restore(folder.absolute(), like)
            if tree_sha256(model["params"]) != about["params_sha256"]:
                raise ValueError("its parameters don't match their hash")
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{folder} is damaged ({reason[:200]}); train again or restore it from a copy.") from error
    return model, about
