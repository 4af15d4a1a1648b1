"""What a card says about using a model with transformers and PEFT alone, without this code."""

from collections.abc import Mapping
from typing import Any

from utils.control_tokens import plain_text
from utils.reporting.tables import paragraphs
from utils.task import template_names
from utils.templates import fill_template


def beyond_weights(task: Mapping[str, Any]) -> list[str]:
    """Return what the predictions of a run need beside its weights; empty if plain transformers makes them, too.

    Args:
        task: the content of `task.json`.
    """
    if task.get("task") == "hierarchical":
        return ["the tree of classes", *task.get("beyond_weights", [])]
    if task.get("task") == "classification":
        return task.get("beyond_weights", ["a temperature"])  # runs before version 3 did not say
    return []


def plain_transformers(task: Mapping[str, Any], model: str, base: str, example: str, is_adapter: bool) -> str:
    """Return how to get the probabilities of a classifier, or the answer of a model that writes, from plain
    transformers; or why that is not possible.

    Args:
        task: the content of `task.json`, without local paths.
        model: Hub id or folder of the run.
        base: Hub id or folder of its base model.
        example: text for the code.
        is_adapter: whether the run saved an adapter.
    """
    if task.get("task") in ("qa", "summarization"):
        return _answer(task, model, base, example, is_adapter)
    if task.get("task") not in ("classification", "hierarchical"):
        return ""
    if beyond := beyond_weights(task):
        return (
            f"Plain `transformers` does not make these predictions: they need {_listed(beyond)} beside the weights. "
            "Its pipeline would give other classes and probabilities."
        )
    rounding = "loads the base model in fewer bits" if task.get("quantization") else f"computes in {task['autocast']}"
    is_rounded = task.get("quantization") or task["autocast"]
    template = plain_text(task["text_template"])
    notes = [
        f"It differs from `predict.py` only by rounding: `predict.py` {rounding}." if is_rounded else None,
        f"Texts of up to {task['max_length']} tokens only: `long_texts` is {task['long_texts']}."
        if task["long_texts"] != "head"
        else None,
        f"Give it each text as `{template}`." if template != "{text}" else None,
        *_first(task),
    ]
    load = _load_adapter(task, model, base) if is_adapter else f'classify = pipeline("text-classification", "{model}")'
    imports = "from peft import PeftModel\n" if is_adapter else ""
    classes = "AutoModelForSequenceClassification, AutoTokenizer, pipeline" if is_adapter else "pipeline"
    return paragraphs(
        f"Plain `transformers`{' and `peft` give' if is_adapter else ' gives'} the same probabilities:",
        f"```python\n{imports}from transformers import {classes}\n{load}\n"
        f'print(classify(["{example}"], top_k=None, truncation=True, max_length={task["max_length"]}))\n```',
        " ".join(note for note in notes if note),
    )


def _answer(task: Mapping[str, Any], model: str, base: str, example: str, is_adapter: bool) -> str:
    """Return code that writes an answer or a summary."""
    role, key = ("question", "prompt_template") if task["task"] == "qa" else ("text", "text_template")
    needed = {
        "columns",
        key,
        "stop",
        "dtype",
        "generation",
        "max_length" if role == "question" else "max_source_length",
    }
    if not needed <= task.keys() or not task["columns"].get(role):
        return ""  # a run of an earlier version
    columns, names = task["columns"], template_names(task)
    row = dict.fromkeys(names, "") | {columns[role]: example}
    text = plain_text(fill_template(task[key], columns, row, key))
    reads = "chat" not in task  # an encoder-decoder
    if task.get("chat"):
        system = task.get("system_prompt")
        turns = [{"role": "system", "content": system}] if system else []
        listed = "".join(f"    {turn},\n" for turn in [*turns, {"role": "user", "content": text}])
        prompt = f"tokenizer.apply_chat_template([\n{listed}], add_generation_prompt=True, tokenize=False)"
    else:
        prompt = repr(text)
    template = plain_text(task[key]).replace("\n", "\\n")
    auto, imports = "AutoModelForSeq2SeqLM" if reads else "AutoModelForCausalLM", ""
    load = f'model = {auto}.from_pretrained("{base if is_adapter else model}", dtype="{task["dtype"]}")\n'
    if is_adapter:
        imports = "from peft import PeftModel\n"
        load += f'model = PeftModel.from_pretrained(model, "{model}")\n'
    options = "".join(f", {name}={value!r}" for name, value in task["generation"].items())
    stop = f"tokenizer.convert_tokens_to_ids({task['stop']!r})"
    own = "" if reads else ', inputs["input_ids"].shape[1]:'
    others = sorted(names - {role})
    most = task["max_length" if role == "question" else "max_source_length"]
    notes = [
        "It differs from `predict.py` by rounding: `predict.py` loads the base model in fewer bits."
        if task.get("quantization")
        else None,
        f"The template is `{template}`; here {_listed([f'`{{{name}}}`' for name in others])} "
        f"{'is' if len(others) == 1 else 'are'} empty."
        if others
        else None,
        "The scores above were measured with examples in each prompt." if "examples" in others else None,
        f"Longer texts are cut there (`long_texts: {task['long_texts']}`)." if "long_texts" in task else None,
        *_first(task),
    ]
    return paragraphs(
        f"Plain `transformers`{' and `peft` write' if is_adapter else ' writes'} the same for prompts of up to "
        f"{most:,} tokens:",
        f"```python\n{imports}from transformers import {auto}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{model}")\n{load}'
        f"prompt = {prompt}\n"
        f'inputs = tokenizer(prompt, return_tensors="pt"{", add_special_tokens=False" if task.get("chat") else ""})\n'
        f"ends = {stop if reads else f'[{stop}, tokenizer.eos_token_id]'}\n"
        f"output = model.generate(**inputs, eos_token_id=ends{options})\n"
        f"print(tokenizer.decode(output[0{own}], skip_special_tokens=True))\n```",
        " ".join(note for note in notes if note),
    )


def _load_adapter(task: Mapping[str, Any], model: str, base: str) -> str:
    """Return code that loads base model and adapter; the base model alone knows neither classes nor pooling."""
    pooling = ', classifier_pooling="mean"' if task["pooling"] == "mean" else ""
    return (
        f'tokenizer = AutoTokenizer.from_pretrained("{model}")\n'
        f"labels = {task['labels']}\n"
        "base = AutoModelForSequenceClassification.from_pretrained(\n"
        f'    "{base}", num_labels=len(labels), id2label=dict(enumerate(labels)),\n'
        f'    pad_token_id=tokenizer.pad_token_id, dtype="float32"{pooling},\n'
        "    ignore_mismatched_sizes=True,  # the adapter brings the head\n"
        ")\n"
        f'model = PeftModel.from_pretrained(base, "{model}").merge_and_unload()\n'
        'classify = pipeline("text-classification", model=model, tokenizer=tokenizer)'
    )


def _first(task: Mapping[str, Any]) -> list[str]:
    """Return what `predict.py` does to a text before the model reads it."""
    columns = task.get("raw_columns") or {}
    pattern = columns.get("strip_pattern")
    return ["Write the text in lowercase first."] * bool(columns.get("lowercase")) + [
        f"Remove what matches `{pattern}` first." for _ in [pattern] if pattern
    ]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
