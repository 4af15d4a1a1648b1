import pytest
from conftest import CHATML, make_tokenizer, toy_exam, toy_rows
from datasets import Dataset
from transformers import AutoTokenizer

from utils.arguments import UserError
from utils.chat import answer_delimiters, chat_prompt, tokenize_pairs
from utils.generation import truncate_pairs
from utils.prompts import build_prompt
from utils.templates import check_adapted, fill_template, format_options, option_answers

COLUMNS = {"question": "q", "context": "c", "options": "o", "answer": "a", "answer_index": "i"}
ROW = {"q": "What is ataxia?", "c": "A note.", "o": ["one", "two"], "a": "Loss of control.", "i": 1, "age": 70}


@pytest.fixture(params=["tiny_llama", "tiny_phi3", "tiny_phi"])
def tokenizer(request):
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


def has_chat(tokenizer) -> bool:
    return tokenizer.chat_template is not None


def test_a_function_that_writes_another_text_than_the_template_is_refused():
    raw_columns = {"input": "q", "target": "a", "optional": ["c"], "lists": ["o"], "index": "i"}
    task = {"columns": COLUMNS, "raw_columns": raw_columns, "prompt_template": "{question}"}
    rows = Dataset.from_list([ROW] * 3)
    check_adapted(lambda row: row["q"], task, rows)
    check_adapted(lambda row: [row["q"]], task, rows, read=lambda row, task: [row["q"]])
    with pytest.raises(UserError, match="ADAPT HERE .*`prompt_template`"):
        check_adapted(lambda row: row["q"].lower(), task, rows)


# ----- The prompt text


def test_options_are_lettered_lines_and_the_answer_is_one_of_them():
    assert format_options(["rest", "surgery"]) == "A. rest\nB. surgery"
    assert option_answers(["rest", "surgery"])[1] == "B. surgery"


def test_a_template_is_filled_with_roles_and_further_columns():
    text = fill_template("{context}\n{question} ({age} years)\n{options}\n", COLUMNS, ROW)
    assert text == "A note.\nWhat is ataxia? (70 years)\nA. one\nB. two"
    assert fill_template("{question} {{literal}}", COLUMNS, ROW) == "What is ataxia? {literal}"


@pytest.mark.parametrize("context", [None, "", "missing"])
def test_an_absent_context_is_left_out(context):
    row = {k: v for k, v in ROW.items() if k != "c"} | ({} if context == "missing" else {"c": context})
    assert fill_template("{context}\n\n{question}", COLUMNS, row) == "What is ataxia?"


def test_braces_in_a_row_are_text():
    assert fill_template("{question}", COLUMNS, ROW | {"q": "What is {age} of {x}?"}) == "What is {age} of {x}?"


@pytest.mark.parametrize("name", ["a", "i", "answer", "answer_index"])
def test_a_prompt_cannot_name_the_answer(name):
    with pytest.raises(UserError, match="`prompt_template` names"):
        fill_template(f"{{question}} {{{name}}}", COLUMNS, ROW)


@pytest.mark.parametrize("template", ["{question", "{question}}", "{}", "{0}"])
def test_a_template_with_a_stray_brace_is_refused(template):
    with pytest.raises(UserError, match="`prompt_template`"):
        fill_template(template, COLUMNS, ROW)


def test_a_name_that_is_no_column_is_refused_with_those_there_are():
    with pytest.raises(UserError) as caught:
        fill_template("{questoin}", COLUMNS, ROW)
    assert "{questoin}" in str(caught.value) and "question" in str(caught.value)
    assert "keep_columns" in str(caught.value) and "Loss of control" not in str(caught.value)


def test_a_system_prompt_is_a_turn_of_its_own(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    task = {"chat": True, "system_prompt": "Be brief.", "prompt_template": "{question}", "columns": COLUMNS}
    task["max_length"] = 256
    prompt = build_prompt(tokenizer, task, ROW)
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is ataxia?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert build_prompt(tokenizer, task | {"chat": False}, ROW) == "What is ataxia?"


# ----- Where an answer begins and ends


def test_an_answer_ends_as_the_chat_template_ends_a_turn(tiny_llama, tiny_phi3, tiny_phi):
    frames = {
        path.name: answer_delimiters(tokenizer := AutoTokenizer.from_pretrained(path), has_chat(tokenizer))
        for path in (tiny_llama, tiny_phi3, tiny_phi)
    }
    assert frames == {
        "tiny-llama": ("", "<|im_end|>"),
        "tiny-phi3": ("", "<|end|>"),  # not its end-of-text token
        "tiny-phi": (" ", "<|endoftext|>"),
    }


def test_a_template_that_writes_before_the_answer_has_that_in_its_frame():
    template = CHATML.replace("{{ m['content'] }}", "{{ '> ' if m['role'] == 'assistant' else '' }}{{ m['content'] }}")
    tokenizer = make_tokenizer(["<|im_start|>", "<|im_end|>"], "<|im_end|>", template)
    assert answer_delimiters(tokenizer, True) == ("> ", "<|im_end|>")


# ----- Tokens


def test_the_prompts_tokens_are_the_same_with_and_without_an_answer(tokenizer):
    chat = has_chat(tokenizer)
    prompts = [row["question"] for row in toy_rows()[:20]] + ["Question: heart\nAnswer:", "ends in a space ", "x"]
    answers = [row["answer"] for row in toy_rows()[:20]] + ["heart", "so", "\nnew line"]
    prompts = [chat_prompt(tokenizer, [{"role": "user", "content": text}]) if chat else text for text in prompts]
    alone, nothing = tokenize_pairs(tokenizer, prompts, None, chat)
    ids, answer_ids = tokenize_pairs(tokenizer, prompts, answers, chat)
    stop = tokenizer.convert_tokens_to_ids(answer_delimiters(tokenizer, chat)[1])
    assert nothing == [] and ids == alone
    for prompt, answer, p, a in zip(prompts, answers, ids, answer_ids, strict=True):
        assert a[-1] == stop and a.count(stop) == 1
        assert tokenizer.decode(a[:-1]).lstrip(" ") == answer.lstrip(" ")
        assert tokenizer.decode(p + a[:-1]) in (prompt + answer, prompt + " " + answer)


def test_the_prompts_tokens_stay_where_they_would_merge_with_the_answers(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    prompt, answer = "What i", "s a disease"
    alone, joint = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + answer))
    assert joint[: len(alone)] != alone  # " is" is one token
    (ids,), (answer_ids,) = tokenize_pairs(tokenizer, [prompt], [answer], True)
    assert ids == alone and tokenizer.decode(ids + answer_ids[:-1]) == prompt + answer


def test_every_option_of_an_exam_follows_the_same_prompt_tokens(tokenizer):
    row = toy_exam()[0]
    options = option_answers(row["options"])
    ids, answer_ids = tokenize_pairs(tokenizer, [row["question"]] * 4, options, False)
    assert all(prompt == ids[0] for prompt in ids) and len({tuple(a) for a in answer_ids}) == 4


# ----- Length


def test_rows_that_fit_are_left_alone():
    assert truncate_pairs([[1, 2], [3]], [[4, 5], [6]], 4) == (
        [[1, 2], [3]], [[4, 5], [6]], {"cut_prompts": 0, "cut_answers": 0},
    )  # fmt: skip


def test_a_long_prompt_keeps_its_end_and_leaves_room_for_one_token_of_answer():
    prompts, answers, counts = truncate_pairs([[1, 2, 3, 4, 5], [1, 2, 3, 4]], [[6, 7], [8]], 4)
    assert prompts == [[3, 4, 5], [2, 3, 4]] and answers == [[6], [8]]
    assert counts == {"cut_prompts": 2, "cut_answers": 1}
    assert truncate_pairs([[1, 2, 3, 4, 5]], None, 4) == ([[3, 4, 5]], [], {"cut_prompts": 1, "cut_answers": 0})


def test_a_long_answer_loses_its_end():
    prompts, answers, counts = truncate_pairs([[1, 2]], [[3, 4, 5]], 4)
    assert (prompts, answers, counts) == ([[1, 2]], [[3, 4]], {"cut_prompts": 0, "cut_answers": 1})
    assert all(len(p) + len(a) <= 4 for p, a in zip(prompts, answers, strict=True))
