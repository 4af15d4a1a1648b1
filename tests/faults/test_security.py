"""Files that would run code when they are read, names that would leave their folder, and secrets that leak."""

import os
import pickle
import shutil

import pytest
import torch
import yaml
from conftest import ROOT, run_here
from safetensors.torch import load_file

import predict
import run_classification
import sweep
from predict import PredictArguments
from tests.faults.conftest import KILLED, SCRIPTS
from utils.run import SAVING, damage, newest_checkpoint, seal
from utils.sweeps.arguments import SweepArguments
from utils.sweeps.plan import name_configurations


class Bomb:
    """Unpickled by a reader without care, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def bomb(path, mark, as_torch=True):
    """Write a file that leaves `mark` when it is read without care."""
    if as_torch:
        torch.save({"weight": Bomb(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(mark)))


def train(command, folder, **values):
    argv = command("run_classification.py", folder, **{"evaluate_test": False, "max_steps": 2} | values)
    return run_here(run_classification.main, run_classification.ARGUMENTS, argv)


def assert_refused(done, key):
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1 and key in errors[0], done.stderr[-2000:]


@pytest.mark.parametrize("as_torch", [True, False])
def test_weights_of_a_base_model_that_hold_code_are_refused(as_torch, command, tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    bomb(tmp_path / "base" / "pytorch_model.bin", tmp_path / "mark", as_torch)
    assert_refused(train(command, tmp_path / "run", model_name_or_path=tmp_path / "base"), ".safetensors")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("as_torch", [True, False])
def test_an_adapter_that_holds_code_is_refused(as_torch, command, whole, tmp_path):
    shutil.copytree(whole(KILLED).folder, tmp_path / "adapter", ignore=shutil.ignore_patterns("checkpoint-*"))
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    bomb(tmp_path / "adapter" / "adapter_model.bin", tmp_path / "mark", as_torch)
    argv = ["--model", str(tmp_path / "adapter"), "--text", "a murmur of the heart"]
    assert_refused(run_here(lambda args, given: predict.main(args), (PredictArguments,), argv), ".safetensors")
    assert_refused(train(command, tmp_path / "run", model_name_or_path=tmp_path / "adapter"), ".safetensors")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_checkpoint_that_holds_code_does_not_run_it(name, command, tmp_path):
    values = {"max_steps": 4, "load_best_model_at_end": False}
    assert train(command, tmp_path / "run", **values).code == 0
    for path in (tmp_path / "run").glob("checkpoint-4"):
        shutil.rmtree(path)
    checkpoint = tmp_path / "run" / "checkpoint-2"
    bomb(checkpoint / name, tmp_path / "mark")
    (checkpoint / SAVING).touch()
    seal(checkpoint)  # as somebody who can write it would
    assert damage(checkpoint) is None and newest_checkpoint(tmp_path / "run") == str(checkpoint)
    done = train(command, tmp_path / "run", **values)
    assert not (tmp_path / "mark").exists()
    if name == "training_args.bin":  # is not read at all
        assert done.code == 0, done.stderr
    else:
        assert_refused(done, ".safetensors")


@pytest.mark.parametrize("ending", ["pkl", "pickle", "pt", "npy", "joblib", "h5", "py", "arrow", "zip"])
def test_a_table_of_a_kind_that_may_hold_code_is_refused(ending, command, tmp_path):
    bomb(tmp_path / f"rows.{ending}", tmp_path / "mark", as_torch=False)
    assert_refused(train(command, tmp_path / "run", train_file=tmp_path / f"rows.{ending}"), f"rows.{ending}`")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a/b", "..", ""])
def test_a_configuration_of_a_sweep_stays_in_its_folder(name, tmp_path):
    sweep_file = {
        "script": "run_classification.py", "recipe": str(ROOT / "recipes" / "distilbert_lora.yaml"), "seeds": [1, 2],
        "metric": "eval_macro_f1", "direction": "maximize", "configurations": {name: {"learning_rate": 0.1}},
        "output_dir": str(tmp_path / "out"),
    }  # fmt: skip
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep_file))
    argv = [str(tmp_path / "sweep.yaml"), "--dry_run", "true"]
    assert_refused(run_here(lambda args, given: sweep.main(args), (SweepArguments,), argv), f"`{name}`")


def test_a_number_is_a_name_of_a_configuration():
    assert name_configurations({1: {"lora_r": 1}, 2.5: None}) == {"1": {"lora_r": 1}, "2.5": {}}


# ----- What is told


@pytest.mark.parametrize("script", [s if s == KILLED else pytest.param(s, marks=pytest.mark.faults) for s in SCRIPTS])
def test_no_row_and_no_token_leaves_the_private_folder(script, whole, hub, data):
    run = whole(script)
    files = {path.relative_to(run.folder): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    public = {path: content for path, content in files.items() if path.parts[0] != "_private"}
    sent = hub.repos[f"tester/{script[4:-3]}"].files
    told = {"log": run.output.encode(), **{f"sent {name}": content for name, content in sent.items()}, **public}
    assert len(sent) > 5 and any(path.parts[0] == "_private" for path in files)
    for name, content in told.items():
        text = content.decode("utf-8", "replace")
        assert "write-token" not in text, name
        if not str(name).endswith("tokenizer.json"):
            found = [secret for secret in data.secrets if secret in text]
            assert found == [], name
    assert not any("_private" in name or "checkpoint" in name or name.endswith((".bin", ".pt")) for name in sent)


def test_weights_are_safetensors_alone(whole):
    for path in whole(KILLED).folder.glob("*"):
        assert path.suffix not in (".bin", ".pt", ".pth", ".pkl") or path.name == "training_args.bin"
    assert load_file(whole(KILLED).folder / "adapter_model.safetensors")
