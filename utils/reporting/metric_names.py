"""Which systems and metrics the results of a run hold, and what people call them.

Everything is found by prefix in `all_results.json`: `test_*` is the fine-tuned model, `base_test_*` the model before
tuning, `baseline_<name>_test_*` the baselines.
"""

import math
import re
from typing import Any

# metric -> (what people call it, which direction is better); others are shown under their own name
METRICS = {
    "child_macro_f1": ("child macro F1", "higher"), "parent_macro_f1": ("parent macro F1", "higher"),
    "path_accuracy": ("path accuracy", "higher"),
    "hierarchical_f1": ("hierarchical F1", "higher"),
    "hierarchical_precision": ("hierarchical precision", "higher"),
    "hierarchical_recall": ("hierarchical recall", "higher"),
    "parent_accuracy": ("parent accuracy", "higher"), "child_accuracy": ("child accuracy", "higher"),
    "child_given_parent_accuracy": ("child accuracy given the true parent", "higher"),
    "parent_ece": ("parent calibration error (ECE)", "lower"),
    "child_ece": ("child calibration error (ECE)", "lower"),
    "macro_f1": ("macro F1", "higher"),
    "weighted_f1": ("weighted F1", "higher"), "accuracy": ("accuracy", "higher"),
    "many_shot_macro_f1": ("macro F1, over 100 training rows", "higher"),
    "medium_shot_macro_f1": ("macro F1, 20 to 100 training rows", "higher"),
    "few_shot_macro_f1": ("macro F1, under 20 training rows", "higher"),
    "top_3_accuracy": ("among the 3 likeliest", "higher"), "matthews": ("Matthews correlation", "higher"),
    "macro_precision": ("macro precision", "higher"), "macro_recall": ("macro recall", "higher"),
    "weighted_precision": ("weighted precision", "higher"),
    "accuracy_norm": ("accuracy, length-normalized", "higher"),
    "generated_accuracy": ("accuracy of generated letters", "higher"),
    "flip_rate": ("flipped by option order", "lower"), "parse_failure": ("no letter generated", "lower"),
    "rouge1": ("ROUGE-1", "higher"), "rouge2": ("ROUGE-2", "higher"), "rougeL": ("ROUGE-L", "higher"),
    "rougeLsum": ("ROUGE-Lsum", "higher"), "bleu": ("BLEU", "higher"),
    "omission": ("omission", "lower"), "hallucination": ("hallucination", "lower"),
    "any_hallucination": ("texts with a hallucination", "lower"),
    "chrf": ("chrF", "higher"), "bertscore_f1": ("BERTScore F1", "higher"),
    "bertscore_precision": ("BERTScore precision", "higher"), "bertscore_recall": ("BERTScore recall", "higher"),
    "loss": ("loss", "lower"),
    "perplexity": ("perplexity", "lower"), "ece": ("calibration error (ECE)", "lower"),
    "brier": ("Brier score", "lower"), "uncalibrated_ece": ("ECE before calibration", "lower"),
    "uncalibrated_brier": ("Brier score before calibration", "lower"),
    "coverage": ("coverage when it abstains", "higher"), "selective_risk": ("error rate when it abstains", "lower"),
    "aurc": ("area under risk-coverage", "lower"), "inconsistent": ("inconsistent pairs", "lower"),
    "hallucinated_drugs": ("invented drugs a summary", "lower"),
    "hallucinated_findings": ("invented findings a summary", "lower"),
    "hallucinated_numbers": ("invented numbers a summary", "lower"),
    "negation_flips": ("flipped negations a summary", "lower"),
    "wrong_person": ("findings of the wrong person a summary", "lower"),
    "wrong_laterality": ("findings on the wrong side a summary", "lower"),
    "omitted_drugs": ("omitted drugs a summary", "lower"),
    "omitted_findings": ("omitted findings a summary", "lower"),
    "omitted_numbers": ("omitted numbers a summary", "lower"),
    "repetition": ("repetition", "lower"),
    "length_ratio": ("length ratio", "nearer 1"), "compression": ("compression", "as references"),
    "novel_1gram": ("novel words", "as references"), "novel_2gram": ("novel 2-grams", "as references"),
    "novel_3gram": ("novel 3-grams", "as references"), "novel_4gram": ("novel 4-grams", "as references"),
    "finished": ("ended by themselves", "higher"),
}  # fmt: skip
HEADLINES = ("child_macro_f1", "macro_f1", "accuracy", "rougeL", "perplexity", "loss")  # the first one present leads
NOT_METRICS = re.compile(
    r"(_ci95|_p|_confident|_?(runtime|per_second|rows|sha256|samples|steps|num_tokens|preparation_time))$"
)
FINDINGS = (
    "hallucinated_drugs", "hallucinated_findings", "hallucinated_numbers", "negation_flips", "wrong_person",
    "wrong_laterality", "omitted_drugs", "omitted_findings", "omitted_numbers",
)  # fmt: skip
NOVEL = ("novel_1gram", "novel_2gram", "novel_3gram", "novel_4gram")
TABLE_ONLY = ("loss", "length_ratio", "finished", "coverage", "compression", *NOVEL, *FINDINGS)
NOTES = {
    "omission": "Omission is the share of the reference's content that the text lacks or turns round, hallucination "
    "the share of the text's content that the source lacks. Content is the words but stop words, with numbers, "
    "medical terms and sides counted once more; rules and word lists find it, and see no misplaced fact.",
    "any_hallucination": "A text with a hallucination has a number, drug, finding, negation, person or side that its "
    "source does not have. ROUGE does not see an invented dose: read this first.",
}
BASELINES = {
    "nearest_question": "the answer of the most similar training question (TF-IDF)",
    "nearest_source": "the summary of the most similar training source (TF-IDF)",
    "lead": "the first words of the source, as many as a training summary has on average",
    "copy": "the whole source",
    "majority": "the most frequent class of the training rows, always",
    "stratified_random": "random guesses with the classes' shares",
    "tfidf_svm": "linear SVM on TF-IDF of words and pairs, classes weighted with their inverse frequency",
    "tfidf_logistic": "logistic regression on the same",
    "tfidf_svm_per_node": "the same at each node of the tree, from the root down",
    "encoder_alone": "the fine-tuned encoder without what `ensemble` adds",
}


def system_names(results: dict[str, Any]) -> dict[str, str]:
    """Prefix of the results -> name of the system, the fine-tuned model first, then the base model and baselines."""
    names = {"test_": "fine-tuned", "base_test_": "base model"}
    for key in results:
        if match := re.match(r"baseline_(.+?)_test_", key):
            names[match.group()] = match.group(1).replace("_", " ")
    return {prefix: name for prefix, name in names.items() if metric_names(results, [prefix])}


def metric_names(results: dict[str, Any], prefixes: list[str]) -> list[str]:
    """The metrics that at least one of the systems has, the known ones first."""
    found = {
        key.removeprefix(prefix): None
        for prefix in prefixes
        for key, value in results.items()
        if key.startswith(prefix) and is_number(value) and not NOT_METRICS.search(key)
    }
    return [name for name in METRICS if name in found] + [name for name in found if name not in METRICS]


def baselines_line(results: dict[str, Any]) -> str:
    """What each known baseline among the systems is."""
    known = {f"baseline_{name}_test_": about for name, about in BASELINES.items()}
    return " ".join(f"{name}: {known[p]}." for p, name in system_names(results).items() if p in known)


def notes_line(results: dict[str, Any]) -> str:
    """What has to be known to read some of the metrics."""
    notes = [note for metric, note in NOTES.items() if is_number(results.get(f"test_{metric}"))]
    if is_number(results.get("test_rouge1")):
        notes.append(f"ROUGE is F1 with{'' if results.get('use_stemmer') else 'out'} Porter stemming (rouge-score).")
    if results.get("bertscore_model"):
        notes.append(f"BERTScore is that of {results['bertscore_model']}, without idf weights and rescaling: numbers "
                     "of another model or layer cannot be compared.")  # fmt: skip
    return " ".join(notes)


def label(metric: str) -> str:
    """What people call a metric."""
    return METRICS.get(metric, (metric.replace("_", " "),))[0]


def is_number(value: Any) -> bool:
    """Whether it can be shown as a number: finite, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
