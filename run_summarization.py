"""Fine-tune an encoder-decoder to summarize dialogues or notes, and count what its summaries leave out or invent.

    accelerate launch run_summarization.py recipes/flan_t5_lora.yaml
    accelerate launch run_summarization.py recipes/flan_t5_lora.yaml --train_file visits.csv --summary_column note

To use your own data name its columns in the recipe. To change what the model sees edit `text_template` in the recipe,
or `to_source_and_summary` below.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    EarlyStoppingCallback,
    PreTrainedConfig,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from trl import ModelConfig

from utils.arguments import LONG_TEXTS, DataArguments, UserError, library_checks, parse_recipe, user_errors
from utils.chunking import cut_sources
from utils.data.load import load_splits
from utils.evaluation.error_analysis import write_predictions
from utils.evaluation.summary_analysis import PATTERN_ADVICE, analyse_summaries, summary_error_patterns
from utils.factuality import factuality_statistics, find_hallucinations, find_omissions
from utils.generation import measure_latency, set_generation
from utils.hub import check_push_access, push
from utils.json_files import write_json
from utils.metrics.baselines import nearest_answers
from utils.metrics.intervals import evaluate_statistics, paired_difference, resampling_weights
from utils.metrics.summaries import (
    bert_scores,
    bert_statistics,
    check_bertscore_model,
    summary_baselines,
    summary_statistics,
)
from utils.modeling import (
    autocast_dtype,
    count_parameters,
    get_lora_config,
    get_quantization_config,
    load_base_model,
    load_tokenizer,
)
from utils.prompts import check_adapted, fill_template
from utils.reporting.card import write_card
from utils.reporting.report import write_report
from utils.reporting.tables import results_table
from utils.run import describe_run, end_on_validation, make_readable, peak_memory, start_run, train_or_resume
from utils.sampling import EpochSampler, set_train_order
from utils.seq2seq import (
    check_lengths,
    check_seq2seq_training,
    encode_pairs,
    end_token,
    generation_metrics,
    load_seq2seq_config,
    pair_losses,
    token_loss,
    write_summaries,
)

logger = logging.getLogger(__name__)


@dataclass
class SummarizationArguments:
    """What this task adds."""

    text_column: str = field(default="text", metadata={"help": "What to summarize, such as a dialogue."})
    summary_column: str = field(default="summary", metadata={"help": "Its summary."})
    text_template: str = field(
        default="{text}", metadata={"help": "Text with {text} and any of `keep_columns`; T5 wants an instruction."}
    )
    max_source_length: int = field(default=512, metadata={"help": "Tokens that the model reads at once."})
    max_target_length: int = field(default=256, metadata={"help": "Most tokens of a summary to learn from."})
    long_texts: str = field(
        default="head",
        metadata={"help": "Of a longer text: its head, head and tail, or chunks.", "choices": LONG_TEXTS},
    )
    max_chunks: int = field(default=8, metadata={"help": "With `long_texts: chunks`, most chunks of one text."})
    max_new_tokens: int = field(default=256, metadata={"help": "Longest generated summary (of a chunk), in tokens."})
    num_beams: int = field(default=1, metadata={"help": "Beams of the search; 1 is greedy, and fastest."})
    length_penalty: float = field(default=1.0, metadata={"help": "Of the beam search; above 1: longer summaries."})
    no_repeat_ngram_size: int = field(default=0, metadata={"help": "No n-gram of this size twice; 0: any may be."})
    use_stemmer: bool = field(default=False, metadata={"help": "Porter stemming in ROUGE."})
    bertscore_model: str | None = field(
        default=None, metadata={"help": "Encoder for BERTScore, a folder or on the Hub; none: no BERTScore."}
    )
    bertscore_layer: int | None = field(default=None, metadata={"help": "Its layer; the known one by default."})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations that are no better."}
    )

    def __post_init__(self) -> None:
        for key in ("max_chunks", "num_beams", "early_stopping_patience"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise UserError(f"`{key}` is {getattr(self, key)}: give 1 or more.")
        if self.no_repeat_ngram_size < 0:
            raise UserError(f"`no_repeat_ngram_size` is {self.no_repeat_ngram_size}: give 0 or more.")
        if self.length_penalty != 1 and self.num_beams == 1:
            raise UserError("`length_penalty` is of the beam search: give `num_beams` above 1 with it.")
        if self.bertscore_layer and not self.bertscore_model:
            raise UserError("`bertscore_layer` is given without `bertscore_model`: give both.")


ARGUMENTS = (ModelConfig, DataArguments, SummarizationArguments, Seq2SeqTrainingArguments)


# ----- ADAPT HERE: one row of your data -> what the model reads, what it should write
def to_source_and_summary(row: dict[str, Any], task: dict[str, Any]) -> tuple[str, str]:
    """Return what the model reads of a row, and its summary. `predict.py` knows `text_template` alone (`task.json`
    keeps it), so what the model reads has to come from there; a check in section 2 holds you to that."""
    columns = task["columns"]
    return fill_template(task["text_template"], columns, row, "text_template"), row[columns["summary"]]


def to_pairs(split: Dataset, tokenizer: Any, task: dict[str, Any]) -> tuple[dict[str, list], dict[str, int]]:
    """A split as lists, and counts of what was cut.

    Returns:
        a value a row: `texts` and `references`; `chunks`, what the model reads; `cut`, whether a part of the text is
        in none. A value a chunk: `input_ids`, `labels`, and `row`, which it is of.
    """
    rows = split.to_list()
    texts = [row[task["columns"]["text"]] for row in rows]
    references = [to_source_and_summary(row, task)[1] for row in rows]
    chunks, lost = cut_sources(tokenizer, rows, task)
    ids, labels, owners, cut_summaries = encode_pairs(tokenizer, chunks, references, task["max_target_length"])
    longer = sum(len(r.split()) > len(t.split()) for t, r in zip(texts, references, strict=True))
    counts = {"cut_sources": sum(n > 0 for n in lost), "lost_source_tokens": sum(lost)}
    counts |= {"cut_summaries": cut_summaries, "longer_summaries": longer}
    pairs = {"texts": texts, "references": references, "chunks": chunks, "cut": [n > 0 for n in lost]}
    return pairs | {"input_ids": ids, "labels": labels, "row": owners}, counts


def make_task(
    args: SummarizationArguments, config: PreTrainedConfig, tokenizer: Any, train: Dataset
) -> dict[str, Any]:
    """Return what serving needs to read a text and to write as the evaluation did, for `task.json`."""
    lengths = ("max_source_length", "max_target_length", "max_new_tokens")
    generation = ("max_new_tokens", "num_beams", "no_repeat_ngram_size")
    check_lengths(config, tokenizer, **{key: getattr(args, key) for key in lengths})
    beams = {"length_penalty": args.length_penalty, "early_stopping": True} if args.num_beams > 1 else {}
    task = {
        "task": "summarization",
        "columns": {"text": args.text_column, "summary": args.summary_column},
        "text_template": args.text_template,
        **{key: getattr(args, key) for key in (*lengths[:2], "long_texts", "max_chunks")},
        "stop": end_token(tokenizer),
        "generation": {"do_sample": False, **{key: getattr(args, key) for key in generation}} | beams,
    }
    check_adapted(lambda row: to_source_and_summary(row, task)[0], task, train, "text_template")
    return task


def row_statistics(
    written: dict[str, list[str]], test: dict[str, list], args: SummarizationArguments, device: Any, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Row statistics of what each system has written: overlap, length, facts, and BERTScore if the recipe asks."""
    given = (test["references"], test["texts"])
    statistics = {
        name: summary_statistics(texts, *given, args.use_stemmer) | factuality_statistics(texts, *given)
        for name, texts in written.items()
    }
    if args.bertscore_model:
        every = [text for texts in written.values() for text in texts]
        model = (args.bertscore_model, args.bertscore_layer, device, batch_size)
        scores = bert_scores(every, test["references"] * len(written), *model)
        for name, own in zip(written, np.split(scores, len(written)), strict=True):
            statistics[name] |= bert_statistics(own)
    return statistics


def main(
    model_args: ModelConfig,
    data_args: DataArguments,
    summary_args: SummarizationArguments,
    training_args: Seq2SeqTrainingArguments,
    given: dict[str, Any],
) -> None:
    # ----- 1. Setup
    check_seq2seq_training(training_args, summary_args.early_stopping_patience)
    checkpoint = start_run(training_args, given, ARGUMENTS)
    output_dir = Path(training_args.output_dir)
    # Trainer pushes at every save: hold that back until the evaluation is done
    push_to_hub, training_args.push_to_hub = training_args.push_to_hub, False
    repo_id = training_args.hub_model_id or output_dir.name
    if push_to_hub:
        repo_id = check_push_access(repo_id, private=training_args.hub_private_repo)

    # ----- 2. Data
    config = load_seq2seq_config(model_args, training_args.fp16)
    if summary_args.bertscore_model:
        _, bertscore_name = check_bertscore_model(summary_args.bertscore_model, summary_args.bertscore_layer)
    splits, results = load_splits(
        data_args,
        input_column=summary_args.text_column,
        target_column=summary_args.summary_column,
        cluster_columns=[summary_args.text_column],
        seed=training_args.seed,
    )
    tokenizer = load_tokenizer(model_args)
    task = make_task(summary_args, config, tokenizer, splits["train"])
    pairs = {}
    for name, split in splits.items():
        pairs[name], counts = to_pairs(split, tokenizer, task)
        results |= {f"data_{name}_{key}": value for key, value in counts.items()}
    train, validation, test = (pairs[name] for name in ("train", "validation", "test"))
    if (longer := results["data_train_longer_summaries"]) > len(train["texts"]) / 2:
        logger.warning(
            "%d of %d training summaries are longer than their text: are `text_column: %s` and `summary_column: %s` "
            "the wrong way round?", longer, len(train["texts"]), summary_args.text_column, summary_args.summary_column,
        )  # fmt: skip

    # ----- 3. Model
    device = training_args.device
    autocast_dtype(model_args, training_args)  # refuses a `dtype` that does not go with `bf16`, `fp16`
    quantization = get_quantization_config(model_args, device)
    load = (model_args, AutoModelForSeq2SeqLM, quantization, device)
    model = load_base_model(*load)
    generation = (tokenizer, task["stop"], task["generation"])
    set_generation(model, *generation)
    peft_config = get_lora_config(model_args, model, "SEQ_2_SEQ_LM")
    task |= describe_run(model_args, data_args, model, device)
    if peft_config:
        model = get_peft_model(model, peft_config)

    # ----- 4. Trainer
    train_dataset, eval_dataset = (
        Dataset.from_dict({key: pairs[key] for key in ("input_ids", "labels")}) for pairs in (train, validation)
    )
    compute_metrics = generation_metrics(tokenizer, summary_args.use_stemmer)
    with library_checks("Seq2SeqTrainer"):
        trainer = Seq2SeqTrainer(
            model=model,
            args=training_args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model),  # the model shifts the labels for its decoder
            processing_class=tokenizer,
            compute_loss_func=token_loss(training_args.label_smoothing_factor),
            compute_metrics=compute_metrics if training_args.predict_with_generate else None,
        )
    if summary_args.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(summary_args.early_stopping_patience))
    if training_args.train_sampling_strategy == "group_by_length":
        lengths, targets = ([len(ids) for ids in train[key]] for key in ("input_ids", "labels"))
        batch_size = training_args.train_batch_size * training_args.world_size
        sampler = EpochSampler(lengths, batch_size, training_args.seed, grouped=True, target_lengths=targets)
        set_train_order(trainer, sampler)
    results |= count_parameters(trainer.model)

    # ----- 5. Train
    results |= train_or_resume(trainer, checkpoint)
    trainer.save_model()
    trainer.save_state()

    # ----- 6. Evaluate
    batch_size, seed = training_args.per_device_eval_batch_size, training_args.seed
    # without the trainer's autocast: in the precision of the weights, as they are served
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    weights = resampling_weights(len(validation["texts"]), seed, splits["validation"]["cluster"])
    loss = pair_losses(model, validation, tokenizer.pad_token_id, batch_size, "validation: loss")
    results |= evaluate_statistics(loss, weights, "eval")
    if not data_args.evaluate_test:
        end_on_validation(trainer, task, results)
        return

    asked = (tokenizer, test, task, batch_size)
    predictions, finished, tuned = write_summaries(model, *asked, "tuned model")
    if model_args.use_peft:
        with model.disable_adapter():
            base_predictions, _, base = write_summaries(model, *asked, "base model")
    else:
        base_model = load_base_model(*load)
        set_generation(base_model, *generation)
        base_predictions, _, base = write_summaries(base_model, *asked, "base model")
    sources, references = test["texts"], test["references"]
    baselines = summary_baselines(sources, train["references"])
    baselines["nearest_source"] = nearest_answers(train["texts"], train["references"], sources)
    written = {"test": predictions, "base_test": base_predictions}
    written |= {f"baseline_{name}_test": texts for name, texts in baselines.items()}
    statistics = row_statistics(written, test, summary_args, device, batch_size)
    statistics["test"] |= tuned
    statistics["base_test"] |= base
    results["use_stemmer"] = summary_args.use_stemmer
    if summary_args.bertscore_model:
        results["bertscore_model"] = bertscore_name
    weights = resampling_weights(len(sources), seed, splits["test"]["cluster"])
    for name, own in statistics.items():
        results |= evaluate_statistics(own, weights, name)
    tuned = statistics.pop("test")
    for name, own in statistics.items():
        results |= paired_difference({key: tuned[key] for key in own}, own, weights, f"delta_{name}")
    results |= measure_latency(model, tokenizer, test["input_ids"][:20], task)
    hallucinations = [find_hallucinations(s, p) for s, p in zip(sources, predictions, strict=True)]
    omissions = [find_omissions(r, p) for r, p in zip(references, predictions, strict=True)]
    found = (hallucinations, omissions, tuned)
    patterns = summary_error_patterns(predictions, references, sources, finished, test["cut"], *found)
    results |= {f"errors_{name}": len(rows) for name, rows in patterns.items()}
    results |= peak_memory()
    analysis = analyse_summaries(predictions, references, sources, test["cut"], *found, weights)
    shown = {"id": splits["test"]["id"], "source": sources, "prediction": predictions, "reference": references}
    shown |= {"base_prediction": base_predictions, "finished": finished, "cut": test["cut"]}
    shown |= {"hallucinations": hallucinations, "omissions": omissions}
    rows = [dict(zip(shown, values, strict=True)) for values in zip(*shown.values(), strict=True)]
    if trainer.is_world_process_zero():
        write_json(output_dir / "analysis.json", analysis)

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
