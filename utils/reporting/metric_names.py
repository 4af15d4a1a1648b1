"""The systems and metrics in the results of a run, and their display names.

Both are recognized by key prefix in `all_results.json`: `test_*` is the fine-tuned model, `base_test_*` the model
before fine-tuning, `first_adapter_test_*` the adapter that training went on from, `baseline_<name>_test_*` a baseline.
"""

import math
import re
from typing import Any, TypeGuard

# metric -> (display name, better direction); any other metric is shown under its key
METRICS = {
    "child_macro_f1": ("child macro F1", "higher"), "parent_macro_f1": ("parent macro F1", "higher"),
    "path_accuracy": ("path accuracy", "higher"),
    "hierarchical_f1": ("hierarchical F1", "higher"),
    "hierarchical_precision": ("hierarchical precision", "higher"),
    "hierarchical_recall": ("hierarchical recall", "higher"),
    "parent_accuracy": ("parent accuracy", "higher"), "child_accuracy": ("child accuracy", "higher"),
    "child_given_parent_accuracy": ("child accuracy given the true parent", "higher"),
    "parent_ece": ("parent expected calibration error", "lower"),
    "child_ece": ("child expected calibration error", "lower"),
    "parent_brier": ("parent Brier score", "lower"), "child_brier": ("child Brier score", "lower"),
    "parent_loss": ("parent loss", "lower"), "child_loss": ("child loss", "lower"),
    "micro_f1": ("micro F1", "higher"), "macro_f1": ("macro F1", "higher"),
    "samples_f1": ("mean F1 of a text", "higher"),
    "weighted_f1": ("weighted F1", "higher"), "accuracy": ("accuracy", "higher"),
    "many_shot_macro_f1": ("macro F1, over 100 training rows", "higher"),
    "medium_shot_macro_f1": ("macro F1, 20 to 100 training rows", "higher"),
    "few_shot_macro_f1": ("macro F1, under 20 training rows", "higher"),
    **{f"top_{k}_accuracy": (f"top-{k} accuracy", "higher") for k in range(1, 11)},
    "matthews": ("Matthews correlation", "higher"),
    "label_ranking_average_precision": ("label ranking average precision", "higher"),
    "micro_precision": ("micro precision", "higher"), "micro_recall": ("micro recall", "higher"),
    "macro_precision": ("macro precision", "higher"), "macro_recall": ("macro recall", "higher"),
    "weighted_precision": ("weighted precision", "higher"),
    "accuracy_norm": ("length-normalized accuracy", "higher"),
    "generated_accuracy": ("accuracy of the generated letter", "higher"),
    "flip_rate": ("choices changed by option order", "lower"),
    "parse_failure": ("no option letter generated", "lower"),
    "rouge1": ("ROUGE-1", "higher"), "rouge2": ("ROUGE-2", "higher"), "rougeL": ("ROUGE-L", "higher"),
    "rougeLsum": ("ROUGE-Lsum", "higher"), "bleu": ("BLEU", "higher"),
    "omission": ("omission", "lower"), "hallucination": ("hallucination", "lower"),
    "any_hallucination": ("summaries with a hallucination", "lower"),
    "chrf": ("chrF", "higher"), "bertscore_f1": ("BERTScore F1", "higher"),
    "bertscore_precision": ("BERTScore precision", "higher"), "bertscore_recall": ("BERTScore recall", "higher"),
    "loss": ("loss", "lower"),
    "perplexity": ("perplexity", "lower"), "ece": ("expected calibration error", "lower"),
    "brier": ("Brier score", "lower"), "uncalibrated_ece": ("expected calibration error before calibration", "lower"),
    "uncalibrated_brier": ("Brier score before calibration", "lower"),
    "coverage": ("coverage with abstention", "higher"), "selective_risk": ("selective risk", "lower"),
    "shown_to_parent": ("coverage at the parent level", "higher"),
    "shown_to_child": ("coverage at the child level", "higher"),
    "aurc": ("area under the risk-coverage curve", "lower"), "inconsistent": ("inconsistent paths", "lower"),
    "hallucinated_drugs": ("hallucinated drugs per summary", "lower"),
    "hallucinated_findings": ("hallucinated findings per summary", "lower"),
    "hallucinated_numbers": ("hallucinated numbers per summary", "lower"),
    "negation_flips": ("flipped negations per summary", "lower"),
    "wrong_person": ("wrong-person findings per summary", "lower"),
    "wrong_laterality": ("wrong-side findings per summary", "lower"),
    "omitted_drugs": ("omitted drugs per summary", "lower"),
    "omitted_findings": ("omitted findings per summary", "lower"),
    "omitted_numbers": ("omitted numbers per summary", "lower"),
    "repetition": ("repetition", "lower"),
    "length_ratio": ("length ratio", "closer to 1"), "compression": ("compression", "like references"),
    "novel_1gram": ("novel words", "like references"), "novel_2gram": ("novel 2-grams", "like references"),
    "novel_3gram": ("novel 3-grams", "like references"), "novel_4gram": ("novel 4-grams", "like references"),
    "confidence_auroc": ("AUROC of confidence", "higher"), "length_auroc": ("AUROC of length alone", "higher"),
    "confidence_gain": ("AUROC of confidence minus that of length", "higher"),
    "finished": ("finished (not cut off)", "higher"),
}  # fmt: skip
# the first one present is the headline, the first two are in the table and the plot on top of the report
HEADLINES = (
    "child_macro_f1", "parent_macro_f1", "micro_f1", "macro_f1", "accuracy", "rougeL", "any_hallucination",
    "perplexity", "loss",
)  # fmt: skip
NOT_METRICS = re.compile(
    r"(_ci95|_p|_confident|_?(runtime|clusters|per_second|rows|sha256|samples|steps|num_tokens|preparation_time))$"
)
FINDINGS = (
    "hallucinated_drugs", "hallucinated_findings", "hallucinated_numbers", "negation_flips", "wrong_person",
    "wrong_laterality", "omitted_drugs", "omitted_findings", "omitted_numbers",
)  # fmt: skip
NOVEL = ("novel_1gram", "novel_2gram", "novel_3gram", "novel_4gram")
TABLE_ONLY = (
    "loss", "parent_loss", "child_loss", "length_ratio", "finished", "coverage", "shown_to_parent", "shown_to_child",
    "compression", "confidence_auroc", "length_auroc", "confidence_gain", *NOVEL, *FINDINGS,
)  # fmt: skip
MACRO_F1 = (
    "Macro F1 is the mean over the classes that occur in the references or predictions of the test rows, as "
    "scikit-learn's `f1_score` without `labels`; with all classes as `labels`, it would count absent ones as 0."
)
NOTES = {
    "micro_f1": "Micro F1 counts every pair of a text and a label once, so frequent labels decide it. Accuracy is the "
    "share of texts with exactly the right labels. The calibration error is a mean over labels.",
    "macro_f1": MACRO_F1,
    "child_macro_f1": MACRO_F1,
    "bleu": "BLEU goes from 0 to 1: sacrebleu's score, which lm-evaluation-harness prints, divided by 100.",
    "omission": "Omission is the share of the reference's content that the summary lacks or contradicts. "
    "Hallucination is the share of the summary's content that the source does not support. Content is every word that "
    "is not a stop word; numbers, medical terms and sides of the body count once more. Rules and word lists find "
    "both. They do not notice correct facts that are combined wrongly.",
    "any_hallucination": "A summary with a hallucination states a number, drug, finding, negation, person or side "
    "that its source does not support. ROUGE does not notice an invented dose, so read this metric first.",
}
PROBE = "base_test_probe_rows"  # of a classifier, whose base model has no head
BASELINES = {
    "nearest_question": "the answer to the most similar training question (TF-IDF)",
    "nearest_source": "the summary of the most similar training source (TF-IDF)",
    "lead": "the first words of the source, as many as the average training summary has",
    "copy": "the whole source",
    "majority": "always the most frequent training class, which is chance",
    "stratified_random": "random guesses with the training class frequencies",
    "one_word": "one word per class, the one that tells it best",
    "tfidf_svm": "linear SVM on TF-IDF of words and word pairs, classes weighted by inverse frequency",
    "tfidf_svm_per_node": "one such SVM at each node of the tree, from the root down",
    "best_constant": "the same labels for every text, those that give the highest micro F1 on the training rows",
    "tfidf_logistic": "logistic regression on the same words, one model for each label",
    "encoder_alone": "the fine-tuned encoder without the `ensemble`",
}


def system_names(results: dict[str, Any]) -> dict[str, str]:
    """Map each key prefix in the results to a system name: fine-tuned model, base model, then baselines."""
    base = "linear probe" if PROBE in results else "base model"
    names = {"test_": "fine-tuned", "base_test_": base, "first_adapter_test_": "first adapter"}
    for key in results:
        if match := re.match(r"baseline_(.+?)_test_", key):
            names[match.group()] = match.group(1).replace("_", " ")
    return {prefix: name for prefix, name in names.items() if metric_names(results, [prefix])}


def metric_names(results: dict[str, Any], prefixes: list[str]) -> list[str]:
    """Return the metrics that at least one of the systems has, those in `METRICS` first."""
    found = {
        key.removeprefix(prefix): None
        for prefix in prefixes
        for key, value in results.items()
        if key.startswith(prefix) and is_number(value) and not NOT_METRICS.search(key)
    }
    return [name for name in METRICS if name in found] + [name for name in found if name not in METRICS]


def leaks_line(results: dict[str, Any]) -> str:
    """Warn about what gives the target away in the input."""
    leaks = results.get("data_leaks")
    if not leaks:
        return ""
    return (
        f"**Warning: the input gives the target away.** {'; '.join(leaks)}. A model that reads this need not read the "
        "rest, so its scores say little about texts without it. See `strip_pattern`."
    )


def baselines_line(results: dict[str, Any]) -> str:
    """Explain each known baseline in the results, in one line."""
    known = {f"baseline_{name}_test_": about for name, about in BASELINES.items()}
    if PROBE in results:
        known["base_test_"] = (
            "logistic regression on the mean hidden states of the frozen base model, from "
            f"{results[PROBE]:,} training rows"
        )
    return " ".join(f"{name}: {known[p]}." for p, name in system_names(results).items() if p in known)


def notes_line(results: dict[str, Any]) -> str:
    """Explain the metrics in the results that need an explanation."""
    notes = [note for metric, note in NOTES.items() if is_number(results.get(f"test_{metric}"))]
    if is_number(results.get("test_rouge1")):
        notes.append(
            f"ROUGE is the F1 score with{'' if results.get('use_stemmer') else 'out'} Porter stemming (rouge-score)."
        )
        notes.append(tokenizer_line(results))
        if results.get("test_bleu") == 0 < results["test_rouge1"]:
            notes.append("BLEU is 0 because no prediction has four tokens: it says nothing here.")
    if results.get("bertscore_model"):
        notes.append(
            f"BERTScore uses {results['bertscore_model']}, without idf weighting or rescaling. Scores from another "
            "model or layer are not comparable."
        )
    return " ".join(note for note in (*notes, language_line(results)) if note)


def tokenizer_line(results: dict[str, Any]) -> str:
    """Say what ROUGE and BLEU compare and why; empty for results of earlier versions."""
    if "rouge_tokenizer" not in results:
        return ""
    names = {"rouge-score": "rouge-score's words of a to z and digits", "unicode": "the words of any script (ICU)"}
    return (
        f"ROUGE compares {names[results['rouge_tokenizer']]}, BLEU the tokens of sacrebleu's "
        f"`{results['bleu_tokenizer']}`: {results['tokenizer_reason']}."
    )


def language_line(results: dict[str, Any]) -> str:
    """Say what reads English alone, if the texts are in other languages; empty for English."""
    languages = results.get("language", ["en"])
    if languages == ["en"]:
        return ""
    if not languages:
        return "The language of the texts was not identified: set `language` in the recipe, for the model card."
    return (
        f"The texts are in {', '.join(f'`{language}`' for language in languages)} (ISO 639). What reads English alone "
        "says nothing about them: Porter stemming and the search for hallucinations and omissions are off, "
        "`drop_ambiguous` and the safety checks of `app.py` find little or nothing"
        + (", and BERTScore needs a model of that language." if results.get("bertscore_model") else ".")
    )


def label(metric: str) -> str:
    """Return the display name of a metric."""
    return METRICS.get(metric, (metric.replace("_", " "),))[0]


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number and not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
