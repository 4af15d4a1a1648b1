from utils.metrics.baselines import nearest_answers


def test_a_question_is_answered_as_the_most_similar_known_one():
    known = ["What is ataxia?", "What causes a fever?", "How is asthma treated?"]
    questions = ["What treats asthma?", "What is ataxia of the arms?", "What causes fever in children?"]
    assert nearest_answers(known, ["a", "b", "c"], questions) == ["c", "a", "b"]
