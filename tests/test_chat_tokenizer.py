"""The chat template and the end token of a recipe hold for rows, evaluation, the saved tokenizer and serving."""

from importlib.resources import files

import pytest
from conftest import qa_flags, run_here
from transformers import AutoTokenizer
from trl import ModelConfig, SFTConfig

from run_qa_sft import ARGUMENTS, main
from utils.arguments import UserError
from utils.chat import with_fixed_date
from utils.chat_tokenizer import load_chat_tokenizer
from utils.inference import Predictor
from utils.prompts import build_prompt

TEMPLATE = (
    "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + '<|endoftext|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("templates") / "brackets.jinja"
    path.write_text(TEMPLATE, encoding="utf-8")
    return path


def load(folder, **values):
    training = SFTConfig(output_dir="out", use_cpu=True, bf16=False, report_to="none", **values)
    return load_chat_tokenizer(ModelConfig(model_name_or_path=str(folder)), training), training


def refused(folder, **values) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, **values)
    return str(caught.value)


def test_a_template_comes_from_a_file_or_from_another_tokenizer(tiny_llama, tiny_phi, template, tmp_path):
    found, training = load(tiny_llama, chat_template_path=str(template))
    assert found.chat_template == TEMPLATE and training.chat_template_path is None  # SFTTrainer sets nothing again
    other = AutoTokenizer.from_pretrained(tiny_phi)
    other.chat_template = TEMPLATE
    other.save_pretrained(tmp_path / "other")
    assert load(tiny_phi, chat_template_path=str(tmp_path / "other"))[0].chat_template == TEMPLATE
    assert load(tiny_phi)[0].chat_template is None


def test_a_template_whose_tokens_the_model_lacks_is_refused(tiny_phi, tiny_llama, tmp_path):
    found = refused(tiny_phi, chat_template_path=str(tiny_llama))
    assert "`chat_template_path`" in found and "`<|im_end|>`" in found
    assert "`chat_template_path`" in refused(tiny_phi, chat_template_path=str(tmp_path / "nowhere.jinja"))
    assert "`chat_template_path`" in refused(tiny_llama, chat_template_path=str(tiny_phi))  # it has no template


def test_a_template_that_writes_the_date_of_the_day_writes_the_same_date_every_day(tiny_llama, tmp_path, caplog):
    path = tmp_path / "dated.jinja"
    formats = ('strftime_now("%d %b %Y")', "strftime_now( '%Y-%m-%d' )")
    path.write_text("".join(f"{{{{ {written} }}}} " for written in formats) + TEMPLATE)
    found, _ = load(tiny_llama, chat_template_path=str(path))
    prompt = found.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert prompt.startswith("26 Jul 2024 2024-07-26 ") and "date" in caplog.text
    found.save_pretrained(tmp_path / "saved")  # what serving and a run that goes on from it load
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == found.chat_template
    path.write_text("{% set f = '%Y' %}{{ strftime_now(f) }}" + TEMPLATE)
    assert "`chat_template_path`" in refused(tiny_llama, chat_template_path=str(path))


def test_no_template_that_trl_knows_depends_on_the_day():
    for path in files("trl").joinpath("chat_templates").iterdir():
        if path.name.endswith(".jinja"):
            template = path.read_text(encoding="utf-8")
            fixed = with_fixed_date(template)
            assert "strftime_now(" not in fixed and (fixed == template) is ("strftime_now(" not in template)


def test_an_end_token_has_to_be_a_token_with_which_answers_end(tiny_llama, tiny_phi, template):
    assert load(tiny_phi, eos_token="<|endoftext|>")[0].eos_token == "<|endoftext|>"
    assert load(tiny_llama, eos_token="<|im_end|>")[0].eos_token == "<|im_end|>"
    assert (
        load(tiny_llama, eos_token="<|endoftext|>", chat_template_path=str(template))[0].eos_token == "<|endoftext|>"
    )
    assert "`eos_token` is <|endoftext|>" in refused(tiny_llama, eos_token="<|endoftext|>")
    assert "`eos_token` is <end>" in refused(tiny_llama, eos_token="<end>")


def test_a_run_trains_evaluates_saves_and_serves_with_the_template_of_its_recipe(tiny_llama, data, template, tmp_path):
    values = {
        "train_file": data.qa,
        "max_steps": 1,
        "logging_steps": 1,
        "max_predict_samples": 3,
        "max_eval_samples": 3,
    }
    own = run_here(main, ARGUMENTS, qa_flags(tiny_llama, tmp_path / "own", **values))
    run = run_here(main, ARGUMENTS, qa_flags(tiny_llama, tmp_path / "run", **values, chat_template_path=template))
    assert (own.code, run.code) == (0, 0), run.stderr
    assert run.results["train_loss"] != own.results["train_loss"]
    assert (own.task["stop"], run.task["stop"]) == ("<|im_end|>", "<|endoftext|>")
    predictor = Predictor.from_pretrained(str(run.folder))
    prompt = build_prompt(predictor.tokenizer, predictor.task, {"question": "What is ataxia?"})
    assert prompt == "[user] What is ataxia?<|endoftext|>[assistant] "
    assert predictor(["What is ataxia?"])[0]["prediction"] is not None


def test_a_system_prompt_without_a_chat_template_is_refused(tiny_phi, data, tmp_path):
    argv = qa_flags(
        tiny_phi, tmp_path / "run", train_file=data.qa, prompt_template="{question}", system_prompt="Be brief."
    )
    done = run_here(main, ARGUMENTS, argv)
    assert done.code == 2 and "`system_prompt`" in done.stderr and "`prompt_template`" in done.stderr
