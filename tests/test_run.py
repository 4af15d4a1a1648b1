import json
import os
import random
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import qa_flags, run_here
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, TrainingArguments
from trl import SFTConfig

from run_classification import ARGUMENTS as CLASSIFICATION
from run_qa_sft import ARGUMENTS, main
from run_summarization import ARGUMENTS as SUMMARIZATION
from utils.arguments import UserError
from utils.run import (
    FREE_KEYS,
    SAVING,
    SUMS,
    check_launcher,
    check_same_run,
    check_trackers,
    newest_checkpoint,
    peak_memory,
    seal,
    start_run,
)

# ----- The newest complete checkpoint


def make_checkpoint(output_dir, step, weights="adapter_model.safetensors", best=None):
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"w": torch.arange(1000.0)}, folder / weights)
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.save({"step": step}, folder / name)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_model_checkpoint": best}))
    (folder / SAVING).touch()
    seal(folder)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_noise(path):
    """Fill a file with noise of its own length: nothing but a sum of its content tells."""
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


def turn_bit(path):
    first, *rest = path.read_bytes()
    path.write_bytes(bytes([first ^ 1, *rest]))


DAMAGES = {
    "cut": cut, "emptied": lambda path: path.write_bytes(b""), "deleted": lambda path: path.unlink(),
    "noise": make_noise, "one bit": turn_bit,
}  # fmt: skip
FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", SUMS)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it_and_said_so(tmp_path, kind, name, caplog):
    make_checkpoint(tmp_path, 5)
    DAMAGES[kind](make_checkpoint(tmp_path, 10) / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with caplog.at_level("WARNING"):
        assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
    assert "checkpoint-10 cannot be used" in caplog.text
    DAMAGES[kind](tmp_path / "checkpoint-5" / name)
    before |= {path: path.read_bytes() for path in tmp_path.glob("checkpoint-5/*")}
    with pytest.raises(UserError, match="`output_dir` .*checkpoint-10: .*checkpoint-5: "):
        newest_checkpoint(tmp_path)
    assert {path: path.read_bytes() for path in before if path.exists()}.items() <= before.items()


def test_a_checkpoint_that_was_not_written_to_its_end_is_none(tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-5" / SAVING).touch()
    (tmp_path / "checkpoint-5" / "adapter_model.safetensors").write_bytes(b"half")
    assert newest_checkpoint(tmp_path) is None
    make_checkpoint(tmp_path, 3)
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")


def test_of_a_checkpoint_without_sums_nothing_is_known(tmp_path):
    (make_checkpoint(tmp_path, 5) / SUMS).unlink()  # as another program, or an earlier version, writes it
    with pytest.raises(UserError, match=f"`output_dir` .*checkpoint-5: {SUMS}"):
        newest_checkpoint(tmp_path)


def test_the_best_checkpoint_so_far_is_whole_where_it_is_needed(tmp_path):
    for step, best in ((5, 5), (10, 10), (15, 10)):
        make_checkpoint(tmp_path, step, best=f"/where/it/was/checkpoint-{best}")
    assert newest_checkpoint(tmp_path, needs_best=True) == str(tmp_path / "checkpoint-15")
    shutil.rmtree(tmp_path / "checkpoint-10")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-15")
    assert newest_checkpoint(tmp_path, needs_best=True) == str(tmp_path / "checkpoint-5")
    shutil.rmtree(tmp_path / "checkpoint-5")
    with pytest.raises(UserError, match="`output_dir` .*checkpoint-10"):
        newest_checkpoint(tmp_path, needs_best=True)


def test_the_newest_checkpoint_is_the_one_of_most_steps(tmp_path):
    for step in (9, 100, 20):
        make_checkpoint(tmp_path, step, "model.safetensors")
    (tmp_path / "checkpoint-best").mkdir()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert newest_checkpoint(tmp_path) is None


# ----- Start


def training_arguments(output_dir, **values):
    return TrainingArguments(output_dir=str(output_dir), use_cpu=True, report_to="none", **values)


def test_a_first_start_writes_the_recipe_and_goes_on_from_nothing(tmp_path):
    assert start_run(training_arguments(tmp_path / "run"), {"seed": 1, "learning_rate": 1e-4}, ARGUMENTS) is None
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text()) == {"seed": 1, "learning_rate": 1e-4}
    assert [path.name for path in (tmp_path / "run" / "_private").iterdir()] == [".lock"]


def test_another_recipe_does_not_go_on_from_a_checkpoint_and_changes_nothing(tmp_path):
    start_run(training_arguments(tmp_path), {"seed": 1, "lora_r": 4}, ARGUMENTS)
    start_run(training_arguments(tmp_path), {"seed": 2, "lora_r": 4}, ARGUMENTS)  # nothing there yet: free to change
    make_checkpoint(tmp_path, 5)
    before = (tmp_path / "recipe.yaml").read_bytes()
    for given, expected in (
        ({"seed": 3, "lora_r": 4}, "`seed` was 2 and is 3"),
        ({"seed": 2}, "`lora_r` was 4 and is 16"),
    ):
        with pytest.raises(UserError) as caught:
            start_run(training_arguments(tmp_path), given, ARGUMENTS)
        assert expected in str(caught.value) and "`output_dir`" in str(caught.value)
    assert (tmp_path / "recipe.yaml").read_bytes() == before


def test_keys_that_change_no_weight_may_differ_on_a_restart(tmp_path):
    start_run(training_arguments(tmp_path), {"seed": 1, "max_new_tokens": 5}, ARGUMENTS)
    make_checkpoint(tmp_path, 5)
    given = {"seed": 1} | dict.fromkeys(FREE_KEYS, "another")
    assert start_run(training_arguments(tmp_path), given, ARGUMENTS) == str(tmp_path / "checkpoint-5")


def test_a_recipe_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    start_run(training_arguments(tmp_path), {"seed": 1}, ARGUMENTS)
    before = (tmp_path / "recipe.yaml").read_bytes()

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        start_run(training_arguments(tmp_path), {"seed": 2}, ARGUMENTS)
    assert (tmp_path / "recipe.yaml").read_bytes() == before


@pytest.mark.parametrize("key", ["fp16", "activation_offloading"])
def test_what_needs_a_gpu_is_refused_on_a_cpu(key, tmp_path):
    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", **{key: True})
    with pytest.raises(UserError, match=f"`{key}` is true, which needs a GPU"):
        start_run(args, {}, ARGUMENTS)


def test_several_gpus_for_one_process_are_refused(tmp_path):
    args = training_arguments(tmp_path)
    assert args.n_gpu <= 1  # sets up the device
    args._n_gpu = 4
    with pytest.raises(UserError, match="4 GPUs .*`accelerate launch --num_processes 4`"):
        start_run(args, {}, ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "value", "own"),
    [("MIXED_PRECISION", "bf16", {"bf16": True}), ("DYNAMO_BACKEND", "INDUCTOR", {"torch_compile": True})],
)
def test_a_launcher_may_only_set_what_the_recipe_says(name, value, own, tmp_path, monkeypatch):
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(UserError, match=f"`{name.lower()}`.*`{next(iter(own))}: true`"):
        check_launcher(TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    check_launcher(TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **own))
    monkeypatch.setenv(f"ACCELERATE_{name}", "no")
    check_launcher(TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **own))


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_label_smoothing_is_a_share(value, tmp_path):
    with pytest.raises(UserError, match="`label_smoothing_factor`"):
        start_run(training_arguments(tmp_path, label_smoothing_factor=value), {}, ARGUMENTS)


def test_a_name_that_recomputation_does_not_know_is_refused_before_the_first_step(tmp_path):
    for options in ({"use_reentrant": False}, {"use_reentrant": False, "preserve_rng_state": True}):
        start_run(training_arguments(tmp_path, gradient_checkpointing_kwargs=options), {}, ARGUMENTS)
    with pytest.raises(UserError, match="`gradient_checkpointing_kwargs` has use_reentrance"):
        start_run(training_arguments(tmp_path, gradient_checkpointing_kwargs={"use_reentrance": False}), {}, ARGUMENTS)


def test_keys_that_may_differ_are_keys():
    known = {
        field
        for arguments in (*ARGUMENTS, *CLASSIFICATION, *SUMMARIZATION)
        for field in arguments.__dataclass_fields__
    }
    assert FREE_KEYS <= known


@pytest.mark.parametrize(
    "values", [{"eval_strategy": "no", "metric_for_best_model": "loss"}, {"eval_strategy": "epoch"}]
)
def test_early_stopping_needs_evaluations_and_a_metric(tmp_path, values):
    args = training_arguments(tmp_path, **values)
    with pytest.raises(UserError, match="`early_stopping_patience` .*`eval_strategy`.*`metric_for_best_model`"):
        start_run(args, {"early_stopping_patience": 2}, ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wandb", ["`report_to` is wandb", "wandb login", "WANDB_API_KEY", "WANDB_MODE=offline"]),
        ("comet_ml", ["`report_to` is comet_ml", "not installed", "tensorboard"]),
        ("wandbb", ["`report_to` is wandbb", "wandb", "trackio"]),
    ],
)
def test_a_tracker_that_could_not_log_is_the_users_to_mend_before_any_work(tmp_path, monkeypatch, name, expected):
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc
    for key in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(key, raising=False)
    args = training_arguments(tmp_path / "run")
    args.report_to = [name]
    with pytest.raises(UserError) as caught:
        start_run(args, {}, ARGUMENTS)
    assert all(word in str(caught.value) for word in expected) and not (tmp_path / "run").exists()


def test_a_tracker_that_keeps_its_log_here_needs_no_login(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    check_trackers(SimpleNamespace(report_to=["wandb", "trackio"], process_index=0, trackio_space_id=None))


def test_a_space_of_trackio_needs_a_token(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="`trackio_space_id` is lab/runs.*HF_TOKEN"):
        check_trackers(SimpleNamespace(report_to=["trackio"], process_index=0, trackio_space_id="lab/runs"))


def test_an_output_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="`output_dir` .* cannot be written"):
        start_run(training_arguments(tmp_path / "file" / "run"), {}, ARGUMENTS)
    assert (tmp_path / "file").read_text() == "kept"


def test_peak_memory_is_that_of_this_process():
    assert 0.1 < peak_memory()["peak_memory_gb"] < 100


# ----- The same run


ROWS = {"input_ids": [[1, 2, 3], [4], [5, 6]], "labels": [0, 1, 2]}


def trainer_of(tmp_path, model, rows=ROWS, validation=ROWS, processes=1):
    """What `check_same_run` reads of a trainer."""
    return SimpleNamespace(
        args=SimpleNamespace(output_dir=str(tmp_path), world_size=processes), model=model,
        train_dataset=Dataset.from_dict(rows), eval_dataset=Dataset.from_dict(validation),
        is_world_process_zero=lambda: True,
    )  # fmt: skip


def changed(weights):
    """Return a copy of a model's weights with one value changed."""
    name = max(weights, key=lambda name: weights[name].ndim)
    return weights | {name: weights[name] + 0.01}


@pytest.mark.parametrize("peft", [True, False])
def test_a_checkpoint_goes_on_with_the_same_rows_model_and_number_of_processes(peft, tiny_llama, tmp_path):
    def load():
        model = AutoModelForCausalLM.from_pretrained(tiny_llama)
        # At random, as on each start: not what tells one base model from another
        return get_peft_model(model, LoraConfig(target_modules=["q_proj"])) if peft else model

    (tmp_path / "_private").mkdir()
    model, other = load(), load()
    other.load_state_dict(changed(model.state_dict()))
    check_same_run(trainer_of(tmp_path, model), None)
    check_same_run(trainer_of(tmp_path, load()), "checkpoint-5")
    longer = {name: [*values, values[0]] for name, values in ROWS.items()}
    turned = {name: values[::-1] for name, values in ROWS.items()}
    joined = {"input_ids": [[1, 2], [3, 4], [5, 6]], "labels": [0, 1, 2]}
    before = (tmp_path / "_private" / "run.json").read_bytes()
    for name, trainer in [
        ("training split", trainer_of(tmp_path, model, longer)),
        ("training split", trainer_of(tmp_path, model, turned)),
        ("training split", trainer_of(tmp_path, model, joined)),
        ("training split", trainer_of(tmp_path, model, ROWS | {"labels": [0, 1, 1]})),
        ("validation split", trainer_of(tmp_path, model, validation=longer)),
        ("2 processes|1 processes, not 2", trainer_of(tmp_path, model, processes=2)),
        ("base model", trainer_of(tmp_path, other)),
    ]:
        with pytest.raises(UserError, match=f"`output_dir` .*({name})"):
            check_same_run(trainer, "checkpoint-5")
        assert (tmp_path / "_private" / "run.json").read_bytes() == before
    check_same_run(trainer_of(tmp_path, other, longer, longer, 2), None)  # from the start: as it is now


def test_of_a_checkpoint_of_an_earlier_version_nothing_is_known(tiny_llama, tmp_path, caplog):
    (tmp_path / "_private").mkdir()
    with caplog.at_level("WARNING"):
        check_same_run(trainer_of(tmp_path, AutoModelForCausalLM.from_pretrained(tiny_llama)), "checkpoint-5")
    assert "checkpoint-5" in caplog.text


def test_a_file_that_grew_does_not_go_on_in_the_same_folder(tiny_llama, data, tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = data.qa.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:60]))
    argv = qa_flags(
        tiny_llama, tmp_path / "run", train_file=path, answer_column="answer", save_strategy="steps", save_steps=1,
        evaluate_test=False,
    )  # fmt: skip
    first = run_here(main, ARGUMENTS, argv)
    assert first.code == 0, first.stderr
    before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
    path.write_text("".join(lines))
    grown = run_here(main, ARGUMENTS, argv)
    assert grown.code == 2 and "`output_dir`" in grown.stderr and "training split" in grown.stderr
    assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before


# ----- Killed and started again


@pytest.fixture(scope="module")
def command(tiny_llama, data):
    """Return a function: output folder -> flags of a run of 12 steps that saves every 4, with dropout."""

    def argv(folder):
        return qa_flags(
            tiny_llama, folder, train_file=data.qa, answer_column="answer", max_steps=12, save_strategy="steps",
            save_steps=4, lora_dropout=0.1, lr_scheduler_type="cosine", max_predict_samples=4, max_eval_samples=4,
        )  # fmt: skip

    return argv


@pytest.fixture(scope="module")
def uninterrupted(command, tmp_path_factory):
    done = run_here(main, ARGUMENTS, command(tmp_path_factory.mktemp("whole") / "run"))
    assert done.code == 0, done.stderr
    return load_file(done.folder / "adapter_model.safetensors")


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_killed_while_training_and_started_again_ends_in_the_same_weights(
    launcher, command, uninterrupted, tmp_path
):
    run = tmp_path / "run"
    done = launcher.run("run_qa_sft.py", command(run), exists=run / "checkpoint-4" / "trainer_state.json")
    assert done.code == -signal.SIGKILL, done.stderr[-3000:]
    assert (run / "checkpoint-4").exists() and not (run / "all_results.json").exists()

    again = run_here(main, ARGUMENTS, command(run))
    assert again.code == 0, again.stderr
    assert equal(load_file(run / "adapter_model.safetensors"), uninterrupted)
    history = json.loads((run / "trainer_state.json").read_text())
    assert history["global_step"] == 12


def test_a_run_whose_newest_checkpoint_is_cut_ends_in_the_same_weights(command, uninterrupted, tmp_path):
    first = run_here(main, ARGUMENTS, command(tmp_path / "run"))
    assert first.code == 0, first.stderr
    cut(tmp_path / "run" / "checkpoint-12" / "adapter_model.safetensors")
    (tmp_path / "run" / "adapter_model.safetensors").unlink()
    again = run_here(main, ARGUMENTS, command(tmp_path / "run"))
    assert again.code == 0, again.stderr
    assert equal(load_file(tmp_path / "run" / "adapter_model.safetensors"), uninterrupted)


def test_the_same_command_after_the_end_trains_nothing_and_reports_the_same_numbers(command, tmp_path):
    first = run_here(main, ARGUMENTS, command(tmp_path / "run"))
    before, weights = first.results, load_file(first.folder / "adapter_model.safetensors")
    again = run_here(main, ARGUMENTS, command(tmp_path / "run"))
    assert again.code == 0, again.stderr
    assert equal(load_file(again.folder / "adapter_model.safetensors"), weights)
    for name, value in before.items():
        if name.startswith(("test_", "base_test_", "eval_")):
            assert again.results[name] == pytest.approx(value, abs=1e-6), name


def test_another_recipe_in_the_folder_of_a_run_ends_in_one_line(command, tmp_path):
    first = run_here(main, ARGUMENTS, command(tmp_path / "run"))
    before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
    argv = command(tmp_path / "run")
    argv[argv.index("--learning_rate") + 1] = "0.5"
    other = run_here(main, ARGUMENTS, argv)
    assert other.code == 2 and "`learning_rate` was 0.001 and is 0.5" in other.stderr
    assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before
