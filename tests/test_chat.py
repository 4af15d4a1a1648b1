"""What chat templates write around an answer, and what they cannot do."""

import pytest
from conftest import CHATML, PHI3, make_tokenizer
from tokenizers import AddedToken

from utils.arguments import UserError
from utils.chat import answer_delimiters, chat_prompt
from utils.prompts import prompt_settings


def test_an_end_of_turn_that_eats_the_white_space_after_it_is_found():
    tokenizer = make_tokenizer(["<|endoftext|>", "<|user|>", "<|assistant|>"], "<|endoftext|>", PHI3)
    tokenizer.add_tokens([AddedToken("<|end|>", rstrip=True, normalized=False, special=True)])
    assert answer_delimiters(tokenizer, True) == ("", "<|end|>")


# ----- Chat templates that cannot do what the recipe asks for

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
DROPS_SYSTEM = CHATML.replace("messages %}", "messages if m['role'] != 'system' %}")
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% endfor %}" + CHATML
)
IN_PARTS = CHATML.replace("{{ m['content'] }}", "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}")


def settings_of(template, system_prompt=None, prompt_template=None):
    tokenizer = make_tokenizer(["<|im_start|>", "<|im_end|>"], "<|im_end|>", template)
    return prompt_settings(tokenizer, system_prompt, prompt_template, ["context", "question"])


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM, ALTERNATES])
def test_a_system_prompt_that_a_template_refuses_or_drops_is_refused_in_one_line(template):
    with pytest.raises(UserError, match="`system_prompt`.*`prompt_template`") as caught:
        settings_of(template, "Be brief.")
    assert "\n" not in str(caught.value) and "Be brief." not in str(caught.value)
    assert settings_of(template)["stop"] == "<|im_end|>"  # without one the model is fine
    tokenizer = make_tokenizer(["<|im_start|>", "<|im_end|>"], "<|im_end|>", template)
    with pytest.raises(UserError, match="system"):  # nor may a row have one
        chat_prompt(tokenizer, [{"role": "system", "content": "x1"}, {"role": "user", "content": "x2"}])


def test_a_template_that_drops_the_question_is_refused():
    with pytest.raises(UserError, match="drops the user turn"):
        settings_of(IN_PARTS)
    with pytest.raises(UserError, match="chat template"):
        settings_of("{{ messages[5]['content'] }}")


LATER = "{% if messages | length > 1 %}FAULT{% endif %}" + CHATML  # not for a question alone


@pytest.mark.parametrize("where", ["FAULT", LATER])
@pytest.mark.parametrize(
    "fault",
    [
        "{{ 1 / 0 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ range(10 ** 9) | list }}", "{% if %}",
        "{{ (messages | last).content | int + '' }}", "{{ messages.x.y }}", "{{ raise_exception('no') }}",
    ],
)  # fmt: skip
def test_a_template_that_fails_in_any_way_is_refused_in_one_line(fault, where):
    with pytest.raises(UserError, match="chat template of the model refuses turns"):
        settings_of(where.replace("FAULT", fault))


def test_an_error_of_python_in_a_template_does_not_quote_a_row():
    tokenizer = make_tokenizer(
        ["<|im_start|>", "<|im_end|>"], "<|im_end|>", "{{ messages[0].content.encode('ascii') }}"
    )
    with pytest.raises(UserError) as caught:
        chat_prompt(tokenizer, [{"role": "user", "content": "Müller, Hans"}])
    assert "ü" not in str(caught.value) and "xfc" not in str(caught.value)


def test_a_model_without_a_chat_template_needs_a_prompt_template_and_takes_no_system_prompt():
    assert settings_of(None, None, "Q: {question}\nA:")["prompt_template"] == "Q: {question}\nA:"
    for given, key in ((("Be brief.", "{question}"), "`system_prompt`"), ((None, None), "`prompt_template`")):
        with pytest.raises(UserError, match=key):
            settings_of(None, *given)


def test_the_default_template_joins_what_a_row_has():
    assert settings_of(CHATML)["prompt_template"] == "{context}\n\n{question}"
