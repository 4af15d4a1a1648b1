"""Fine-tune a causal language model to answer medical questions, and measure the improvement over the base model.

    accelerate launch --quiet run_qa_sft.py recipes/phi3_qlora.yaml
    accelerate launch --quiet run_qa_sft.py recipes/phi3_qlora.yaml --learning_rate 1e-4 --output_dir outputs/phi3-1e-4

To use your own data, name its columns in the recipe. What the model reads: `prompt_template`, or `to_messages` below.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import utils  # noqa: F401  # before torch and bitsandbytes, whose threads and messages it settles

# isort: split
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from trl import ModelConfig, SFTConfig

from utils.adapters import add_adapter, count_parameters, find_adapter, upcast_trainable_weights
from utils.arguments import DataArguments, UserError, library_checks, parse_recipe, user_errors
from utils.chat import Turn
from utils.chat_tokenizer import load_chat_tokenizer
from utils.control_tokens import plain_text
from utils.data.columns import Columns
from utils.data.load import load_splits
from utils.data.questions import augment, question_columns
from utils.data.shapes import FORMATS
from utils.evaluation.answers import predict_answers, tokenize_turns
from utils.evaluation.confidence import MAX_ROWS, in_turns
from utils.evaluation.identity import run_identity
from utils.evaluation.models import STAGES, earlier_models, measure_latency, trained_model
from utils.evaluation.multiple_choice import shuffled_rows
from utils.evaluation.outputs import save_outputs, write_results
from utils.evaluation.qa import calibrate, evaluate
from utils.examples import COLUMN, add_examples, check_examples
from utils.extra_metrics import check_extra_metrics
from utils.hub import check_push_access
from utils.metrics.baselines import nearest_answers
from utils.modeling import check_float16, get_quantization_config, load_base_model, load_config
from utils.positions import check_positions
from utils.privacy.identifiers import warn_of_identifiers
from utils.prompts import earlier_turns, prompt_settings, prompt_turns, tokenize_dialogues
from utils.push import push
from utils.reporting.card import write_card
from utils.reporting.console import closing
from utils.reporting.report import write_report
from utils.run import describe_run, peak_memory, start_run
from utils.sampling import set_train_order, shortest_first
from utils.templates import check_adapted, fill_template, option_answers
from utils.tokenizers import unread
from utils.training import add_early_stopping, save_model, train_or_resume

logger = logging.getLogger(__name__)


@dataclass
class QAArguments:
    """Arguments of this task, in addition to those in `utils`."""

    dataset_format: str = field(
        default="auto", metadata={"help": f"Shape of the rows, see docs/data.md: auto, {', '.join(FORMATS)}."}
    )
    question_column: str | None = field(default=None, metadata={"help": "Question column; defaults to `question`."})
    answer_column: str | None = field(default=None, metadata={"help": "Answer column; defaults to `answer`."})
    context_column: str | None = field(default=None, metadata={"help": "Column of a text that contains the answer."})
    options_column: list[str] | None = field(
        default=None, metadata={"help": "Multiple choice: one column of options, or one column per option."}
    )
    answer_index_column: str | None = field(
        default=None, metadata={"help": "Right option: its letter, text or place."}
    )
    answer_index_base: int | None = field(default=None, metadata={"help": "Number of the first place, 0 or 1."})
    prompt_template: str | None = field(
        default=None, metadata={"help": "User turn; {question}, {context}, {options}, {examples}."}
    )
    retrieve_examples: int = field(
        default=0, metadata={"help": "Show this many similar training questions, with their answers, in each prompt."}
    )
    system_prompt: str | None = field(default=None, metadata={"help": "System message of the chat template."})
    augmentation_factor: int = field(default=1, metadata={"help": "Rows per training row, with paraphrases."})
    curriculum: bool = field(default=False, metadata={"help": "Train on short rows first."})
    max_new_tokens: int = field(default=256, metadata={"help": "Maximum tokens of a generated answer."})
    early_stopping_patience: int | None = field(default=None, metadata={"help": "Evaluations without improvement."})
    repetition_penalty: float = field(default=1.0, metadata={"help": "Above 1 discourages repetition."})

    def __post_init__(self) -> None:
        if bool(self.options_column) != bool(self.answer_index_column):
            raise UserError("`options_column` and `answer_index_column` go together: give both or neither.")
        if self.answer_column and self.options_column:
            raise UserError("`answer_column` and `options_column` exclude each other: the right option is the answer.")
        check_examples(self.retrieve_examples, self.prompt_template, self.options_column)


ARGUMENTS = (ModelConfig, DataArguments, QAArguments, SFTConfig)


# ----- ADAPT HERE: one row of your data -> the turns of a dialogue, the last of which the model should answer
def to_messages(row: Mapping[str, Any], task: Mapping[str, Any]) -> list[Turn]:
    """Return the turns of a row, which end with the correct answer. `predict.py` sees rows without an answer and knows
    only the `prompt_template` in `task.json`, so the user's turn has to come from there; section 2 checks this."""
    columns = task["columns"]
    user = fill_template(task["prompt_template"], columns, row)
    if columns["options"]:
        answer = option_answers(row[columns["options"]])[row[columns["answer_index"]]]
    else:
        answer = row[columns["answer"]]
    return [*earlier_turns(row, task), {"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def to_training_rows(
    split: Dataset, tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any]
) -> tuple[Dataset, dict[str, Any]]:
    """Tokenize a split for the trainer, with -100 as the label of what the user says: the loss skips these tokens, so
    the model learns to answer, not to ask. A row whose prompt alone fills `max_length` is dropped."""
    counts: Counter[str] = Counter()

    def tokenize(batch: dict[str, list]) -> dict[str, list]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        examples, found = tokenize_dialogues(tokenizer, task, [to_messages(row, task) for row in rows])
        counts.update(found)
        return {key: [example[key] for example in examples] for key in ("input_ids", "labels")}

    tokenized = split.map(tokenize, batched=True, remove_columns=split.column_names, desc="Tokenizing")
    if not len(tokenized):
        raise UserError(f"`max_length` is {task['max_length']} tokens, which every prompt fills: increase it.")
    texts = [turn["content"] for row in split for turn in to_messages(row, task)]
    return tokenized, dict(counts) | unread(tokenizer, texts, tokenized["input_ids"])


def to_rows(split: Dataset, task: Mapping[str, Any]) -> dict[str, list]:
    """Return a split as columns for the evaluation."""
    table, columns = split.to_list(), task["columns"]
    dialogues = [to_messages(row, task) for row in table]
    rows = {"id": split["id"][:], "cluster": split["_cluster"][:], "turns": [turns[:-1] for turns in dialogues]}
    rows["source"] = [
        plain_text("\n".join(turn["content"] for turn in asked if turn["role"] != "system"))
        for asked in (to_messages(row | {COLUMN: ""}, task)[:-1] for row in table)
    ]
    rows["question"] = split[columns["question"]][:]
    rows["reference"] = [turns[-1]["content"] for turns in dialogues]
    if column := columns["options"]:
        # Models favor some positions: the share of answers that change with the order shows how much
        moved = shuffled_rows(table, column, task["evaluation"]["seed"])
        rows |= {"options": split[column][:], "answer_index": split[columns["answer_index"]][:]}
        rows["shuffled_options"] = [row[column] for row in moved]
        rows["shuffled_turns"] = [to_messages(row, task)[:-1] for row in moved]
    return rows


def make_task(
    args: QAArguments, training_args: SFTConfig, tokenizer: PreTrainedTokenizerBase, columns: Columns, train: Dataset
) -> dict[str, Any]:
    """Return the content of `task.json`: what serving needs to ask a question exactly as training did."""
    roles = {
        "question": columns.input,
        "context": next(iter(columns.optional), None),
        "options": columns.options,
        "answer": columns.target,
        "answer_index": columns.index,
        "examples": COLUMN if args.retrieve_examples else None,
    }
    parts = [role for role in ("examples", "context", "question", "options") if roles[role]]
    # Greedy: a question gets the same answer every time, while defaults of base models such as Llama sample
    generation = {"do_sample": False, **{key: getattr(args, key) for key in ("max_new_tokens", "repetition_penalty")}}
    task = {
        "task": "qa",
        "columns": roles,
        "raw_columns": columns.to_dict(),  # a row is read by these, then the roles name its columns
        **prompt_settings(tokenizer, args.system_prompt, args.prompt_template, parts),
        "max_length": training_args.max_length,
        "retrieve_examples": args.retrieve_examples,
        "generation": generation,
        "evaluation": {"seed": training_args.seed},
    }
    check_adapted(lambda row: to_messages(row, task)[:-1], task, train, read=prompt_turns)
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
    output_dir = Path(str(training_args.output_dir))
    # Trainer would push at every save: held back so that nothing is published before it is evaluated
    push_to_hub, training_args.push_to_hub = training_args.push_to_hub, False
    repo_id = training_args.hub_model_id or output_dir.name
    if push_to_hub:  # a missing token is noticed now, not after hours of training
        repo_id = check_push_access(repo_id, private=training_args.hub_private_repo)
    model_args, first_adapter = find_adapter(model_args, given)  # an adapter is trained further, on its base model

    # ----- 2. Data
    tokenizer = load_chat_tokenizer(model_args, training_args, first_adapter)  # first, since the data may take minutes
    lengths = {"max_length": training_args.max_length, "max_new_tokens": qa_args.max_new_tokens}
    device, remote_code = training_args.device, training_args.trust_remote_code
    check_positions(load_config(model_args, remote_code), remote_code, lengths)
    check_extra_metrics(data_args.extra_metrics, remote_code, ["text"])  # one that fails does so now
    # Near-duplicate questions stay in one split: otherwise the test would reward memorization
    columns = question_columns(
        data_args, qa_args.dataset_format, qa_args.question_column, qa_args.answer_column, qa_args.context_column,
        qa_args.options_column, qa_args.answer_index_column, qa_args.answer_index_base,
    )  # fmt: skip
    clustered = [name for name in (columns.input, columns.target) if name]
    splits, results = load_splits(data_args, columns, cluster_columns=clustered, seed=training_args.seed)
    task = make_task(qa_args, training_args, tokenizer, columns, splits["train"])
    splits, examples, example_counts = add_examples(splits, task, tokenizer)
    # After the split, and only here: variants of a test question in training would leak it
    train = augment(splits["train"], columns, qa_args.augmentation_factor, training_args.seed)
    train_dataset, train_counts = to_training_rows(train, tokenizer, task)
    eval_dataset, eval_counts = to_training_rows(splits["validation"], tokenizer, task)
    counts = {"train": train_counts, "validation": eval_counts}
    results |= example_counts | {f"data_{split}_{key}": n for split, own in counts.items() for key, n in own.items()}
    train_dataset = shortest_first(train_dataset, training_args) if qa_args.curriculum else train_dataset

    # ----- 3. Model
    quantization = get_quantization_config(model_args, device)
    load_model = partial(load_base_model, model_args, AutoModelForCausalLM, quantization, device, remote_code)
    base = load_model()
    check_float16(base, model_args, training_args)
    task |= describe_run(model_args, data_args, given, base, device)
    model = add_adapter(base, model_args, task, first_adapter=first_adapter)

    # ----- 4. Trainer
    from trl import SFTTrainer  # here: it imports wandb, and a mistake above would be reported seconds later

    with library_checks("SFTTrainer"):
        trainer = SFTTrainer(
            model=model,
            args=training_args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
        )
    set_train_order(trainer, trainer.train_dataset)  # from seed and epoch only, so a resumed run repeats it
    if training_args.fp16:  # the gradient scaler of fp16 needs float32 adapters, and TRL makes bfloat16 ones
        upcast_trainable_weights(model)
    add_early_stopping(trainer, qa_args.early_stopping_patience, checkpoint)
    results |= count_parameters(model)

    # ----- 5. Train
    results |= train_or_resume(trainer, checkpoint)
    save_model(trainer)  # with LoRA only the adapter, a few MB
    if examples and trainer.is_world_process_zero():
        examples.save(output_dir)  # to `_private/`: training rows are never pushed

    # ----- 6. Evaluate
    model = trained_model(trainer)  # without the trainer's autocast: in the precision of its weights, as it is served
    rows = {split: to_rows(splits[split], task) for split in ("validation", "test")}
    test, size = rows["test"], training_args.per_device_eval_batch_size
    # Validation answers calibrate confidence. Generation is slow: 300 rows from all clusters, 100 per third of it
    rows["validation"] = in_turns(rows["validation"], training_args.seed)
    limit = MAX_ROWS if data_args.evaluate_test else 0
    outputs = {"validation": predict_answers(model, tokenizer, rows["validation"], task, size, "validation", limit)}
    task |= calibrate(outputs["validation"], rows["validation"])
    if data_args.evaluate_test:
        outputs["test"] = predict_answers(model, tokenizer, test, task, size, "tuned model")
        for name, earlier in earlier_models(model, load_model, first_adapter):  # with the adapter switched off
            outputs[name] = predict_answers(earlier, tokenizer, test, task, size, STAGES[name], with_confidence=False)
        _, prompts, answers, cut = tokenize_turns(tokenizer, task, test["turns"], test["reference"])
        texts = [turn["content"] for turns in test["turns"] for turn in turns] + test["reference"]
        cut |= unread(tokenizer, texts, prompts + answers)
        results |= {f"data_test_{key}": n for key, n in cut.items()}
        results |= measure_latency(model, tokenizer, prompts[:20], task)  # one by one, as in the app
    if trainer.is_world_process_zero():
        if data_args.evaluate_test:  # copying the answer to the most similar training question beats many small models
            known = to_rows(splits["train"], task)
            texts = nearest_answers(known["question"], known["reference"], test["question"])
            outputs["baseline_nearest_question_test"] = {"prediction": texts}
        measured = results | peak_memory() | run_identity(output_dir, device) | warn_of_identifiers(splits["train"])
        found, files = evaluate(rows, outputs, task)  # from arrays alone; `python -m utils.evaluation` repeats it
        results = measured | found

    # ----- 7. Report
    if trainer.is_world_process_zero():
        save_outputs(output_dir, rows, outputs, measured, repo_id)  # to `_private/`, never pushed: texts of patients
        write_results(output_dir, task, results, files)
        if data_args.evaluate_test:
            print(closing(write_card(output_dir, repo_id), write_report(output_dir)))

    # ----- 8. Hub
    if push_to_hub and trainer.is_world_process_zero():  # files of an allow-list, in one commit
        private, revision = training_args.hub_private_repo, training_args.hub_revision
        logger.info("pushed to %s", push(output_dir, repo_id, private, revision))
    trainer.accelerator.wait_for_everyone()  # no process may leave the group while another still writes
    trainer.end()


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe(ARGUMENTS, description=__doc__))
