"""What becomes of every key: of the four scripts' dataclasses, of `trl sft` and of transformers' example scripts."""

import ast
import dataclasses
import inspect
import math
import re
import typing

import pytest
import torch
from conftest import ROOT, flags
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
    integrations,
    trainer_optimizer,
    trainer_pt_utils,
    trainer_utils,
)
from transformers.integrations import integration_utils
from transformers.training_args import OptimizerNames
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, SFTTrainer

import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.arguments import UserError, parse_recipe
from utils.keys import (
    ALIASES,
    FIXED,
    LEAST,
    MORE_THAN_0,
    NEEDS,
    REFUSED,
    REPLACED,
    too_small,
    why_fixed,
    why_refused,
    without_effect,
)

SCRIPTS = {
    "run_qa_sft.py": run_qa_sft.ARGUMENTS,
    "run_classification.py": run_classification.ARGUMENTS,
    "run_hierarchical.py": run_hierarchical.ARGUMENTS,
    "run_summarization.py": run_summarization.ARGUMENTS,
}
NEEDED = {"run_hierarchical.py": ["--parent_column", "p", "--child_column", "c"]}
LIBRARIES = (ModelConfig, TrainingArguments, SFTConfig, Seq2SeqTrainingArguments)


def keys_of(*argument_types: type) -> set[str]:
    return {field.name for t in argument_types for field in dataclasses.fields(t)}


EVERY = keys_of(*(t for arguments in SCRIPTS.values() for t in arguments))
ON_CPU = flags(use_cpu=True, bf16=False, output_dir="out", report_to="none")


def parse(script: str, *argv: str) -> dict[str, typing.Any]:
    needed = [word for word in NEEDED.get(script, ()) if word not in argv] if "--path_column" not in argv else []
    return parse_recipe(SCRIPTS[script], [*ON_CPU, *needed, *argv])[-1]


def message(script: str, *argv: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(script, *argv)
    return str(caught.value)


# ----- Every field of every dataclass

# What no line of ours reads: the trainers take these from their arguments
PASSED_ON = {
    # length of training, optimizer, precision and memory
    "num_train_epochs", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args",
    "adam_beta1", "adam_beta2", "adam_epsilon", "optim_target_modules", "gradient_accumulation_steps",
    "average_tokens_across_devices", "max_grad_norm", "tf32", "activation_checkpointing",
    "activation_checkpointing_kwargs", "gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_compile",
    "torch_compile_backend", "torch_compile_mode", "neftune_noise_alpha", "torch_empty_cache_steps",
    "per_device_train_batch_size", "max_steps", "full_determinism", "use_cpu", "debug", "activation_offloading",
    # log, evaluations during training, and checkpoints
    "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "logging_nan_inf_filter",
    "include_num_input_tokens_seen", "log_level", "log_level_replica", "disable_tqdm", "run_name", "project",
    "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics", "eval_steps",
    "eval_delay", "prediction_loss_only", "eval_on_start", "eval_accumulation_steps", "save_strategy", "save_steps",
    "save_total_limit", "save_on_each_node", "enable_jit_checkpoint", "greater_is_better", "load_best_model_at_end",
    # data loader and processes
    "data_seed", "accelerator_config", "dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
    "dataloader_in_order", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers",
    "ddp_static_graph", "ddp_backend", "ddp_timeout",
    # SFTTrainer
    "router_aux_loss_coef", "packing", "dataset_num_proc", "shuffle_dataset", "pad_to_multiple_of",
    "eval_packing", "loss_type",
}  # fmt: skip


def names_in(paths: typing.Iterable, constants: bool) -> set[str]:
    """Attributes that files read and, if wanted, their string constants."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif constants and isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


READERS = [path for path in (*ROOT.glob("run_*.py"), *ROOT.glob("utils/*.py"), *ROOT.glob("utils/data/*.py"))
           if path.name != "keys.py"]  # fmt: skip


def test_every_field_of_every_script_is_read_here_or_passed_on_or_refused_with_a_reason():
    libraries, read = keys_of(*LIBRARIES), names_in(READERS, constants=False)
    ours = read | names_in(READERS, constants=True)
    outcomes = {
        key: [
            name
            for name, holds in {
                "refused": key in REFUSED,
                "fixed": key in FIXED,
                "another name": key in ALIASES,
                "passed on": key in PASSED_ON,
                "read": key in (read if key in libraries else ours)
                and key not in {*PASSED_ON, *FIXED, *ALIASES, *REFUSED},
            }.items()
            if holds
        ]
        for key in EVERY
    }
    assert {key: found for key, found in outcomes.items() if len(found) != 1} == {}


def test_what_is_passed_on_is_read_by_the_libraries():
    modules = (trainer_utils, trainer_pt_utils, trainer_optimizer, integration_utils, integrations.accelerate)
    trainers = (Trainer, Seq2SeqTrainer, SFTTrainer, TrainingArguments)
    text = "\n".join(inspect.getsource(inspect.getmodule(part) if inspect.isclass(part) else part)
                     for part in (*modules, *trainers))  # fmt: skip
    assert [key for key in PASSED_ON if not re.search(rf"\b(args|self)\.{key}\b", text)] == []


def test_no_list_holds_a_key_that_there_is_not():
    assert PASSED_ON <= EVERY and {*REFUSED, *NEEDS, *LEAST, *MORE_THAN_0} <= EVERY
    assert {switch for switch, _ in NEEDS.values()} <= EVERY
    assert {target for targets, _ in ALIASES.values() for target in targets} <= EVERY
    assert not set(REPLACED) & {*EVERY, *ALIASES, *FIXED} and not set(FIXED) & {*REFUSED}


@pytest.mark.parametrize("key", [*REPLACED, *REFUSED])
def test_a_refused_key_is_explained_by_keys_that_are_taken(key):
    advice = {**REPLACED, **REFUSED}[key]
    assert all(name in EVERY and name not in REFUSED for name in re.findall(r"`(\w+)[:`]", advice)), advice


@pytest.mark.parametrize("key", [*REPLACED, *REFUSED])
def test_a_refused_key_is_refused_in_a_recipe_and_as_a_flag_and_its_value_is_not_shown(key, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{key}: hf_secret\n")
    for script in SCRIPTS:
        if key in REPLACED or key in keys_of(*SCRIPTS[script]):
            for argv in ([str(recipe)], ["--seed", "1", f"--{key}", "hf_secret"], [f"--{key}=hf_secret"]):
                with pytest.raises(UserError) as caught:
                    parse_recipe(SCRIPTS[script], argv)
                advice, known = {**REPLACED, **REFUSED}[key], keys_of(*SCRIPTS[script])
                named = {*re.findall(r"`(\w+)[:`]", advice)}
                assert f"`{key}`" in str(caught.value)
                assert (advice in str(caught.value)) is (key in REFUSED or named <= known)  # no key of another script
                assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize("key", FIXED)
def test_a_key_with_one_value_takes_it_and_no_other(key, tmp_path):
    allowed, _ = FIXED[key]
    scripts = [name for name, own in SCRIPTS.items() if key in keys_of(*own) or key not in EVERY]
    for script in scripts:
        values = (*allowed[:2], True, False, "keep_end", "bfd_split", "every_save")
        for value in values:
            reason = why_fixed(key, value)
            assert (reason is None) == (value in allowed)
        given = parse(script, f"--{key}", str(allowed[0]), *(["--packing", "true"] * (key == "packing_strategy")))
        assert given.get(key) == (allowed[0] if key == "packing_strategy" else None)
        for value in {True, False} - set(allowed) if isinstance(allowed[0], bool) else ():
            assert f"`{key}`" in message(script, f"--{key}", str(value))


# ----- Keys without effect


def test_a_key_that_needs_another_is_refused_without_it_and_noted_where_that_is_switched_off(caplog):
    assert "`use_peft: true`" in message("run_qa_sft.py", "--lora_r", "8", "--lora_alpha", "16")
    assert parse("run_qa_sft.py", "--lora_r", "8", "--use_peft", "true")["lora_r"] == 8 and not caplog.text
    assert parse("run_qa_sft.py", "--lora_r", "8", "--use_peft", "false")["lora_r"] == 8
    assert "`lora_r`" in caplog.text and "`use_peft: true`" in caplog.text


@pytest.mark.parametrize(
    ("script", "argv", "wanted"),
    [
        ("run_qa_sft.py", ["--eval_steps", "5"], "`eval_strategy: steps`"),
        ("run_qa_sft.py", ["--use_peft", "true", "--use_bnb_nested_quant", "true"], "`load_in_4bit: true`"),
        ("run_classification.py", ["--save_strategy", "epoch", "--save_steps", "5"], None),
        ("run_classification.py", ["--max_chunks", "4"], "`long_texts: chunks`"),
        ("run_summarization.py", ["--max_chunks", "4"], "`long_texts: chunks`"),
        ("run_classification.py", ["--focal_gamma", "1"], "`class_imbalance: focal`"),
        ("run_classification.py", ["--focal_gamma", "1", "--class_imbalance", "focal"], None),
        ("run_hierarchical.py", ["--focal_gamma", "1"], None),
        ("run_hierarchical.py", ["--path_separator", "/"], "`path_column`"),
        ("run_hierarchical.py", ["--path_column", "path", "--path_separator", "/"], None),
        ("run_classification.py", ["--train_file", "a.csv", "--dataset_config_name", "en"], "`dataset_name`"),
    ],
)
def test_what_has_no_effect_alone_says_what_it_needs(script, argv, wanted):
    if wanted is None:
        parse(script, *argv)
    else:
        assert wanted in message(script, *argv)


@pytest.mark.parametrize(
    ("key", "switch", "off", "on"),
    [
        ("label_smoothing_factor", "loss_type", "dft", "nll"),
        ("warmup_steps", "lr_scheduler_type", "constant", "linear"),
        ("optim_target_modules", "optim", "adamw_torch", "galore_adamw"),
        ("dataloader_persistent_workers", "dataloader_num_workers", 0, 2),
        ("optim_args", "optim", "adamw_torch", "sgd"),
        ("adam_beta1", "optim", "sgd", "lion_32bit"),
        ("adam_epsilon", "optim", "lion_32bit", "adamw_torch"),
    ],
)
def test_a_value_that_switches_another_key_off_is_known(key, switch, off, on):
    assert without_effect({key: 1}, {switch: off}, NEEDS) == {switch: [key]}
    assert without_effect({key: 1}, {switch: on}, NEEDS) == {}
    assert without_effect({key: 1}, {}, NEEDS) == {}  # a script without the switch


@pytest.mark.parametrize("optim", [name.value for name in OptimizerNames])
def test_the_lists_of_optimizers_agree_with_the_library(optim, tmp_path):
    args = TrainingArguments(
        tmp_path, optim=optim, adam_beta1=0.5, adam_beta2=0.6, adam_epsilon=0.7, optim_args="momentum=0.8,alpha=0.8"
    )
    try:
        _, options = Trainer.get_optimizer_cls_and_kwargs(args, torch.nn.Linear(1, 1))
    except (ImportError, RuntimeError, ValueError):
        pytest.skip("the optimizer's package is not installed")
    assert (0.5 in options.get("betas", ())) == (optim in NEEDS["adam_beta1"][1])
    assert (options.get("eps") == 0.7) == (optim in NEEDS["adam_epsilon"][1])
    read = any(isinstance(value, str | float) and float(value) == 0.8 for value in options.values())
    assert read <= (optim in NEEDS["optim_args"][1])


# ----- Other names


@pytest.mark.parametrize(
    ("script", "argv", "expected"),
    [
        ("run_classification.py", ["--label_column_name", "ward"], {"label_column": "ward"}),
        ("run_classification.py", ["--text_column_names", "a,b"], {"text_column": ["a", "b"]}),
        ("run_classification.py", ["--text_column_name", "a"], {"text_column": ["a"]}),
        ("run_classification.py", ["--max_seq_length", "64"], {"max_length": 64}),
        ("run_summarization.py", ["--max_seq_length", "64"], {"max_source_length": 64}),
        ("run_qa_sft.py", ["--max-seq-length=64"], {"max_length": 64}),
        ("run_classification.py", ["--metric_name", "accuracy"], {"metric_for_best_model": "accuracy"}),
        ("run_summarization.py", ["--source_prefix", "{a} b: "], {"text_template": "{{a}} b: {text}"}),
        ("run_qa_sft.py", ["--validation_split_percentage", "5"], {"validation_fraction": 0.05}),
        ("run_qa_sft.py", ["--dataset_config", "en", "--dataset_name", "a/b"], {"dataset_config_name": "en"}),
        ("run_qa_sft.py", ["--dataset_train_split", "all"], {"train_split_name": "all"}),
        ("run_qa_sft.py", ["--dataset_streaming"], {"streaming": True}),
        ("run_qa_sft.py", ["--test_split_size", "0.2"], {"test_fraction": 0.2}),
        ("run_qa_sft.py", ["--do_predict"], {"evaluate_test": True}),
        ("run_qa_sft.py", ["--do_predict", "false"], {"evaluate_test": False}),
        ("run_qa_sft.py", ["--no_do_predict"], {"evaluate_test": False}),
        ("run_qa_sft.py", ["--preprocessing_num_workers", "2"], {"dataset_num_proc": 2}),
    ],
)
def test_another_name_of_a_key_gives_the_key_and_is_logged_once(script, argv, expected, tmp_path, caplog):
    found = parse(script, *argv)
    assert expected.items() <= found.items() and not {*ALIASES} & found.keys()
    (key,), (name,) = expected, {word.lstrip("-").split("=")[0].replace("-", "_") for word in argv[:1]}
    name = name.removeprefix("no_")
    assert sum(f"`{name}`" in line and f"`{key}`" in line for line in caplog.messages) == 1
    caplog.clear()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{name}: {argv[0].split('=')[-1] if '=' in argv[0] else (argv[1:] or ['true'])[0]!r}\n")
    if argv[0] not in ("--no_do_predict", "--do_predict", "--dataset_streaming", "--dataset_config"):
        again = parse_recipe(SCRIPTS[script], [str(recipe), *ON_CPU, *NEEDED.get(script, ())])[-1]
        assert expected.items() <= again.items()
        assert sum(f"`{name}`" in line for line in caplog.messages) >= 1


def test_a_key_under_two_names_is_refused_in_one_place_and_a_flag_wins_over_the_recipe(tmp_path):
    assert "`label_column` is given twice" in message(
        "run_classification.py", "--label_column", "a", "--label_column_name", "b"
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("label_column: a\nlabel_column_name: b\n")
    with pytest.raises(UserError, match="`label_column`.*two names"):
        parse_recipe(SCRIPTS["run_classification.py"], [str(recipe), *ON_CPU])
    recipe.write_text("label_column: a\n")
    *_, found = parse_recipe(SCRIPTS["run_classification.py"], [str(recipe), *ON_CPU, "--label_column_name", "b"])
    assert found["label_column"] == "b"


# ----- Numbers


@given(st.sampled_from(sorted({*LEAST, *MORE_THAN_0})), st.floats())
@settings(max_examples=300, deadline=None)
def test_a_number_is_finite_and_not_too_small(key, value):
    fits = value > 0 if key in MORE_THAN_0 else value >= LEAST[key]
    assert (too_small({key: value}, {}) is None) is (fits and math.isfinite(value))


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_default_is_refused_and_other_numbers_are_in_one_line(script):
    defaults = {field.name: field.default for t in SCRIPTS[script] for field in dataclasses.fields(t)}
    assert too_small(defaults, {"max_steps": -1}) is None  # which stands for no limit
    for key in {*LEAST, *MORE_THAN_0} & defaults.keys():
        found = message(script, f"--{key}", "0" if LEAST.get(key) != 0 else "-1")
        assert f"`{key}` is " in found and "more" in found
    assert "`learning_rate` is nan" in message(script, "--learning_rate", "nan")


# ----- Commands of transformers' example scripts and of `trl sft`

# Flags beside those of TrainingArguments, in transformers 4.20 to 5 (main at 005c23a)
_MODEL = {
    "model_name_or_path": "m", "config_name": "m", "tokenizer_name": "m", "cache_dir": "c", "model_revision": "main",
    "use_fast_tokenizer": "true", "token": "hf_secret", "use_auth_token": "true", "trust_remote_code": "false",
}  # fmt: skip
_FILES = {
    "dataset_name": "d", "dataset_config_name": "en", "train_file": "a.csv", "validation_file": "b.csv",
    "max_train_samples": "9", "max_eval_samples": "9", "overwrite_cache": "true",
}  # fmt: skip
_TESTED = {"test_file": "c.csv", "max_predict_samples": "9", "pad_to_max_length": "false"}
EXAMPLES = {
    ("run_classification.py", "run_classification.py"): {
        **_MODEL, **_FILES, **_TESTED, "ignore_mismatched_sizes": "true", "do_regression": "false",
        "text_column_names": "note,history", "text_column_name": "note",
        "text_column_delimiter": " ",
        "train_split_name": "train", "validation_split_name": "validation", "test_split_name": "test",
        "remove_splits": "unused", "remove_columns": "id", "label_column_name": "ward", "max_seq_length": "64",
        "preprocessing_num_workers": "4", "shuffle_train_dataset": "true", "shuffle_seed": "1",
        "metric_name": "accuracy",
    },
    ("run_glue.py", "run_classification.py"): {
        **_MODEL, **_FILES, **_TESTED, "ignore_mismatched_sizes": "true", "task_name": "mrpc", "max_seq_length": "64",
    },
    ("run_summarization.py", "run_summarization.py"): {
        **_MODEL, **_FILES, **_TESTED, "resize_position_embeddings": "false", "lang": "en", "text_column": "t",
        "summary_column": "s", "preprocessing_num_workers": "4", "max_source_length": "64", "max_target_length": "16",
        "val_max_target_length": "16", "num_beams": "2", "ignore_pad_token_for_loss": "true",
        "source_prefix": "summarize: ", "forced_bos_token": "en_XX",
    },
    ("run_translation.py", "run_summarization.py"): {
        **_MODEL, **_FILES, **_TESTED, "source_lang": "en", "target_lang": "de", "max_source_length": "64",
        "max_target_length": "16", "val_max_target_length": "16", "num_beams": "2", "source_prefix": "translate: ",
        "ignore_pad_token_for_loss": "true", "forced_bos_token": "de_DE", "preprocessing_num_workers": "4",
    },
    ("run_qa.py", "run_qa_sft.py"): {
        **_MODEL, **_FILES, "test_file": "c.csv", "max_predict_samples": "9", "pad_to_max_length": "false",
        "max_seq_length": "64", "version_2_with_negative": "true", "null_score_diff_threshold": "0.0",
        "doc_stride": "32", "n_best_size": "9", "max_answer_length": "30", "preprocessing_num_workers": "4",
    },
    ("run_glue_no_trainer.py", "run_classification.py"): {
        **_MODEL, "train_file": "a.csv", "validation_file": "b.csv", "use_slow_tokenizer": "true", "max_length": "64",
        "per_device_train_batch_size": "8", "per_device_eval_batch_size": "8", "learning_rate": "1e-4",
        "weight_decay": "0.1", "num_train_epochs": "2", "max_train_steps": "9", "gradient_accumulation_steps": "2",
        "lr_scheduler_type": "linear", "num_warmup_steps": "3", "output_dir": "out", "seed": "1",
        "push_to_hub": "true", "hub_model_id": "a/b", "checkpointing_steps": "epoch", "with_tracking": "true",
        "report_to": "none", "ignore_mismatched_sizes": "true", "pad_to_max_length": "false", "task_name": "mrpc",
    },
    ("run_clm.py", "run_qa_sft.py"): {
        **_MODEL, **_FILES, "model_type": "gpt2", "config_overrides": "n_embd=10", "torch_dtype": "float32",
        "dtype": "float32", "low_cpu_mem_usage": "true", "streaming": "true", "block_size": "64",
        "validation_split_percentage": "5", "preprocessing_num_workers": "4", "keep_linebreaks": "true",
    },
}  # fmt: skip
# Answered with one line: they mean something else here, or nothing
ANSWERED = {
    "config_name", "tokenizer_name", "cache_dir", "token", "use_auth_token", "remove_splits", "remove_columns",
    "shuffle_seed", "task_name", "lang", "val_max_target_length", "forced_bos_token", "model_type",
    "config_overrides", "torch_dtype", "block_size", "source_lang", "target_lang", "version_2_with_negative",
    "null_score_diff_threshold", "doc_stride", "n_best_size", "max_answer_length", "use_slow_tokenizer",
    "max_train_steps", "num_warmup_steps", "checkpointing_steps", "with_tracking",
}  # fmt: skip


@pytest.mark.parametrize(("example", "script"), EXAMPLES, ids=lambda name: name)
def test_every_flag_of_an_example_script_is_taken_or_answered(example, script):
    known, source = (
        keys_of(*SCRIPTS[script]),
        {
            **dict.fromkeys(("dataset_config_name", "train_split_name"), ["--dataset_name", "d"]),
            "text_column_delimiter": ["--text_column", "a", "b"],
        },
    )
    for flag, value in EXAMPLES[example, script].items():
        if flag in ANSWERED:
            found = message(script, f"--{flag}", value)
            assert f"`{flag}`" in found and "did you mean" not in found and "hf_secret" not in found
            assert "--help" not in found
            assert set(re.findall(r"`(\w+)[:`]", found)) - {flag} <= known
        else:
            own = [f"--{flag}", value, *source.get(flag, ())]
            argv = [word for i, word in enumerate(ON_CPU) if f"--{flag}" not in ON_CPU[max(0, i - 1) : i + 1]]
            parse_recipe(SCRIPTS[script], [*argv, *own])


@pytest.mark.parametrize(
    ("script", "command"),
    [  # from the READMEs of the examples, without `overwrite_output_dir` and `task_name`, which are answered
        (
            "run_classification.py",
            "--model_name_or_path google-bert/bert-base-uncased --dataset_name d --dataset_config_name en "
            "--shuffle_train_dataset --metric_name accuracy --text_column_name title,body,category "
            "--text_column_delimiter | --label_column_name stars --do_train --do_eval --max_seq_length 512 "
            "--per_device_train_batch_size 32 --learning_rate 2e-5 --num_train_epochs 1",
        ),
        (
            "run_summarization.py",
            "--model_name_or_path google-t5/t5-small --do_train --do_eval --dataset_name cnn_dailymail "
            "--dataset_config 3.0.0 --source_prefix summarize: --per_device_train_batch_size=4 "
            "--per_device_eval_batch_size=4 --predict_with_generate",
        ),
        (
            "run_qa_sft.py",
            "--model_name_or_path Qwen/Qwen2-0.5B --dataset_name trl-lib/Capybara --learning_rate 2.0e-4 "
            "--num_train_epochs 1 --packing --per_device_train_batch_size 2 --gradient_accumulation_steps 8 "
            "--eos_token <|im_end|> --eval_strategy steps --eval_steps 100 --use_peft --lora_r 32 --lora_alpha 16 "
            "--push_to_hub",
        ),
    ],
)
def test_the_commands_of_the_examples_parse(script, command):
    assert parse(script, *command.split())


@pytest.mark.parametrize("key", sorted(keys_of(ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig)))
def test_every_flag_of_trl_sft_is_taken_or_answered(key):
    known = keys_of(*SCRIPTS["run_qa_sft.py"])
    reason = why_refused(key, known)
    assert reason is None or ("did you mean" not in reason and "--help" not in reason)
    assert set(re.findall(r"`(\w+)[:`]", reason or "")) <= EVERY - {*REFUSED}


# ----- Suggestions


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("run_qa_sft.py", "threshold"), ("run_summarization.py", "question_column"), ("run_classification.py", "past"),
        ("run_classification.py", "jit_mode_eval"), ("run_classification.py", "fp16_opt_level"),
        ("run_hierarchical.py", "n_best"), ("run_summarization.py", "source"), ("run_qa_sft.py", "add_dataset"),
    ],
)  # fmt: skip
def test_a_word_that_only_looks_a_little_like_a_key_gets_no_suggestion(script, word):
    assert re.findall(r"`(\w+)[:`]", message(script, f"--{word}", "1")) == [word]


@st.composite
def misspelled(draw: st.DrawFn) -> tuple[str, str]:
    """A script, and a known name with one to three letters dropped, doubled, swapped or changed."""
    script = draw(st.sampled_from(sorted(SCRIPTS)))
    word = draw(st.sampled_from(sorted({*keys_of(*SCRIPTS[script]), *ALIASES, *FIXED, *REPLACED})))
    for _ in range(draw(st.integers(1, 3))):
        at, how = draw(st.integers(0, max(len(word) - 2, 0))), draw(st.sampled_from("dcis"))
        letter = draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"))
        after = {"d": word[at + 1 :], "c": letter + word[at + 1 :], "i": letter + word[at:],
                 "s": word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]}  # fmt: skip
        word = word[:at] + after[how]
    return script, word


@given(misspelled())
@settings(max_examples=400, deadline=None)
def test_a_suggestion_is_never_a_key_that_is_refused(case):
    script, word = case
    known = keys_of(*SCRIPTS[script])
    reason = why_refused(word, known)
    if word not in {*known, *ALIASES, *FIXED, *REPLACED}:
        assert reason
        for name in re.findall(r"did you mean `(\w+)`", reason):
            assert name in known and name not in {*REFUSED, *FIXED}
