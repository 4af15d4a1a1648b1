"""Train from the newest complete checkpoint or from the start, and stop where going on would do harm: at a number that
is not finite, and after SIGTERM or Ctrl-C, once a checkpoint is saved."""

import contextlib
import ctypes
import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from torch import nn
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer_utils import rotate_checkpoints

from utils.arguments import UserError, library_checks
from utils.json_files import read_json, write_json
from utils.modeling import all_finite, unpacked
from utils.run import SAVING, best_checkpoint, check_same_run, code_commit, file_sha256, peak_memory, seal

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT)  # SIGINT is Ctrl-C
SAME_SIGNAL = 2.0  # seconds within which a second signal is the first again: SLURM and launchers both send one
MIN_LOSS_SCALE = 1e-4  # as in fairseq: below it, the float16 gradients are not finite at any scale


def train_or_resume(trainer: Trainer, checkpoint: str | None) -> dict[str, Any]:
    """Train to the end, from `checkpoint` if given, and return the metrics and the `commit` with the prefix `train_`.

    `Trainer.train` takes one extra step when it resumes from the last checkpoint. A run that had finished or stopped
    early is therefore not trained again: its weights (the best ones with `load_best_model_at_end`) and metrics are
    loaded instead.

    Raises:
        UserError: the checkpoint is of other data, another base model or another number of processes; a number is not
            finite; or the evaluation does not compute `metric_for_best_model`.
        SystemExit: after SIGTERM or Ctrl-C, with the exit code that a shell shows for it.
    """
    output_dir = Path(str(trainer.args.output_dir))
    check_same_run(trainer, checkpoint)
    state = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json") if checkpoint else None
    best = best_checkpoint(Path(checkpoint)) if checkpoint and trainer.args.load_best_model_at_end else None
    if checkpoint and state and (state.global_step >= state.max_steps or stopped_early(state)):
        # Private: no public method loads every kind of checkpoint (adapter, shards, FSDP) without a training step
        trainer._load_from_checkpoint(str(best or checkpoint))
        trainer.state = state
        known = {"train_loss": mean_loss(state), "train_epoch": state.epoch or 0.0}  # if killed before the file
        return known | read_json(output_dir / "train_results.json")
    trainer.create_model_card = lambda *args, **kwargs: None  # type: ignore[method-assign]  # TRL's, in each checkpoint
    for name, key in (("create_optimizer", "optim"), ("create_scheduler", "lr_scheduler_type")):
        setattr(trainer, name, library_checks(f"`{key}`")(getattr(trainer, name)))  # arguments are read only there
    save_whole(trainer)
    guard = Guard(trainer, best)
    trainer.add_callback(guard)
    try:
        with guard.on_signals(), differentiable(cast(nn.Module, trainer.model)):
            found = trainer.train(resume_from_checkpoint=checkpoint).metrics
        if guard.signal:  # after the last step
            raise SystemExit(128 + guard.signal)
    except KeyError as error:  # raised after the first evaluation
        if "metric_for_best_model" not in str(error):
            raise
        computed = str(error).split("metrics are: ")[-1].split(". Consider")[0]
        raise UserError(
            f"`metric_for_best_model` is {trainer.args.metric_for_best_model}: an evaluation computes {computed}."
        ) from error
    metrics: dict[str, Any] = {f"train_{key.removeprefix('train_')}": value for key, value in found.items()}
    if checkpoint is None and "train_num_tokens" in metrics:  # a resumed run times only some of its tokens
        metrics["train_tokens_per_second"] = metrics["train_num_tokens"] / metrics["train_runtime"]
    metrics |= {f"train_{key}": value for key, value in peak_memory().items()}
    metrics |= {"train_loss": mean_loss(trainer.state), "train_commit": code_commit()}
    if trainer.is_world_process_zero():
        write_json(output_dir / "train_results.json", metrics)
    return metrics


def mean_loss(state: TrainerState) -> float:
    """Return the mean loss of all steps, 0 without any; `Trainer` gives that of the steps since the run went on."""
    kept = cast(dict[str, Any], state.stateful_callbacks).get("Guard", {"attributes": {"total_loss": 0.0}})
    return kept["attributes"]["total_loss"] / max(state.global_step, 1)


def save_whole(trainer: Trainer) -> None:
    """Let `Trainer` seal each checkpoint, and delete earlier ones only then."""
    args, save = trainer.args, trainer._save_checkpoint

    def saved(model: nn.Module, trial: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{trainer.state.global_step}"
        folder.mkdir(exist_ok=True)
        (folder / SAVING).touch()  # by each process, since each writes there
        limit, args.save_total_limit = args.save_total_limit, None
        save(model, trial)
        args.save_total_limit = limit
        trainer.accelerator.wait_for_everyone()  # each process saves its random state
        if args.should_save:
            seal(folder)
            rotate_checkpoints(str(args.output_dir), limit, trainer.state.best_model_checkpoint, use_mtime=True)

    trainer._save_checkpoint = saved  # type: ignore[method-assign]


def save_model(trainer: Trainer) -> None:
    """Save the final weights and the trainer's state, each file whole or not at all, and free what only training
    needs: gradients and moments take three times as much memory as the trained weights."""
    if trainer.optimizer is not None:  # it is None where nothing was left to train
        trainer.optimizer.zero_grad()
        trainer.optimizer.state.clear()
    output_dir = Path(str(trainer.args.output_dir))
    folder = output_dir / SAVING
    if trainer.args.should_save:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed here
    trainer.save_model(str(folder))
    if trainer.args.should_save:
        trainer.state.save_to_json(str(folder / "trainer_state.json"))
        for path in folder.iterdir():
            file_sha256(path)
            path.replace(output_dir / path.name)
        folder.rmdir()


def add_early_stopping(trainer: Trainer, patience: int | None, checkpoint: str | None) -> None:
    """Let training stop after `patience` evaluations in a row without a better `metric_for_best_model`; None never
    does. Transformers begins to count anew when a run resumes; here it goes on, so that both runs stop at one step.

    Args:
        trainer: its training rows and arguments tell how often it evaluates.
        patience: evaluations.
        checkpoint: from which the run resumes.
    """
    if patience is None:
        return
    callback = EarlyStoppingCallback(patience)
    if checkpoint:
        saved = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json").stateful_callbacks
        counted = saved.get(EarlyStoppingCallback.__name__, {}).get("attributes", {})
        callback.early_stopping_patience_counter = counted.get("early_stopping_patience_counter", 0)
    trainer.add_callback(callback)
    args, rows = trainer.args, len(cast(Dataset, trainer.train_dataset))
    steps_per_epoch = math.ceil(rows / (args.train_batch_size * args.world_size) / args.gradient_accumulation_steps)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)
    every = steps_per_epoch if args.eval_strategy == "epoch" else args.eval_steps or 1
    evaluations = int(steps / math.ceil(every * steps if every < 1 else every))
    if evaluations <= patience:  # the first evaluation is the first best one
        logger.warning(
            "`early_stopping_patience` is %d, and a run of %d steps evaluates %d times: it cannot stop early",
            patience, steps, evaluations,
        )  # fmt: skip


def stopped_early(state: TrainerState) -> bool:
    """Return whether `EarlyStoppingCallback` had ended the training. The flag `should_training_stop` does not say so:
    transformers' own checkpoint at SIGTERM has it, too."""
    found = cast(dict[str, Any], state.stateful_callbacks or {}).get("EarlyStoppingCallback")
    if not found:
        return False
    return found["attributes"]["early_stopping_patience_counter"] >= found["args"]["early_stopping_patience"]


@contextlib.contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Keep 4-bit weights in a form that has a gradient, and make a backward pass through an operation that has none an
    error: torch only warns, and the gradient of everything before it would be wrong."""
    with unpacked(model), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*an autograd kernel was not registered")
        yield


class Guard(TrainerCallback):
    """Ends the training, on all processes at the same step, with `UserError` at a number that is not finite, and with
    `SystemExit` after SIGTERM or Ctrl-C, once a checkpoint is saved.

    It looks at the losses and gradients themselves: `Trainer` logs 0 for a loss that is not finite, and clips a
    gradient of infinite norm to 0, so that nothing is learned any more.
    """

    def __init__(self, trainer: Trainer, best: Path | None = None) -> None:
        self.trainer, self.best = trainer, best
        self.loss = 0.0  # of this step
        self.finite_loss = self.finite_norm = True
        self.signal, self.signal_at = 0, 0.0
        self.stopping = False
        step, clip = trainer.training_step, trainer.accelerator.clip_grad_norm_

        def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
            loss = step(*args, **kwargs)
            self.finite_loss &= bool(loss.isfinite().all())
            self.loss += loss.item()
            return loss

        def clipped(*args: Any, **kwargs: Any) -> torch.Tensor:
            norm = cast(torch.Tensor, clip(*args, **kwargs))
            self.finite_norm = bool(norm.isfinite())
            return norm

        trainer.training_step = watched  # type: ignore[method-assign]
        trainer.accelerator.clip_grad_norm_ = clipped

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as a request to stop at the end of the step; a second one ends the process."""
        if threading.current_thread() is not threading.main_thread():  # only there can a handler be set
            yield
            return

        def handle(number: int, frame: Any) -> None:
            if not self.signal:
                self.signal, self.signal_at = number, time.monotonic()
                logger.warning("stopping after this step, at signal %d; a second one ends the run at once", number)
            elif time.monotonic() - self.signal_at > SAME_SIGNAL:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        before = {number: signal.signal(number, handle) for number in SIGNALS}
        if "ACCELERATE_MIXED_PRECISION" in os.environ and sys.platform == "linux":
            # `accelerate launch` dies of SIGTERM without passing it on to a single process: be sent it then
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def on_train_begin(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        if self.best:  # where the folder is now; `Trainer` knows where it was
            state.best_model_checkpoint = str(self.best)

    def on_evaluate(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        if not math.isfinite(kwargs["metrics"].get("eval_loss", 0.0)):
            raise self.diverged("the loss of the evaluation")

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        accelerator, scaler = self.trainer.accelerator, self.trainer.accelerator.scaler
        skipped = accelerator.optimizer_step_was_skipped
        # Of float16 gradients that overflow a step is skipped, and the scale halved: normal, unless it goes on
        scaled = not skipped or scaler is None or scaler.get_scale() >= MIN_LOSS_SCALE
        checks = {
            "the loss": self.finite_loss,
            "a weight": all_finite(cast(nn.Module, self.trainer.model), only_trainable=True),
            "each gradient in float16": scaled,
            "the norm of the gradient": self.finite_norm or skipped,
        }
        found = torch.tensor([self.loss, *checks.values(), not self.signal], device=args.device)
        gathered = accelerator.gather(found).view(-1, len(found))
        (_, *passed, undisturbed), loss = gathered.amin(dim=0).tolist(), gathered[:, 0].mean().item()
        total = state.stateful_callbacks.setdefault("Guard", {"args": {}, "attributes": {"total_loss": 0.0}})
        total["attributes"]["total_loss"] += loss  # kept in each checkpoint
        self.loss = 0.0
        for what, passes in zip(checks, passed, strict=True):
            if not passes:
                raise self.diverged(what)
        if not undisturbed:
            if self.stopping:  # `save_strategy: best` did not save after the evaluation
                control.should_evaluate = False
            self.stopping = True
            args.save_only_model = False  # the optimizer is needed to go on
            # The evaluation of an epoch comes after its last step, and would be missing from the run that goes on
            control.should_save = not float(state.epoch or 0).is_integer()

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        control.should_save |= self.stopping

    def on_save(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        if self.stopping:
            self.trainer.accelerator.wait_for_everyone()  # a launcher ends the others when the first process exits
            logger.warning("stopped: saved checkpoint-%d; the same command goes on from it", state.global_step)
            self.trainer.end()
            raise SystemExit(128 + (self.signal or signal.SIGTERM))

    def diverged(self, what: str) -> UserError:
        """Return the error for a number that is not finite."""
        args = self.trainer.args
        rather = ", or use `bf16` instead of `fp16`" if args.fp16 else ""
        return UserError(
            f"{what} is not finite at step {self.trainer.state.global_step}, with `learning_rate` "
            f"{args.learning_rate:g} and `max_grad_norm` {args.max_grad_norm:g}: the training has diverged. Lower "
            f"`learning_rate`, raise `warmup_steps`, keep `max_grad_norm` at 1{rather}, with another `output_dir`; "
            "checkpoints of earlier steps are kept."
        )
