import dataclasses
import re
import runpy
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, flags
from trl import ModelConfig, SFTConfig

from predict import PredictArguments
from run_qa_sft import ARGUMENTS, QAArguments
from utils.arguments import DataArguments, UserError, parse_recipe, user_errors, write_recipe
from utils.run import _check_same_recipe

BASE = ["--answer_column", "answer", "--use_cpu", "--bf16", "false", "--output_dir", "out"]


@pytest.fixture
def recipe(tmp_path):
    """Return a function that writes a recipe of the given text and parses it, with flags if given."""

    def parse(text: str, *argv: str):
        path = tmp_path / "recipe.yaml"
        path.write_text("answer_column: answer\nuse_cpu: true\nbf16: false\noutput_dir: out\n" + text)
        return parse_recipe(ARGUMENTS, [str(path), *argv])

    return parse


def message(parse, *args) -> str:
    with pytest.raises(UserError) as caught:
        parse(*args)
    return str(caught.value)


def test_a_recipe_becomes_one_instance_of_each_dataclass_and_the_keys_it_gave(recipe):
    model, data, qa, training, given = recipe(
        "learning_rate: 2e-4\nuse_peft: true\nlora_target_modules: [q_proj, v_proj]\n"
    )
    assert [type(a) for a in (model, data, qa, training)] == [ModelConfig, DataArguments, QAArguments, SFTConfig]
    assert training.learning_rate == 2e-4 and model.lora_target_modules == ["q_proj", "v_proj"]
    assert given["learning_rate"] == 2e-4 and "lora_r" not in given


@pytest.mark.parametrize("written", ["2e-4", "2.0e-4", "0.0002"])
def test_a_number_is_a_number_however_it_is_written(recipe, written):
    assert recipe(f"learning_rate: {written}\n")[3].learning_rate == 2e-4


def test_the_command_line_wins_over_the_recipe(recipe):
    *_, training, given = recipe("learning_rate: 1e-3\nseed: 1\n", "--learning_rate", "5e-5")
    assert (training.learning_rate, training.seed, given["learning_rate"]) == (5e-5, 1, 5e-5)


def test_flags_alone_work_and_every_spelling_of_a_flag_is_the_same():
    spaced = parse_recipe(ARGUMENTS, [*BASE, "--learning_rate", "1e-3", "--load_in_4bit", "true"])
    joined = parse_recipe(ARGUMENTS, [*BASE, "--learning_rate=1e-3", "--load-in-4bit"])
    assert spaced[3].learning_rate == joined[3].learning_rate == 1e-3
    assert spaced[0].load_in_4bit is joined[0].load_in_4bit is True


def test_no_in_front_of_a_flag_turns_it_off():
    data, given = parse_recipe((DataArguments,), ["--train_file", "x.csv", "--no_drop_ambiguous"])
    assert data.drop_ambiguous is False and given["drop_ambiguous"] is False


def test_several_loggers_may_be_named(recipe):
    assert recipe("report_to: [tensorboard, trackio]\n")[3].report_to == ["tensorboard", "trackio"]
    assert recipe("report_to: tensorboard\n")[3].report_to == ["tensorboard"]


def test_a_mapping_in_a_recipe_reaches_the_trainer_as_a_mapping(recipe):
    training = recipe("lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1.0e-5}\n")[3]
    assert training.lr_scheduler_kwargs == {"min_lr": 1e-5}


def test_names_that_look_like_numbers_are_names_in_quotes_and_as_yaml_writes_them(recipe):
    data = recipe('group_column: 12\nkeep_columns: [1.5, "010", "no", 2024-01-05]\nmax_train_samples: 1_000\n')[1]
    assert (data.group_column, data.max_train_samples) == ("12", 1000)
    assert data.keep_columns == ["1.5", "010", "no", "2024-01-05"]


def test_a_quoted_no_is_a_strategy(recipe):
    assert recipe('eval_strategy: "no"\n')[3].eval_strategy == "no"


# line of a recipe, what the message has to say
WRONG = {
    "a word where a number is meant": ("learning_rate: fast", ["`learning_rate`", "fast"]),
    "a fraction where a whole number is meant": ("num_train_epochs: 3\nseed: 1.5", ["`seed`", "1.5"]),
    "a word where yes or no is meant": ("load_in_4bit: maybe", ["`load_in_4bit`", "maybe"]),
    "a value outside the choices": ("bnb_4bit_quant_type: int4", ["`bnb_4bit_quant_type`", "int4", "nf4", "fp4"]),
    "a strategy that there is not": ("eval_strategy: sometimes", ["sometimes", "steps", "epoch"]),
    "an unknown key": ("learnin_rate: 1", ["`learnin_rate`", "`learning_rate`"]),
    "an unknown key like no other": ("zzz: 1", ["`zzz`", "--help"]),
    "the same key twice": ("seed: 1\nseed: 2", ["`seed`", "line 6", "twice"]),
    "an unquoted no": ("eval_strategy: no", ["`eval_strategy`", '"no"']),
    "an unquoted off": ("save_strategy: off", ["`save_strategy`", "in quotes"]),
    "an unquoted yes in a list": ("keep_columns: [age, yes]", ["`keep_columns`", "True", '"yes"']),
    "an unquoted null in a list": ("keep_columns: [age, null]", ["`keep_columns`", "no value"]),
    "an unquoted 010 in a list": ("keep_columns: [010, age]", ["`keep_columns`", "8", '"010"']),
    "an unquoted 010 where a name is meant": ("group_column: 010", ["`group_column`", "8", '"010"']),
    "a name that looks like hours": ("group_column: 1:30", ["`group_column`", "90", '"1:30"']),
    "a tag that looks like a number": ("dataset_revision: 1.10", ["`dataset_revision`", "1.1", '"1.10"']),
    "a date that YAML rewrites": ("dataset_revision: 2024-01-05T1:00:00Z", ["`dataset_revision`", "T1"]),
    "an octal number": ("seed: 010", ["`seed`", "8", '"010"']),
    "an empty value": ("train_file:", ["`train_file`", "no value"]),
    "an empty list": ("lora_target_modules: []", ["`lora_target_modules`", "empty list"]),
    "a list where one value is meant": ("learning_rate: [1, 2]", ["`learning_rate`", "list of 2"]),
    "a token": ("hub_token: hf_secret", ["`hub_token`", "HF_TOKEN"]),
    "a key that is no text": ("12: 1", ["`12`"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_recipe_with_this_is_refused_and_the_message_names_it(recipe, case):
    text, expected = WRONG[case]
    found = message(recipe, text + "\n")
    assert all(word in found for word in expected), found
    assert "hf_secret" not in found


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--learning_r", "1"], ["`learning_r`", "`learning_rate`"]),  # no abbreviations
        (["--seed", "1", "--seed", "2"], ["`seed`", "twice"]),
        (["--seed=1", "--seed", "2"], ["`seed`", "twice"]),
        (["--load-in-4bit", "--load_in_4bit"], ["`load_in_4bit`", "twice"]),
        (["--drop_ambiguous", "true", "--no_drop_ambiguous"], ["`drop_ambiguous`", "twice"]),
        (["--seed", "1", "junk"], ["`junk`", "--key value"]),
        (["--seed"], ["`seed`"]),
        (["--lora_r", "many"], ["`lora_r`", "many"]),
        (["--hub_token", "hf_secret"], ["`hub_token`", "HF_TOKEN"]),
        (["--hub_token=hf_secret"], ["`hub_token`", "HF_TOKEN"]),
    ],
)
def test_flags_are_checked_as_strictly_as_a_recipe(argv, expected):
    found = message(parse_recipe, ARGUMENTS, [*BASE, *argv])
    assert all(word in found for word in expected), found
    assert "hf_secret" not in found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read"),
        (b"answer_column: caf\xe9\n", "UTF-8"),
        (b"answer_column: [unclosed\n", "YAML"),
        (b"- a\n- b\n", "list"),
        (b"", "NoneType"),
        (b"{[1]: 2}\n", "recipe.yaml"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path, content, expected):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    found = message(parse_recipe, ARGUMENTS, [str(path)])
    assert "recipe.yaml" in found and expected in found


def test_a_folder_is_no_recipe(tmp_path):
    assert "cannot be read" in message(parse_recipe, ARGUMENTS, [str(tmp_path)])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"answer_column": "a", "options_column": ["o"], "answer_index_column": "i"},
            "`answer_column` and `options_column`",
        ),
        ({"options_column": ["o"]}, "`answer_index_column`"),
        ({"answer_column": "a", "augmentation_factor": 0}, "`augmentation_factor` is 0"),
        ({"answer_column": "a", "max_new_tokens": 0}, "`max_new_tokens` is 0"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(given, expected):
    argv = flags(use_cpu=True, bf16=False, output_dir="out", **given)
    assert expected in message(parse_recipe, ARGUMENTS, argv)


def test_what_transformers_refuses_is_the_users_to_mend(recipe):
    assert "save" in message(recipe, "load_best_model_at_end: true\neval_strategy: epoch\nsave_strategy: steps\n")


# ----- Exit codes


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_users_mistake_is_one_line_and_exit_code_2_and_a_defect_keeps_its_traceback(capsys):
    with pytest.raises(SystemExit) as end, user_errors():
        raise UserError("`seed` is\n  wrong")
    assert end.value.code == 2 and capsys.readouterr().err == "error: `seed` is wrong\n"
    with pytest.raises(ZeroDivisionError), user_errors():
        raise ZeroDivisionError


def test_a_script_ends_with_one_line_and_2_for_a_mistake_and_with_1_for_a_defect():
    code = "import sys; from utils.arguments import *\nwith user_errors():\n    "
    mistake = run_python(code + "parse_recipe((DataArguments,), ['--trainfile', 'x'])")
    defect = run_python(code + "parse_recipe(None, [])")
    assert (mistake.returncode, mistake.stdout) == (2, "")
    assert re.fullmatch(r"error: `trainfile` .*`train_file`\?\n", mistake.stderr)
    assert defect.returncode == 1 and "Traceback" in defect.stderr


@pytest.mark.parametrize("script", ["run_qa_sft.py", "predict.py", "utils.data", "utils.metrics"])
def test_help_shows_what_a_script_is_for_and_its_keys(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    run = runpy.run_path if script.endswith(".py") else runpy.run_module
    monkeypatch.delitem(sys.modules, script, raising=False)
    with pytest.raises(SystemExit) as end:
        run(str(ROOT / script) if script.endswith(".py") else script, run_name="__main__")
    shown = capsys.readouterr().out
    assert end.value.code == 0
    key = {"run_qa_sft.py": "--answer_column", "predict.py": "--base_model", "utils.data": "--train_file"}
    assert key.get(script, "--input_file") in shown


# ----- Keys


def names(arguments: type) -> list[str]:
    return [field.name for field in dataclasses.fields(arguments)]


def test_keys_of_the_data_arguments_are_frozen():
    assert names(DataArguments) == [
        "dataset_name", "dataset_config_name", "dataset_revision", "train_split_name", "validation_split_name",
        "test_split_name", "train_file", "validation_file", "test_file", "validation_fraction", "test_fraction",
        "split_seed", "evaluate_test", "group_column", "keep_columns", "language", "license", "max_train_samples",
        "max_eval_samples", "max_predict_samples", "min_input_words", "min_target_words", "drop_ambiguous",
        "lowercase", "strip_pattern", "near_duplicate_threshold", "extra_metrics", "streaming",
    ]  # fmt: skip


def test_keys_of_the_question_answering_arguments_are_frozen():
    assert names(QAArguments) == [
        "dataset_format", "question_column", "answer_column", "context_column", "options_column",
        "answer_index_column", "answer_index_base", "prompt_template", "retrieve_examples", "system_prompt",
        "augmentation_factor", "curriculum", "max_new_tokens", "early_stopping_patience", "repetition_penalty",
    ]  # fmt: skip


def test_no_key_has_two_meanings_and_each_of_ours_has_a_line_of_help():
    every = [name for arguments in ARGUMENTS for name in names(arguments)]
    assert len(every) == len(set(every))
    for arguments in (DataArguments, QAArguments, PredictArguments):
        assert all(field.metadata.get("help") for field in dataclasses.fields(arguments))


# ----- A flag changes its own key alone

FILES = "train_file: a.csv\nvalidation_file: b.csv\ntest_file: c.csv\n"
HUB = "dataset_name: org/exam\ndataset_config_name: en\ndataset_revision: v1\ntest_split_name: validation\n"
GUARDS = "group_column: patient\nkeep_columns: [ward]\nnear_duplicate_threshold: 0.5\n"


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        (FILES, ["--train_file", "./a.csv"]),  # the same file
        (FILES, ["--train_file", "n.csv", "--validation_file", "m.csv", "--test_file", "c.csv"]),
        (FILES, ["--train_file", "n.csv", "--no_validation_file", "--no-test-file"]),
        (FILES, ["--test_file", "n.csv"]),
        ("train_file: a.csv\n", ["--train_file=n.csv"]),
        ("test_file: c.csv\n", ["--train_file", "n.csv"]),  # a recipe that leaves the training file to the flags
        (HUB, ["--dataset_name", "org/exam"]),
        (HUB, ["--dataset_name", "org/other", "--no_dataset_config_name", "--dataset_revision", "v1"]),
        (HUB, ["--dataset_config_name", "fr"]),
        ("model_name_or_path: org/a\nmodel_revision: v1\n", ["--model_name_or_path", "org/a"]),
    ],
)
def test_a_flag_changes_its_own_key_alone(recipe, text, argv):
    before = recipe(text + GUARDS)[-1]
    *arguments, given = recipe(text + GUARDS, *argv)
    changed = {flag.split("=")[0][2:].replace("-", "_").removeprefix("no_") for flag in argv if flag.startswith("--")}
    assert {key: given.get(key) for key in before.keys() - changed} == {k: before[k] for k in before.keys() - changed}
    assert (arguments[1].group_column, arguments[1].keep_columns) == ("patient", ["ward"])
    assert arguments[1].near_duplicate_threshold == 0.5


@pytest.mark.parametrize(
    ("text", "argv", "stale"),
    [
        (FILES, ["--train_file", "n.csv"], ["validation_file", "test_file"]),
        (FILES, ["--train_file", "n.csv", "--test_file", "m.csv"], ["validation_file"]),
        (FILES, ["--dataset_name", "org/exam"], ["train_file", "validation_file", "test_file"]),
        (HUB, ["--train_file", "n.csv"], [line.split(":")[0] for line in HUB.splitlines()]),
        (HUB, ["--dataset_name", "org/other"], ["dataset_config_name", "dataset_revision"]),
        ("model_name_or_path: org/a\nmodel_revision: v1\n", ["--model_name_or_path", "org/b"], ["model_revision"]),
    ],
)
def test_what_belongs_to_the_replaced_value_is_named_and_can_be_taken_out(recipe, text, argv, stale):
    found = message(recipe, text + GUARDS, *argv)
    assert all(f"`{key}`" in found for key in [argv[0][2:], *stale]) and "group_column" not in found
    assert " ".join(f"--no_{key}" for key in stale) in found
    *_, given = recipe(text + GUARDS, *argv, *(f"--no_{key}" for key in stale))
    assert not given.keys() & set(stale) and given["group_column"] == "patient"


@pytest.mark.parametrize("key", ["validation_file", "validation_split_name", "test_file", "test_split_name"])
def test_a_fraction_of_a_split_that_is_given_has_no_effect_and_is_refused(recipe, key):
    fraction = f"{key.split('_')[0]}_fraction"
    found = message(recipe, f"{key}: x\n", f"--{fraction}", "0.2")
    assert f"`{fraction}`" in found and f"`{key}`" in found
    assert recipe(f"{key}: x\n", f"--{fraction}", "0.2", f"--no_{key}")[1].validation_fraction in (0.1, 0.2)
    assert message(recipe, f"{key}: x\n{fraction}: 0.2\n") == found


@pytest.mark.parametrize(
    ("key", "of"), [("model_revision", "model_name_or_path"), ("dataset_revision", "dataset_name")]
)
def test_a_revision_of_a_folder_is_refused(recipe, tmp_path, key, of):
    found = message(recipe, "", f"--{of}", str(tmp_path), f"--{key}", "v1")
    assert f"`{key}`" in found and f"`{of}`" in found
    assert recipe("", f"--{of}", "org/name", f"--{key}", "v1")[-1][key] == "v1"
    assert recipe(f"{of}: {tmp_path}\n{key}: v1\n", f"--no_{key}")[-1][of] == str(tmp_path)


def test_a_revision_of_a_folder_is_refused_where_a_model_is_used(tmp_path):
    argv = ["--revision", "v1", "--text", "a"]
    with pytest.raises(UserError, match="`revision` has no effect"):
        parse_recipe((PredictArguments,), ["--model", str(tmp_path), *argv])
    assert parse_recipe((PredictArguments,), ["--model", "org/name", *argv])[0].revision == "v1"


def test_a_negated_boolean_is_false_and_any_other_negated_key_has_its_default(recipe):
    text = "load_in_4bit: true\ndrop_ambiguous: true\nlora_r: 4\nlora_target_modules: [q_proj]\n"
    argv = ["--no_load_in_4bit", "--no-drop-ambiguous", "--no_lora_r", "--no_lora_target_modules"]
    model, data, *_, given = recipe(text, *argv)
    assert (model.load_in_4bit, data.drop_ambiguous, model.lora_r, model.lora_target_modules) == (
        False,
        False,
        16,
        None,
    )
    assert given["load_in_4bit"] is given["drop_ambiguous"] is False and "lora_r" not in given
    for wrong in (["--no_lora_r", "--lora_r", "3"], ["--no_lora_r=8"], ["--no_lora_rr"]):
        assert "lora_r" in message(recipe, "lora_r: 4\n", *wrong)
    assert "`8`" in message(recipe, "lora_r: 4\n", "--no_lora_r", "8")


# ----- The resolved recipe


def test_a_written_recipe_parses_again_to_equal_arguments(recipe, tmp_path):
    text = (
        "learning_rate: 2e-4\nreport_to: [tensorboard, trackio]\nuse_peft: true\nlora_target_modules: [q_proj, v_proj]"
        "\n"
        'lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1.0e-5}\neval_strategy: "no"\n'
        'prompt_template: "Frage: {question}\\nAntwort \u00e4:"\nsystem_prompt: "yes"\nload_in_4bit: true\n'
    )
    *first, given = recipe(text, "--max_steps", "7", "--no_drop_ambiguous")
    write_recipe(tmp_path / "again.yaml", given)
    *second, given_again = parse_recipe(ARGUMENTS, [str(tmp_path / "again.yaml")])
    assert [vars(a) for a in first[:3]] == [vars(a) for a in second[:3]]
    assert first[3].to_dict() == second[3].to_dict()
    _check_same_recipe(given, given_again, tmp_path)  # what a restart compares


def test_the_recipe_of_a_run_parses_again_to_the_arguments_of_the_run(qa_run, tmp_path):
    written = yaml.safe_load((qa_run.folder / "recipe.yaml").read_text(encoding="utf-8"))
    *_, training, given = parse_recipe(ARGUMENTS, [str(qa_run.folder / "recipe.yaml")])
    assert given == written and training.max_steps == 10  # the flag, not the recipe's 2
