"""Fine-tune a causal language model to answer medical questions, and say how much better it answers than before.

    accelerate launch run_qa_sft.py recipes/phi3_qlora.yaml
    accelerate launch run_qa_sft.py recipes/phi3_qlora.yaml --learning_rate 1e-4 --train_file my_questions.csv

To use your own data name its columns in the recipe. To change what the model sees edit `prompt_template` in the
recipe, or `to_prompt_and_answer` below.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import ModelConfig, SFTConfig, SFTTrainer

from utils.arguments import DataArguments, UserError, library_checks, parse_recipe, user_errors
from utils.data.augmentation import augment
from utils.data.load import load_splits
from utils.evaluation.confidence import answer_confidence, by_confidence, fit_confidence
from utils.evaluation.error_analysis import PATTERN_ADVICE, error_patterns, write_predictions
from utils.evaluation.multiple_choice import choice_statistics
from utils.generation import generate_answers, measure_latency, score_answers
from utils.hub import check_push_access, push
from utils.json_files import write_json
from utils.metrics.baselines import nearest_answers
from utils.metrics.intervals import evaluate_statistics, mcnemar, paired_difference, resampling_weights
from utils.metrics.statistics import accuracy_statistics, loss_statistics, text_statistics
from utils.modeling import (
    count_parameters,
    get_lora_config,
    get_quantization_config,
    load_base_model,
    load_tokenizer,
    upcast_trainable_weights,
)
from utils.prompts import (
    answer_delimiters,
    check_adapted,
    fill_template,
    option_answers,
    render_prompt,
    tokenize_pairs,
    truncate_pairs,
)
from utils.reporting.card import write_card
from utils.reporting.report import write_report
from utils.reporting.tables import results_table
from utils.run import describe_run, end_on_validation, make_readable, peak_memory, start_run, train_or_resume

logger = logging.getLogger(__name__)


@dataclass
class QAArguments:
    """What this task adds."""

    question_column: str = field(default="question", metadata={"help": "The question."})
    answer_column: str | None = field(default=None, metadata={"help": "The answer; `answer` without options."})
    context_column: str | None = field(default=None, metadata={"help": "A text to answer from, which may be empty."})
    options_column: list[str] | None = field(
        default=None, metadata={"help": "Multiple choice: a column of lists, or one column for each option."}
    )
    answer_index_column: str | None = field(default=None, metadata={"help": "The right option, counted from 0."})
    prompt_template: str | None = field(
        default=None,
        metadata={"help": "Text with {question}, {context}, {options}."},
    )
    system_prompt: str | None = field(default=None, metadata={"help": "The chat template's system turn."})
    augmentation_factor: int = field(default=1, metadata={"help": "Rows made of one training row by other wordings."})
    curriculum: bool = field(default=False, metadata={"help": "Short rows first."})
    max_new_tokens: int = field(default=256, metadata={"help": "Longest generated answer, in tokens."})
    repetition_penalty: float = field(default=1.0, metadata={"help": "Above 1: less of what was said before."})

    def __post_init__(self) -> None:
        if bool(self.options_column) != bool(self.answer_index_column):
            raise UserError("`options_column` and `answer_index_column` go together: give both or neither.")
        if self.answer_column and self.options_column:
            raise UserError("`answer_column` and `options_column` are both given: the right option is the answer.")
        if not self.options_column:
            self.answer_column = self.answer_column or "answer"
        for key in ("augmentation_factor", "max_new_tokens"):
            if getattr(self, key) < 1:
                raise UserError(f"`{key}` is {getattr(self, key)}: give 1 or more.")
        if self.repetition_penalty <= 0:
            raise UserError(f"`repetition_penalty` is {self.repetition_penalty}: give more than 0; 1 is no penalty.")


ARGUMENTS = (ModelConfig, DataArguments, QAArguments, SFTConfig)


# ----- ADAPT HERE: one row of your data -> what the user asks, what the model should answer
def to_prompt_and_answer(row: dict[str, Any], task: dict[str, Any]) -> tuple[str, str]:
    """Return the user's turn and the right answer of a row. `predict.py` sees rows without an answer, so what the
    prompt says has to come from `prompt_template` (`task.json` keeps it); a check in section 2 holds you to that."""
    columns = task["columns"]
    prompt = fill_template(task["prompt_template"], columns, row)
    if columns["options"]:
        return prompt, option_answers(row[columns["options"]])[row[columns["answer_index"]]]
    return prompt, row[columns["answer"]]


def to_tokens(rows: list[dict[str, Any]], tokenizer: Any, task: dict[str, Any]) -> tuple[list, list, dict[str, int]]:
    """Tokenize rows as (prompts, answers), cut to `max_length`, and count what was cut."""
    users, answers = zip(*(to_prompt_and_answer(row, task) for row in rows), strict=True)
    prompts = [render_prompt(tokenizer, task, user) for user in users]
    return truncate_pairs(*tokenize_pairs(tokenizer, prompts, list(answers), task["chat"]), task["max_length"])


def to_training_rows(split: Dataset, tokenizer: Any, task: dict[str, Any]) -> tuple[Dataset, dict[str, int]]:
    """Tokenize a split for the trainer, which computes the loss where `labels` is not -100: on the answer. A row whose
    prompt alone fills `max_length` teaches nothing and is dropped."""
    counts = Counter(dropped_too_long=0, cut_answers=0)

    def tokenize(batch: dict[str, list]) -> dict[str, list]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        prompts, answers, cut = to_tokens(rows, tokenizer, task)
        ids = [(p, a) for p, a in zip(prompts, answers, strict=True) if len(p) < task["max_length"] - 1]
        dropped = len(rows) - len(ids)
        counts.update(dropped_too_long=dropped, cut_answers=cut["cut_answers"] - dropped)
        return {"input_ids": [p + a for p, a in ids], "labels": [[-100] * len(p) + a for p, a in ids]}

    tokenized = split.map(tokenize, batched=True, remove_columns=split.column_names, desc="Tokenizing")
    if not len(tokenized):
        raise UserError(f"`max_length` is {task['max_length']} tokens and every prompt fills it: raise it.")
    return tokenized, dict(counts)


def answer_rows(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    prompts: list[list[int]],
    answers: list[list[int]],
    references: Sequence[str],
    task: dict[str, Any],
    args: SFTConfig,
    name: str,
) -> tuple[dict[str, Any], list[str], list[bool]]:
    """Ask a model every row: the row statistics of its metrics, its answers, and whether each ended by itself."""
    batch_size = args.per_device_eval_batch_size
    nll, tokens = score_answers(model, prompts, answers, tokenizer.pad_token_id, batch_size, f"{name}: loss")
    predictions, finished = generate_answers(
        model, tokenizer, prompts, task["stop"], task["generation"], batch_size, f"{name}: answers"
    )
    statistics = loss_statistics(nll, tokens) | text_statistics(predictions, references)
    statistics |= accuracy_statistics(finished, "finished")
    if task["columns"]["options"]:
        statistics |= choice_statistics(model, tokenizer, rows, predictions, task, batch_size, args.seed, name)
    return statistics, predictions, finished


def shortest_first(train: Dataset, args: SFTConfig) -> Dataset:
    """Sort tokenized rows by length, for trainers that take them in this order (seed 004's curriculum)."""
    if args.train_sampling_strategy != "sequential" or args.packing:
        raise UserError(
            f"`curriculum` needs rows in order: `train_sampling_strategy` is {args.train_sampling_strategy} and "
            f"`packing` is {args.packing}, write `train_sampling_strategy: sequential` and `packing: false`."
        )
    lengths = [len(ids) for ids in train["input_ids"]]
    return train.select(sorted(range(len(train)), key=lengths.__getitem__))


def make_task(args: QAArguments, tokenizer: Any, max_length: int, train: Dataset) -> dict[str, Any]:
    """Return what serving needs to put a question as training did, for `task.json`."""
    options = args.options_column or []
    columns = {
        "question": args.question_column,
        "context": args.context_column,
        "options": "options" if len(options) > 1 else (options or [None])[0],
        "answer": args.answer_column,
        "answer_index": args.answer_index_column,
    }
    chat = tokenizer.chat_template is not None
    if not chat and args.prompt_template is None:
        raise UserError(
            "`prompt_template` is not set and the model has no chat template: write the whole prompt, for example "
            'prompt_template: "Question: {question}\\nAnswer:".'
        )
    parts = [f"{{{role}}}" for role in ("context", "question", "options") if columns[role]]
    task = {
        "task": "qa",
        "columns": columns,
        "chat": chat,
        "system_prompt": args.system_prompt,
        "prompt_template": args.prompt_template or "\n\n".join(parts),
        "stop": answer_delimiters(tokenizer, chat)[1],
        "max_length": max_length,
        "generation": {
            "max_new_tokens": args.max_new_tokens,
            "do_sample": False,
            "repetition_penalty": args.repetition_penalty,
        },
    }
    check_adapted(lambda row: to_prompt_and_answer(row, task)[0], task, train)
    return task


def main(
    model_args: ModelConfig,
    data_args: DataArguments,
    qa_args: QAArguments,
    training_args: SFTConfig,
    given: dict[str, Any],
) -> None:
    # ----- 1. Setup
    checkpoint = start_run(training_args, given, ARGUMENTS)
    output_dir = Path(training_args.output_dir)
    # Trainer pushes at every save: hold that back until the evaluation is done
    push_to_hub, training_args.push_to_hub = training_args.push_to_hub, False
    repo_id = training_args.hub_model_id or output_dir.name
    if push_to_hub:
        repo_id = check_push_access(repo_id, private=training_args.hub_private_repo)

    # ----- 2. Data
    splits, results = load_splits(
        data_args,
        input_column=qa_args.question_column,
        target_column=qa_args.answer_column,
        optional_columns=[qa_args.context_column] if qa_args.context_column else [],
        list_columns=qa_args.options_column or [],
        index_column=qa_args.answer_index_column,
        cluster_columns=[c for c in (qa_args.question_column, qa_args.answer_column) if c],
        seed=training_args.seed,
    )
    tokenizer = load_tokenizer(model_args, training_args.trust_remote_code)
    task = make_task(qa_args, tokenizer, training_args.max_length, splits["train"])
    columns = task["columns"]
    train = augment(
        splits["train"],
        qa_args.augmentation_factor,
        columns["question"],
        columns["options"],
        columns["answer_index"],
        training_args.seed,
    )
    train_dataset, train_counts = to_training_rows(train, tokenizer, task)
    eval_dataset, eval_counts = to_training_rows(splits["validation"], tokenizer, task)
    results |= {f"data_train_{key}": value for key, value in train_counts.items()}
    results |= {f"data_validation_{key}": value for key, value in eval_counts.items()}
    if qa_args.curriculum:
        train_dataset = shortest_first(train_dataset, training_args)

    # ----- 3. Model
    device, trust_remote_code = training_args.device, training_args.trust_remote_code
    quantization = get_quantization_config(model_args, device)
    model = load_base_model(model_args, AutoModelForCausalLM, quantization, device, trust_remote_code)
    peft_config = get_lora_config(model_args, model, "CAUSAL_LM")
    task |= describe_run(model_args, data_args, model, device)

    # ----- 4. Trainer
    with library_checks("SFTTrainer"):
        trainer = SFTTrainer(
            model=model,
            args=training_args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            peft_config=peft_config,
        )
    if training_args.fp16:
        upcast_trainable_weights(trainer.model)
    results |= count_parameters(trainer.model)

    # ----- 5. Train
    results |= train_or_resume(trainer, checkpoint)
    trainer.save_model()
    trainer.save_state()

    # ----- 6. Evaluate
    batch_size, seed = training_args.per_device_eval_batch_size, training_args.seed
    validation, test = splits["validation"].to_list(), splits["test"].to_list()
    prompts, answers, _ = to_tokens(validation, tokenizer, task)
    nll, tokens = score_answers(
        trainer.model, prompts, answers, tokenizer.pad_token_id, batch_size, "validation: loss"
    )
    weights = resampling_weights(len(validation), seed, splits["validation"]["cluster"])
    results |= evaluate_statistics(loss_statistics(nll, tokens), weights, "eval")
    if not data_args.evaluate_test:
        end_on_validation(trainer, task, results)
        return

    _, references = zip(*(to_prompt_and_answer(row, task) for row in validation), strict=True)
    task["confidence"], found = fit_confidence(
        trainer.model, tokenizer, validation, references, task, batch_size, seed
    )
    results |= found
    prompts, answers, cut = to_tokens(test, tokenizer, task)
    users, references = zip(*(to_prompt_and_answer(row, task) for row in test), strict=True)
    asked = (tokenizer, test, prompts, answers, references, task, training_args)
    tuned, predictions, finished = answer_rows(trainer.model, *asked, "tuned model")
    whole = [render_prompt(tokenizer, task, user) for user in users]
    confidence = answer_confidence(
        trainer.model, tokenizer, task, whole, predictions, finished, batch_size, "tuned model: confidence"
    )
    if model_args.use_peft:
        with trainer.model.disable_adapter():
            base, base_predictions, _ = answer_rows(trainer.model, *asked, "base model")
    else:
        model = load_base_model(model_args, AutoModelForCausalLM, quantization, device, trust_remote_code)
        base, base_predictions, _ = answer_rows(model, *asked, "base model")
    known, known_answers = zip(*(to_prompt_and_answer(row, task) for row in splits["train"]), strict=True)
    nearest = text_statistics(nearest_answers(known, known_answers, users), references)
    weights = resampling_weights(len(test), seed, splits["test"]["cluster"])
    results |= evaluate_statistics(tuned, weights, "test")
    if task["confidence"]:
        results |= evaluate_statistics(by_confidence(tuned, confidence, task["confidence"]), weights, "test")
    results |= evaluate_statistics(base, weights, "base_test")
    results |= evaluate_statistics(nearest, weights, "baseline_nearest_question_test")
    results |= paired_difference(tuned, base, weights, "delta_base_test")
    results |= paired_difference(
        {k: tuned[k] for k in nearest}, nearest, weights, "delta_baseline_nearest_question_test"
    )
    if columns["options"]:
        results["mcnemar_test_accuracy_p"] = mcnemar(tuned["accuracy"][:, 0], base["accuracy"][:, 0])
    results |= {f"data_test_{key}": value for key, value in cut.items()}
    results |= measure_latency(trainer.model, tokenizer, prompts[:20], task)
    patterns = error_patterns(predictions, references, users, finished, tuned)
    results |= {f"errors_{name}": len(found) for name, found in patterns.items()}
    results |= peak_memory()
    columns_of_rows = zip(
        test, users, predictions, references, base_predictions, finished, confidence.tolist(), strict=True
    )
    keys = ("source", "prediction", "reference", "base_prediction", "finished", "confidence")
    rows = [{"id": row["id"], **dict(zip(keys, values, strict=True))} for row, *values in columns_of_rows]

    # ----- 7. Report
    if trainer.is_world_process_zero():
        write_predictions(output_dir, rows, patterns)
        make_readable(output_dir)
        write_json(output_dir / "task.json", task)
        write_json(output_dir / "all_results.json", results)
        card = write_card(output_dir, repo_id)
        report = write_report(output_dir, PATTERN_ADVICE)
        print(results_table(results), f"report: {report}", f"model card: {card}", sep="\n")

        # ----- 8. Hub
        if push_to_hub:
            url = push(output_dir, repo_id, training_args.hub_private_repo)
            logger.info("pushed to %s", url)
    trainer.accelerator.wait_for_everyone()  # no process may leave the group while another still writes
    trainer.end()


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe(ARGUMENTS, description=__doc__))
