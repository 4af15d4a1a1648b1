"""Question answering with an export for llama.cpp, in this process."""

from utils.chat import tokenize_pairs
from utils.evaluation.confidence import lower_repeated
from utils.generation import truncate_pairs
from utils.inference import Predictor
from utils.prompts import build_prompt
from utils.runtimes.llama_cpp import LlamaCpp
from utils.serving.answering import Deliver, Question, as_row, generation_settings, state_confidence


def answer_by_llama_cpp(predictor: Predictor, model: LlamaCpp, questions: list[Question], deliver: Deliver) -> None:
    """Answer questions one by one: as `answer_here`, without beam search.

    Args:
        predictor, model: of the export.
        questions: questions, possibly of several clients.
        deliver: called with the index of each question and its result.
    """
    tokenizer, task = predictor.tokenizer, predictor.task
    prompts = [build_prompt(tokenizer, task, as_row(question, task)) for question in questions]
    whole, _ = tokenize_pairs(tokenizer, prompts, None, task["chat"])
    ids, _, _ = truncate_pairs(whole, None, task["max_length"])
    for n, question in enumerate(questions):
        if question.client.is_gone():
            continue
        settings = generation_settings(task, question)
        answer = model.answer(ids[n], settings, question.on_text, question.client.is_gone)
        sure = state_confidence(lower_repeated(answer.probability, answer.text), task, question)
        deliver(n, {"response": answer.text, "finished": answer.finished, "cut": len(ids[n]) < len(whole[n]), **sure})
