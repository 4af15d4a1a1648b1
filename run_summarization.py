"""Fine-tune an encoder-decoder or a decoder to summarize dialogues or notes, and count omissions and hallucinations.

    accelerate launch --quiet run_summarization.py recipes/flan_t5_lora.yaml
    accelerate launch --quiet run_summarization.py recipes/flan_t5_lora.yaml \
        --train_file visits.csv --no_validation_file --no_test_file --summary_column note

To use your own data, name its columns in the recipe. To change what the model reads, edit `text_template` in the
recipe, or `to_source_and_summary` below.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import utils  # noqa: F401  # before torch and bitsandbytes, whose threads and messages it settles

# isort: split
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from trl import ModelConfig

from utils.adapters import add_adapter, count_parameters, find_adapter
from utils.arguments import LONG_TEXTS, DataArguments, UserError, library_checks, parse_recipe, user_errors
from utils.chat import settle_chat_template
from utils.control_tokens import keep_control_tokens
from utils.data.columns import Columns
from utils.data.load import load_splits
from utils.evaluation.identity import run_identity
from utils.evaluation.models import STAGES, earlier_models, measure_latency, trained_model
from utils.evaluation.outputs import save_outputs, write_results
from utils.evaluation.summaries import predict_summaries
from utils.evaluation.summarization import evaluate
from utils.extra_metrics import check_extra_metrics
from utils.hub import check_push_access
from utils.metrics.baselines import nearest_answers
from utils.metrics.summaries import add_bert_scores, summary_baselines
from utils.modeling import autocast_dtype, get_quantization_config, load_tokenizer
from utils.overlap import check_bertscore_model
from utils.privacy.identifiers import warn_of_identifiers
from utils.push import push
from utils.reporting.card import write_card
from utils.reporting.console import closing
from utils.reporting.summary_report import write_report
from utils.run import describe_run, peak_memory, start_run
from utils.sampling import set_train_order
from utils.seq2seq import (
    DecoderCollator,
    check_lengths,
    check_seq2seq_training,
    decoder_settings,
    encode_pairs,
    generation_metrics,
    load_for_generation,
    load_seq2seq_config,
    token_loss,
    training_rows,
)
from utils.templates import check_adapted, fill_template
from utils.tokenizers import unread
from utils.training import add_early_stopping, save_model, train_or_resume
from utils.words import count_words

logger = logging.getLogger(__name__)


@dataclass
class SummarizationArguments:
    """Arguments of this task, in addition to those in `utils`."""

    text_column: str = field(default="text", metadata={"help": "Column of the text to summarize, such as a dialogue."})
    summary_column: str = field(default="summary", metadata={"help": "Column of its summary."})
    text_template: str = field(
        default="{text}", metadata={"help": "Text with {text} and any of `keep_columns`; T5 needs an instruction."}
    )
    max_source_length: int = field(default=512, metadata={"help": "Maximum tokens the model reads at once."})
    max_target_length: int = field(default=256, metadata={"help": "Maximum tokens of a training summary."})
    long_texts: str = field(
        default="head",
        metadata={"help": "Reading of longer texts: head, head and tail, or chunks.", "choices": LONG_TEXTS},
    )
    max_chunks: int = field(
        default=8, metadata={"help": "Maximum chunks per text.", "needs": ("long_texts", ("chunks",))}
    )
    max_new_tokens: int = field(default=256, metadata={"help": "Maximum tokens of a generated summary, per chunk."})
    num_beams: int = field(default=1, metadata={"help": "Beams of the search; 1 is greedy."})
    length_penalty: float = field(default=1.0, metadata={"help": "Above 1 favors longer summaries; needs beams."})
    no_repeat_ngram_size: int = field(default=0, metadata={"help": "Never repeat an n-gram of this size; 0 is off."})
    use_stemmer: bool = field(default=False, metadata={"help": "Use Porter stemming in ROUGE."})
    bertscore_model: str | None = field(
        default=None, metadata={"help": "Encoder for BERTScore, a folder or Hub id; omitted by default."}
    )
    bertscore_layer: int | None = field(default=None, metadata={"help": "Its layer; defaults to the recommended one."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code from the model repository."})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without improvement."}
    )

    def __post_init__(self) -> None:
        if self.length_penalty != 1 and self.num_beams == 1:
            raise UserError("`length_penalty` needs a beam search: set `num_beams` above 1, too.")
        if self.bertscore_layer and not self.bertscore_model:
            raise UserError("`bertscore_layer` is given without `bertscore_model`: give both.")


ARGUMENTS = (ModelConfig, DataArguments, SummarizationArguments, Seq2SeqTrainingArguments)


# ----- ADAPT HERE: one row of your data -> the text that the model reads, the summary that it should write
def to_source_and_summary(row: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[str, str]:
    """Return the model input and the summary of a row. `predict.py` knows only `text_template`, which `task.json`
    stores, so everything that the model reads has to come from there; section 2 checks this."""
    columns = task["columns"]
    return fill_template(task["text_template"], columns, row, "text_template"), row[columns["summary"]]


def to_pairs(
    split: Dataset, tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any]
) -> tuple[dict[str, list], dict[str, Any]]:
    """Return a split as columns for the evaluation, and its pairs of source and summary.

    A long source is split into chunks. The pairs have `chunks` (the model inputs of each row), and `tokens`, with one
    row per chunk: `input_ids`, `labels`, and `row`, the row of the chunk.
    """
    table = split.to_list()
    rows = {"id": split["id"][:], "cluster": split["_cluster"][:], "text": split[task["columns"]["text"]][:]}
    rows["reference"] = [to_source_and_summary(row, task)[1] for row in table]
    # Each chunk learns only its own sentences of the summary: asked for the others, it would learn to invent them
    chunks, lost, tokens, cut_summaries = encode_pairs(tokenizer, table, rows["reference"], task)
    rows["cut"] = [n > 0 for n in lost]
    # A summary longer than its text is a sign of swapped columns, which `main` warns about
    longer = sum(count_words(r) > count_words(t) for t, r in zip(rows["text"], rows["reference"], strict=True))
    counts = {"cut_sources": sum(rows["cut"]), "lost_source_tokens": sum(lost)}
    counts |= {"cut_summaries": cut_summaries, "longer_summaries": longer}
    ids = (own[column] for own in tokens for column in ("input_ids", "labels"))
    counts |= unread(tokenizer, [text for own in chunks for text in own] + rows["reference"], ids)
    return rows, {"chunks": chunks, "tokens": tokens, "counts": counts}


def make_task(
    args: SummarizationArguments,
    config: PreTrainedConfig,
    training_args: Seq2SeqTrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    columns: Columns,
    train: Dataset,
) -> dict[str, Any]:
    """Return the content of `task.json`: what serving needs to read a text and generate as the evaluation did."""
    lengths = ("max_source_length", "max_target_length", "max_new_tokens")
    generation = ("max_new_tokens", "num_beams", "no_repeat_ngram_size")
    check_lengths(config, args.trust_remote_code, **{key: getattr(args, key) for key in lengths})
    settings = (args.text_template, args.no_repeat_ngram_size, training_args.predict_with_generate)
    # Both belong to beam search, and transformers warns about them without beams
    beams = {"length_penalty": args.length_penalty, "early_stopping": True} if args.num_beams > 1 else {}
    task = {
        "task": "summarization",
        "columns": {"text": args.text_column, "summary": args.summary_column},
        "raw_columns": columns.to_dict(),
        "text_template": keep_control_tokens(tokenizer, args.text_template),
        **{key: getattr(args, key) for key in (*lengths[:2], "long_texts", "max_chunks")},
        **decoder_settings(config, tokenizer, *settings),
        # Greedy or beam search instead of sampling: a note gets the same summary every time
        "generation": {"do_sample": False, **{key: getattr(args, key) for key in generation}} | beams,
        "evaluation": {"seed": training_args.seed, "use_stemmer": args.use_stemmer, "bertscore_model": None},
    }
    check_adapted(lambda row: to_source_and_summary(row, task)[0], task, train, "text_template")
    return task


def main(
    model_args: ModelConfig,
    data_args: DataArguments,
    summary_args: SummarizationArguments,
    training_args: Seq2SeqTrainingArguments,
    given: dict[str, Any],
) -> None:
    # ----- 1. Setup
    check_seq2seq_training(training_args)
    checkpoint = start_run(training_args, given, ARGUMENTS)
    output_dir = Path(str(training_args.output_dir))
    # Trainer would push at every save: held back so that nothing is published before it is evaluated
    push_to_hub, training_args.push_to_hub = training_args.push_to_hub, False
    repo_id = training_args.hub_model_id or output_dir.name
    if push_to_hub:  # a missing token is noticed now, not after hours of training
        repo_id = check_push_access(repo_id, private=training_args.hub_private_repo)
    model_args, first_adapter = find_adapter(model_args, given)  # an adapter is trained further, on its base model

    # ----- 2. Data
    remote_code = summary_args.trust_remote_code
    config = load_seq2seq_config(model_args, training_args.fp16, remote_code)  # first, since the data may take minutes
    tokenizer = load_tokenizer(model_args, remote_code, first_adapter)
    settle_chat_template(tokenizer)  # of a decoder
    layer, name = check_bertscore_model(summary_args.bertscore_model, summary_args.bertscore_layer)
    check_extra_metrics(data_args.extra_metrics, remote_code, ["text"])  # one that fails does so now
    # Near-duplicate texts stay in one split: otherwise the test would reward memorization
    columns = Columns(
        input=summary_args.text_column,
        target=summary_args.summary_column,
        kept=tuple(data_args.keep_columns or ()),
        strip_pattern=data_args.strip_pattern,
        lowercase=data_args.lowercase,
    )
    splits, results = load_splits(data_args, columns, cluster_columns=[columns.input], seed=training_args.seed)
    task = make_task(summary_args, config, training_args, tokenizer, columns, splits["train"])
    task["evaluation"]["bertscore_model"] = name
    rows, pairs = {}, {}
    for split, table in splits.items():
        rows[split], pairs[split] = to_pairs(table, tokenizer, task)
        results |= {f"data_{split}_{key}": value for key, value in pairs[split]["counts"].items()}
    if (longer := results["data_train_longer_summaries"]) > len(splits["train"]) / 2:
        named = f"`text_column: {summary_args.text_column}` and `summary_column: {summary_args.summary_column}`"
        logger.warning("%d of %d summaries are longer than their text: swap %s?", longer, len(splits["train"]), named)

    # ----- 3. Model
    device = training_args.device
    autocast_dtype(model_args, training_args)  # rejects a `dtype` that cannot be trained with `bf16` and `fp16`
    quantization = get_quantization_config(model_args, device)
    load_model = partial(load_for_generation, model_args, quantization, device, tokenizer, task, remote_code)
    base = load_model()
    task |= describe_run(model_args, data_args, given, base, device)
    model = add_adapter(base, model_args, task, first_adapter=first_adapter)

    # ----- 4. Trainer
    datasets = {split: training_rows(own["tokens"], task.get("chat")) for split, own in pairs.items()}
    compute_metrics = generation_metrics(tokenizer, summary_args.use_stemmer)
    collate = DecoderCollator if "chat" in task else DataCollatorForSeq2Seq
    with library_checks("Seq2SeqTrainer"):
        trainer = Seq2SeqTrainer(
            model=model,
            args=training_args,
            train_dataset=datasets["train"],
            eval_dataset=datasets["validation"],
            data_collator=collate(tokenizer, model),  # shifts the labels as this model's decoder needs
            processing_class=tokenizer,
            # A mean over the tokens of the full optimizer step: a mean per micro-batch would weight the tokens of
            # short summaries more, and depend on gradient accumulation (transformers#47688)
            compute_loss_func=token_loss(training_args.label_smoothing_factor),
            compute_metrics=compute_metrics if training_args.predict_with_generate else None,
        )
    add_early_stopping(trainer, summary_args.early_stopping_patience, checkpoint)
    # An encoder-decoder pads sources and summaries separately, so batches are grouped by both lengths
    set_train_order(trainer, datasets["train"], target_lengths=[len(ids) for ids in datasets["train"]["labels"]])
    results |= count_parameters(model)

    # ----- 5. Train
    results |= train_or_resume(trainer, checkpoint)
    save_model(trainer)  # with LoRA only the adapter, a few MB

    # ----- 6. Evaluate
    size = training_args.per_device_eval_batch_size
    tuned = trained_model(trainer)  # without the trainer's autocast: in the precision of its weights, as it is served
    # Validation rows get a loss only, since generation is slow
    outputs = {"validation": predict_summaries(tuned, tokenizer, pairs["validation"], task, size, "validation", False)}
    if data_args.evaluate_test:
        train, test = rows["train"], rows["test"]
        outputs["test"] = predict_summaries(tuned, tokenizer, pairs["test"], task, size, "tuned model")
        # The adapter is switched off: the same weights in the same precision, and no second copy in memory
        for name, earlier in earlier_models(tuned, load_model, first_adapter):
            outputs[name] = predict_summaries(earlier, tokenizer, pairs["test"], task, size, STAGES[name])
        baselines = summary_baselines(test["text"], train["reference"])  # first words, and a copy of the text
        baselines["nearest_source"] = nearest_answers(train["text"], train["reference"], test["text"])
        outputs |= {f"baseline_{name}_test": {"prediction": texts} for name, texts in baselines.items()}
        # One by one, as in the app
        results |= measure_latency(tuned, tokenizer, pairs["test"]["tokens"]["input_ids"][:20], task)
        if summary_args.bertscore_model:
            add_bert_scores(outputs, test["reference"], summary_args.bertscore_model, layer, device, size)
    rows = {"validation": {"cluster": rows["validation"]["cluster"]}, "test": rows["test"]}
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
