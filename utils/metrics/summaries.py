"""Row statistics of summaries, and baselines.

None of these metrics notices an invented dose; `utils.factuality` does.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from sacrebleu.metrics.helpers import extract_all_char_ngrams
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging

from utils.generation import batches_by_length, progress
from utils.metrics.statistics import text_statistics
from utils.overlap import Tokenizers, check_bertscore_model
from utils.tokenizers import complete_tokenizer
from utils.weights import check_weights
from utils.words import count_words, split_words, word_pieces

LONGEST_NGRAM = 4
CHRF_ORDER = 6
BERTSCORE_ROWS = 256  # rows per block: their token vectors take about 300 MB at a hidden size of 1,024


def summary_statistics(
    predictions: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str] | None = None,
    use_stemmer: bool = False,
    tokenizers: Tokenizers | None = None,
) -> dict[str, np.ndarray]:
    """Compute row statistics of summaries.

    Args:
        predictions, references: one summary per row.
        sources: the summarized texts; required for `compression` and the novel n-grams.
        use_stemmer, tokenizers: as for `text_statistics`.

    Returns:
        all of `text_statistics`. chrf: corpus chrF in 0..1 (Popovic 2015), sacrebleu's default (characters, order 6,
        beta 2) / 100. compression: words of all sources / words of all summaries (Grusky et al. 2018).
        novel_1gram .. novel_4gram: share of the n-grams (lowercase words) of all summaries that are not in their
        source (See et al. 2017). Neither direction is better; compare with the share of the references.
    """
    statistics = text_statistics(predictions, references, use_stemmer, tokenizers)
    statistics["chrf"] = np.array(
        [_chrf_counts(p, r) for p, r in zip(predictions, references, strict=True)], dtype=float
    )
    return statistics if sources is None else statistics | source_statistics(predictions, sources)


def source_statistics(summaries: Sequence[str], sources: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute `compression` and `novel_1gram` .. `novel_4gram` of `summary_statistics`, also for references."""
    lengths = [(count_words(source), count_words(text)) for text, source in zip(summaries, sources, strict=True)]
    novel = np.zeros((len(summaries), LONGEST_NGRAM, 2))
    for row, (text, source) in enumerate(zip(summaries, sources, strict=True)):
        words, source_words = split_words(text.lower()), split_words(source.lower())
        for n in range(1, LONGEST_NGRAM + 1):
            grams, known = _ngrams(words, n), set(_ngrams(source_words, n))
            novel[row, n - 1] = sum(gram not in known for gram in grams), len(grams)
    names = [f"novel_{n}gram" for n in range(1, LONGEST_NGRAM + 1)]
    return {
        "compression": np.array(lengths, dtype=float),
        **{name: novel[:, i] for i, name in enumerate(names)},
    }


def first_words(text: str, number: int) -> str:
    """Return the beginning of a text with at most this many words."""
    return "".join(word_pieces(text)[:number]).rstrip()


def summary_baselines(sources: Sequence[str], references_of_train: Sequence[str]) -> dict[str, list[str]]:
    """Return summaries that need no model.

    Returns:
        lead: the first words of each source, as many as an average training summary has (at least one).
        copy: the full source.
    """
    words = max(1, round(float(np.mean([count_words(text) for text in references_of_train]))))
    return {"lead": [first_words(source, words) for source in sources], "copy": list(sources)}


def bert_scores(
    predictions: Sequence[str],
    references: Sequence[str],
    model_name_or_path: str,
    num_layers: int | None,
    device: torch.device | str,
    batch_size: int,
) -> np.ndarray:
    """Compute BERTScore (Zhang et al. 2020) without idf weights and without rescaling.

    Each token vector is matched with the most similar one of the other text by cosine; precision is the mean over
    prediction tokens, recall over reference tokens. [CLS] and [SEP] can be matched but do not count. Equals the
    package bert-score 0.3.13 (2023) applied row by row; with this transformers version the package fails on an empty
    text, and its padding hides negative similarities in a batch. Scores of different models or layers are not
    comparable.

    Args:
        predictions, references: one text per row. A text shared by neighbouring rows is encoded once, so score several
            systems in one call. Tokens beyond the model's maximum are cut; an empty text scores 0.
        model_name_or_path, num_layers: as for `check_bertscore_model`.
        device: device to compute on.
        batch_size: texts per forward pass.

    Returns:
        precision, recall and F1, float [rows, 3].

    Raises:
        UserError: as `check_bertscore_model`.
    """
    layers, name = check_bertscore_model(model_name_or_path, num_layers)
    tokenizer, model = _load_encoder(model_name_or_path, layers)
    model = model.to(device).eval()  # type: ignore[arg-type]  # the decorator of `to` hides `self`
    results = []
    blocks = batches_by_length([len(reference) for reference in references], BERTSCORE_ROWS)
    for rows in progress(blocks, f"BERTScore, {name}"):
        texts = {text for i in rows for text in (predictions[i], references[i])}
        vectors = _token_vectors(sorted(texts, key=len), tokenizer, model, batch_size)
        results += [(i, _greedy_match(*vectors[predictions[i]], *vectors[references[i]])) for i in rows]
    return np.array([scores for _, scores in sorted(gather_object(results))])


def add_bert_scores(
    outputs: dict[str, Any],
    references: Sequence[str],
    model_name_or_path: str,
    num_layers: int | None,
    device: torch.device | str,
    batch_size: int,
) -> None:
    """Add `bert_scores` to the outputs of each system with a `prediction`, with one call of `bert_scores`, which
    explains the arguments."""
    written = {name: own["prediction"] for name, own in outputs.items() if "prediction" in own}
    every = [text for texts in written.values() for text in texts]
    scores = bert_scores(every, list(references) * len(written), model_name_or_path, num_layers, device, batch_size)
    for name, own in zip(written, np.split(scores, len(written)), strict=True):
        outputs[name]["bert_scores"] = own


def bert_statistics(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return bertscore_precision, bertscore_recall and bertscore_f1, means over rows of `bert_scores`."""
    names = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
    return {name: np.column_stack([scores[:, i], np.ones(len(scores))]) for i, name in enumerate(names)}


def _load_encoder(name: str, layers: int) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    config = AutoConfig.from_pretrained(name)
    # bert-score encodes RoBERTa's first word as if a space preceded it
    options = {"add_prefix_space": True} if config.model_type == "roberta" else {}
    load = partial(AutoTokenizer.from_pretrained, name, **options)
    tokenizer = complete_tokenizer(load, get_tokenizer_config(name), config)
    if tokenizer.model_max_length > 100_000:  # DeBERTa has no limit
        tokenizer.model_max_length = config.max_position_embeddings
    config.num_hidden_layers = layers  # layers above are not loaded
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # hide warnings about the unused layers and heads
    model, found = AutoModel.from_pretrained(name, config=config, dtype=torch.float32, output_loading_info=True)
    logging.set_verbosity(verbosity)
    check_weights("bertscore_model", name, model, found, ["pooler"])
    return tokenizer, model


@torch.inference_mode()
def _token_vectors(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, batch_size: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return for each text the unit vectors of its tokens [tokens, hidden size], and which of them count [tokens]."""
    special = torch.tensor([i for i in (tokenizer.cls_token_id, tokenizer.sep_token_id) if i is not None])
    vectors = {}
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        stripped = [text.strip() for text in batch]
        inputs = tokenizer(stripped, padding=True, truncation=True, split_special_tokens=True, return_tensors="pt").to(
            model.device
        )
        hidden = torch.nn.functional.normalize(model(**inputs).last_hidden_state, dim=-1)
        mask = inputs["attention_mask"].bool()
        counts = ~torch.isin(inputs["input_ids"], special.to(model.device))
        for i, text in enumerate(batch):
            vectors[text] = hidden[i, mask[i]], counts[i, mask[i]]
    return vectors


def _greedy_match(
    prediction: torch.Tensor, predicted: torch.Tensor, reference: torch.Tensor, referred: torch.Tensor
) -> tuple[float, float, float]:
    """Return precision, recall and F1 of two texts, from the results of `_token_vectors` for each."""
    if not predicted.any() or not referred.any():
        return 0.0, 0.0, 0.0
    similarity = prediction @ reference.T
    precision = similarity.max(dim=1).values[predicted].mean().item()
    recall = similarity.max(dim=0).values[referred].mean().item()
    return precision, recall, 2 * precision * recall / (precision + recall)


def _chrf_counts(prediction: str, reference: str) -> list[int]:
    """Count character n-grams of the prediction (0 if the reference is too short to have any), of the reference, and
    common ones, for n from 1 to 6, as sacrebleu does."""
    counts = []
    pairs = zip(*(extract_all_char_ngrams(text, CHRF_ORDER) for text in (prediction, reference)), strict=True)
    for ours, theirs in pairs:
        counts += [ours.total() if theirs else 0, theirs.total(), _common(ours, theirs)]
    return counts


def _common(a: Counter, b: Counter) -> int:
    return sum(min(count, b[gram]) for gram, count in a.items() if gram in b)


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))
