"""What ends a training early: a number that is not finite, SIGTERM, an operation without a gradient. And what may not
change a weight: evaluations in between, and the stop and start of a run."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, flags, qa_flags, run_here
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    EarlyStoppingCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.arguments import UserError
from utils.evaluation.models import trained_model
from utils.logits import predict_logits
from utils.modeling import PACKS, check_packing, unpacked
from utils.reporting.tables import training_lines
from utils.run import newest_checkpoint
from utils.training import Guard, differentiable, save_model, stopped_early

FINISHED = ("task.json", "all_results.json", "report.md", "README.md", "adapter_model.safetensors")


def class_flags(model, folder, **values):
    defaults = {
        "model_name_or_path": model, "output_dir": folder, "use_cpu": True, "use_peft": True, "lora_r": 4,
        "lora_target_modules": ["query", "value"], "max_length": 32, "per_device_train_batch_size": 8,
        "learning_rate": 1e-3, "report_to": "none", "text_column": "note", "label_column": "ward", "logging_steps": 1,
        "near_duplicate_threshold": 1.0, "evaluate_test": False, "pooling": "mean",
    }  # fmt: skip
    return flags(**defaults | values)


def classify(model, folder, **values):
    return run_here(run_classification.main, run_classification.ARGUMENTS, class_flags(model, folder, **values))


def qa(model, folder, **values):
    argv = qa_flags(model, folder, **{"answer_column": "answer", "evaluate_test": False} | values)
    return run_here(run_qa_sft.main, run_qa_sft.ARGUMENTS, argv)


def history(run, folder=None):
    return json.loads(((folder or run.folder) / "trainer_state.json").read_text())["log_history"]


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def at_step(monkeypatch, trainer, number, action):
    """Call `action` with the loss of the `number`-th forward and backward pass, counted over one process."""
    step, calls = trainer.training_step, []

    def watched(self, *args):
        calls.append(step(self, *args))
        return (action(calls[-1]) if len(calls) == number else None) or calls[-1]

    monkeypatch.setattr(trainer, "training_step", watched)


# ----- Numbers that are not finite


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(value, tiny_bert, data, tmp_path, monkeypatch):
    # The fifth pass of two a step, as an early one, which the mean with the next would hide
    at_step(monkeypatch, run_classification.Trainer, 5, lambda loss: loss * value)
    run = classify(
        tiny_bert, tmp_path / "run", train_file=data.notes, gradient_accumulation_steps=2, save_steps=1, max_steps=5,
        evaluate_test=None,
    )  # fmt: skip
    errors = [line for line in run.stderr.split("\n") if line.startswith("error: ")]
    assert run.code == 2 and len(errors) == 1, run.stderr
    assert "the loss" in errors[0] and "step 3" in errors[0] and "`learning_rate`" in errors[0]
    assert not any((run.folder / name).exists() for name in FINISHED)
    assert newest_checkpoint(run.folder) == str(run.folder / "checkpoint-2")


@pytest.mark.parametrize("script", ["qa", "classification", "summarization"])
def test_weights_that_are_not_finite_end_the_run_before_they_are_saved(script, request, data, tmp_path):
    values = {"learning_rate": 1e38, "max_grad_norm": 0, "max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    if script == "qa":
        values |= {"train_file": data.qa, "evaluate_test": None, "logging_steps": 1}
        run = qa(request.getfixturevalue("tiny_llama"), tmp_path / "run", **values)
    elif script == "classification":
        values |= {"train_file": data.notes, "evaluate_test": None}
        run = classify(request.getfixturevalue("tiny_bert"), tmp_path / "run", **values)
    else:
        values |= {
            "model_name_or_path": request.getfixturevalue("tiny_t5"), "output_dir": tmp_path / "run", "use_cpu": True,
            "train_file": data.dialogues, "text_column": "dialogue", "summary_column": "note", "report_to": "none",
            "use_peft": True, "lora_target_modules": ["q"], "dtype": "float32",
        }  # fmt: skip
        run = run_here(run_summarization.main, run_summarization.ARGUMENTS, flags(**values))
    assert run.code == 2 and "not finite at step 1" in run.stderr
    assert not any((run.folder / name).exists() for name in FINISHED)
    assert newest_checkpoint(run.folder) is None


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_checkpoint_with_such_weights_is_passed_over(value, tiny_bert, data, tmp_path):
    run = classify(tiny_bert, tmp_path / "run", train_file=data.notes, save_steps=1, max_steps=2)
    path = run.folder / "checkpoint-2" / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values()))[0, 0] = value
    save_file(weights, path)
    assert newest_checkpoint(run.folder) == str(run.folder / "checkpoint-1")


def test_a_base_model_or_adapter_with_such_weights_is_refused(tiny_bert, data, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] = math.nan
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    run = classify(tmp_path / "model", tmp_path / "run", train_file=data.notes, max_steps=1)
    assert run.code == 2 and "`model_name_or_path`" in run.stderr and "not finite" in run.stderr


def guard_with(scale, skipped):
    scaler = SimpleNamespace(get_scale=lambda: scale)
    accelerator = SimpleNamespace(
        scaler=scaler, optimizer_step_was_skipped=skipped, gather=lambda found: found, clip_grad_norm_=None
    )
    args, state = TrainingArguments(output_dir="out", use_cpu=True), TrainerState(global_step=7)
    trainer = {"accelerator": accelerator, "model": torch.nn.Linear(1, 1), "args": args, "state": state}
    return Guard(SimpleNamespace(**trainer, training_step=None))


def end_step(guard):
    guard.on_step_end(guard.trainer.args, guard.trainer.state, TrainerControl())


def test_a_scaler_may_skip_steps_until_its_scale_is_used_up():
    for scale, skipped in ((32768.0, True), (1e-6, False)):
        end_step(guard_with(scale, skipped))
    with pytest.raises(UserError, match="gradient.* at step 7"):
        end_step(guard_with(1e-6, True))


def test_a_gradient_that_is_not_finite_is_normal_only_where_its_step_is_skipped():
    for skipped in (True, False):
        guard = guard_with(32768.0, skipped)
        guard.finite_norm = False
        if skipped:
            end_step(guard)
        else:
            with pytest.raises(UserError, match="gradient.* at step 7"):
                end_step(guard)


def test_a_gradient_of_infinite_norm_ends_the_run_though_each_of_its_numbers_is_finite(
    tiny_bert, data, tmp_path, monkeypatch
):
    # Clipping makes it 0: the losses stay finite, and nothing is learned
    loss = run_classification.Trainer.compute_loss
    monkeypatch.setattr(
        run_classification.Trainer, "compute_loss", lambda *args, **kwargs: loss(*args, **kwargs) * 1e21
    )
    run = classify(tiny_bert, tmp_path / "run", train_file=data.notes, max_steps=3)
    assert run.code == 2 and "gradient is not finite at step 1" in run.stderr, run.stderr
    assert not any((run.folder / name).exists() for name in FINISHED)


def test_an_evaluation_whose_loss_is_not_finite_ends_the_run_before_its_checkpoint(
    tiny_bert, data, tmp_path, monkeypatch
):
    step = run_classification.Trainer.prediction_step

    def evaluated(self, *args, **kwargs):
        loss, *rest = step(self, *args, **kwargs)
        return (loss * (math.nan if self.state.global_step == 2 else 1), *rest)

    monkeypatch.setattr(run_classification.Trainer, "prediction_step", evaluated)
    run = classify(
        tiny_bert,
        tmp_path / "run",
        train_file=data.notes,
        max_steps=3,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
    )
    assert run.code == 2 and "evaluation is not finite at step 2" in run.stderr, run.stderr
    assert newest_checkpoint(run.folder) == str(run.folder / "checkpoint-1")


# ----- SIGTERM


@pytest.fixture(scope="module")
def epochs(tiny_bert, data):
    """Return a function: output folder -> values of a run of 3 epochs of 8 steps, evaluated and saved after each."""

    def values(folder, **more):
        return {
            "model": tiny_bert, "folder": folder, "train_file": data.notes, "num_train_epochs": 3,
            "eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "lora_dropout": 0.1,
            "metric_for_best_model": "macro_f1", "per_device_train_batch_size": 16, "head_learning_rate": 0.01,
            "train_sampling_strategy": "group_by_length",
        } | more  # fmt: skip

    return values


@pytest.fixture(scope="module")
def uninterrupted(epochs, tmp_path_factory):
    run = classify(**epochs(tmp_path_factory.mktemp("whole") / "run"))
    assert run.code == 0, run.stderr
    return run


@pytest.mark.parametrize(
    ("number", "step", "saved", "values"),
    [
        (signal.SIGTERM, 11, 11, {}),
        (signal.SIGTERM, 8, 8, {}),  # the last of an epoch: after its evaluation
        (signal.SIGTERM, 24, 24, {}),
        (signal.SIGTERM, 11, 11, {"enable_jit_checkpoint": True}),
        (signal.SIGINT, 11, 11, {}),  # Ctrl-C
    ],
)
def test_a_run_stopped_by_a_signal_goes_on_to_the_same_weights(
    number, step, saved, values, epochs, uninterrupted, tmp_path, monkeypatch
):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, run_classification.Trainer, step, lambda loss: os.kill(os.getpid(), number))
        stopped = classify(**epochs(tmp_path / "run", **values))
    assert stopped.code == 128 + number and signal.getsignal(number) == before
    assert newest_checkpoint(stopped.folder) == str(stopped.folder / f"checkpoint-{saved}")
    assert not any((stopped.folder / name).exists() for name in FINISHED)
    again = classify(**epochs(tmp_path / "run", **values))
    assert again.code == 0, again.stderr
    weights = [load_file(run.folder / "adapter_model.safetensors") for run in (again, uninterrupted)]
    assert equal(*weights)
    evaluations = [[e for e in history(run) if "eval_macro_f1" in e] for run in (again, uninterrupted)]
    assert [(e["step"], e["eval_macro_f1"]) for e in evaluations[0]] == [
        (e["step"], e["eval_macro_f1"]) for e in evaluations[1]
    ]


def test_a_checkpoint_that_is_only_saved_when_best_is_saved_at_sigterm_in_any_case(epochs, tmp_path, monkeypatch):
    values = {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 1, "learning_rate": 0.0,
              "head_learning_rate": 0.0}  # fmt: skip
    at_step(monkeypatch, run_classification.Trainer, 3, lambda loss: os.kill(os.getpid(), signal.SIGTERM))
    stopped = classify(**epochs(tmp_path / "run", **values))
    assert stopped.code == 143 and int(newest_checkpoint(stopped.folder).rsplit("-")[-1]) in (3, 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_waits_for_the_step_and_a_later_one_does_not(number, monkeypatch):
    raised, now = [], [100.0]
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    guard = guard_with(1.0, False)
    with guard.on_signals():
        handle = signal.getsignal(number)
        # Launcher and scheduler send one each, or the launcher ends, soon after Ctrl-C
        for seconds, sent, ended in ((0, number, []), (0.5, signal.SIGTERM, []), (3, number, [number])):
            now[0] = 100 + seconds
            handle(sent, None)
            assert raised == ended and (guard.signal, guard.signal_at) == (number, 100.0)
        assert signal.getsignal(number) == signal.SIG_DFL
    assert {number: signal.getsignal(number) for number in before} == before


def start(command, folder, data, model, **values):
    argv = qa_flags(
        model, folder, train_file=data.qa, answer_column="answer", max_steps=400, save_strategy="no",
        logging_steps=1, evaluate_test=False, **values,
    )  # fmt: skip
    # To a file: a pipe that nobody reads would stop the run
    with (folder.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "run_qa_sft.py", *argv], cwd=ROOT, stdout=log, stderr=log,
            env=os.environ | {"TQDM_DISABLE": "1"}, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while "'loss'" not in (folder.parent / "log").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("command", "values"),
    [
        (["accelerate.commands.launch", "--num_processes", "1", "--cpu"], {}),
        (["torch.distributed.run", "--standalone", "--nproc_per_node", "2"], {"ddp_backend": "gloo"}),
    ],
    ids=["accelerate", "torchrun"],
)
def test_sigterm_to_a_launcher_stops_its_processes_after_a_checkpoint(command, values, tiny_llama, data, tmp_path):
    folder = tmp_path / "run"
    process = start(command, folder, data, tiny_llama, **values)
    try:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
        deadline = time.monotonic() + 60
        while newest_checkpoint(folder) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        step = int(newest_checkpoint(folder).rsplit("-")[-1])
        assert 0 < step < 400 and f"checkpoint-{step}" in (tmp_path / "log").read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert not any((folder / name).exists() for name in FINISHED)
    assert json.loads((folder / "_private" / "run.json").read_text())["processes"] == (2 if values else 1)


# ----- Early stopping


def test_only_exhausted_patience_is_early_stopping():
    def state(counter, patience=2, **flags):
        callback = EarlyStoppingCallback(patience)
        callback.early_stopping_patience_counter = counter
        return TrainerState(stateful_callbacks=[callback, TrainerControl(**flags)])

    assert stopped_early(state(2)) and stopped_early(state(3, should_training_stop=True))
    assert not stopped_early(state(1, should_training_stop=True))
    assert not stopped_early(TrainerState(stateful_callbacks=[TrainerControl(should_training_stop=True)]))
    assert not stopped_early(TrainerState())


def test_a_run_that_stopped_early_is_not_trained_again_and_keeps_the_commit_of_its_training(
    tiny_bert, data, tmp_path, monkeypatch
):
    argv = class_flags(
        tiny_bert, tmp_path / "run", label_column=None, train_file=data.tree, parent_column="group",
        child_column="ward", learning_rate=0.0, num_train_epochs=9, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="loss", early_stopping_patience=1,
    )  # fmt: skip
    run = partial(run_here, run_hierarchical.main, run_hierarchical.ARGUMENTS, argv)
    monkeypatch.setattr("utils.training.code_commit", lambda: "1" * 12)
    first = run()
    for place in ("utils.training.code_commit", "utils.evaluation.identity.code_commit"):
        monkeypatch.setattr(place, lambda: "2" * 12)  # the code changes
    again = run()
    assert (first.code, again.code) == (0, 0), first.stderr
    assert history(first) == history(again) and history(first)[-1]["epoch"] == 2
    assert (again.results["train_commit"], again.results["commit"]) == ("1" * 12, "2" * 12)
    assert "Code: trained at commit 111111111111, evaluated at 222222222222" in training_lines({}, again.results)
    assert "Code: commit 222222222222" in training_lines({}, {"commit": "2" * 12})  # a run of an earlier version


# ----- Gradients


def make_4_bit(folder, nested):
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_use_double_quant=nested, bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    device = torch.device("cpu")
    return AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, dtype=torch.bfloat16, device_map={"": device}
    )


@pytest.mark.parametrize("values", [{"load_in_4bit": True, "use_bnb_nested_quant": True}, {"load_in_4bit": True},
                                    {"load_in_8bit": True}])  # fmt: skip
def test_evaluations_in_between_change_neither_loss_nor_gradient(values, tiny_llama, data, tmp_path):
    values |= {"train_file": data.qa, "dtype": "bfloat16", "bf16": True, "max_steps": 4, "logging_steps": 1}
    runs = [
        qa(tiny_llama, tmp_path / strategy, **values, eval_strategy=strategy, eval_steps=1)
        for strategy in ("no", "steps")
    ]
    assert [run.code for run in runs] == [0, 0], runs[1].stderr
    steps = [[(e["loss"], e["grad_norm"]) for e in history(run) if "grad_norm" in e] for run in runs]
    assert steps[0] == steps[1] and len(steps[0]) == 4


@pytest.mark.parametrize("nested", [True, False])
def test_4_bit_weights_are_not_packed_while_they_train_and_may_be_afterwards(nested, tiny_llama):
    model = make_4_bit(tiny_llama, nested).eval()
    layers = [module for module in model.modules() if hasattr(module, PACKS)]
    packs = [getattr(layer, PACKS) for layer in layers]  # whether this machine's processor has the kernel
    ids, weights = torch.tensor([[5, 6, 7]]), [layer.weight.data.clone() for layer in layers]
    with unpacked(model), torch.no_grad():
        model(ids)
    assert not any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers)
    assert all(torch.equal(layer.weight.data, before) for layer, before in zip(layers, weights, strict=True))
    assert [getattr(layer, PACKS) for layer in layers] == packs
    with torch.no_grad():
        model(ids)
    packed = [getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers]
    assert packed == packs


def test_layers_of_a_size_that_the_kernel_does_not_take_stay_unpacked():
    def layer(rows, columns):
        module = torch.nn.Linear(columns, rows)
        module.weight.quant_state = SimpleNamespace(shape=(rows, columns), blocksize=64)
        setattr(module, PACKS, True)
        return module

    sizes = [(32, 64), (96, 128), (33, 64), (32, 96), (32, 32)]
    model = torch.nn.ModuleList(layer(*size) for size in sizes)
    check_packing(model)
    assert [getattr(module, PACKS) for module in model] == [True, True, False, False, False]


def test_a_backward_pass_through_an_operation_without_a_gradient_is_an_error():
    library = torch.library.Library("without_gradient", "DEF")
    library.define("double(Tensor x) -> Tensor")
    library.impl("double", lambda x: x * 2, "CPU")
    x = torch.ones(2, requires_grad=True)
    with differentiable(torch.nn.Linear(1, 1)), pytest.raises(Warning, match="autograd kernel"):
        torch.ops.without_gradient.double(x).sum().backward()


# ----- Precision of the evaluation


def test_the_trained_model_computes_in_the_precision_of_its_weights(tiny_llama, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    rows = [{"input_ids": torch.tensor([5, 6, 7, 8]), "labels": torch.tensor([5, 6, 7, 8])}] * 4
    ids = torch.tensor([[9, 8, 7, 6]])
    expected = model.eval()(ids).logits.detach()
    args = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, bf16=True, max_steps=1, learning_rate=0.0, report_to="none",
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=model, args=args, train_dataset=rows)
    trainer.train()
    with torch.no_grad():
        assert not torch.equal(trainer.model.eval()(ids).logits, expected)  # under autocast
        assert torch.equal(trained_model(trainer).eval()(ids).logits, expected)


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor"])
def test_the_memory_of_the_optimizer_is_free_for_the_evaluation(tiny_llama, tmp_path, optim):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    rows = [{"input_ids": torch.tensor([5, 6, 7, 8]), "labels": torch.tensor([5, 6, 7, 8])}] * 4
    args = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, max_steps=2, report_to="none", save_strategy="no", disable_tqdm=True,
        optim=optim,
    )  # fmt: skip
    trainer = Trainer(model=model, args=args, train_dataset=rows)
    save_model(trainer)  # nothing was trained, so there is no optimizer
    trainer.train()
    assert trainer.optimizer.state
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    save_model(trainer)
    assert not trainer.optimizer.state and all(weight.grad is None for weight in model.parameters())
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(saved[name], weight) for name, weight in weights.items())


def test_full_fine_tuning_scores_both_models_in_the_same_precision(tiny_llama, data, tmp_path):
    run = qa(
        tiny_llama, tmp_path / "run", train_file=data.qa, use_peft=False, lora_target_modules=None, bf16=True,
        learning_rate=0, max_steps=1, evaluate_test=None, max_predict_samples=4,
    )  # fmt: skip
    assert run.code == 0, run.stderr
    assert run.results["test_loss"] == run.results["base_test_loss"]


def test_near_ties_of_a_classifier_are_looked_at_in_float32(tiny_bert, data, tmp_path, monkeypatch):
    from utils import logits

    monkeypatch.setattr(logits, "NEAR_TIE", 1e9)  # all of them
    kept = {}

    def watched(model, rows, pad_token_id, max_length, batch_size, autocast=None, name=None):
        found = predict_logits(model, rows, pad_token_id, max_length, batch_size, autocast, name)
        if name == "validation":
            kept["found"] = found
            kept["float32"] = predict_logits(model, rows, pad_token_id, max_length, batch_size, None, None)
            kept["forward"] = "forward" in vars(model)
        return found

    monkeypatch.setattr("utils.evaluation.encoders.predict_logits", watched)
    run = classify(tiny_bert, tmp_path / "run", train_file=data.notes, bf16=True, max_steps=1)
    assert run.code == 0, run.stderr
    assert not kept["forward"] and (kept["found"] == kept["float32"]).all()


# ----- Refused


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type"),
        ({"lr_scheduler_kwargs": '{"no_such": 1}'}, "lr_scheduler_type"),
        ({"adam_beta1": 2.0}, "optim"),
    ],
)
def test_what_an_optimizer_or_schedule_does_not_take_is_one_line(values, key, tiny_llama, data, tmp_path):
    run = qa(tiny_llama, tmp_path / "run", train_file=data.qa, max_train_samples=8, max_eval_samples=2, **values)
    assert run.code == 2 and f"error: `{key}`: " in run.stderr, run.stderr


def test_all_weights_are_not_trained_in_float16(tiny_llama, data, tmp_path):
    values = {"train_file": data.qa, "dtype": "float16"}
    for more in ({"use_peft": False, "lora_target_modules": None}, {}):
        run = qa(tiny_llama, tmp_path / "run", **values, **more)
        assert run.code == 2 and "`dtype` is float16" in run.stderr, run.stderr
    shutil.copytree(tiny_llama, tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float16).save_pretrained(tmp_path / "half")
    run = qa(tmp_path / "half", tmp_path / "run", **values | {"dtype": "auto"})
    assert run.code == 2 and "`dtype` is auto" in run.stderr, run.stderr
