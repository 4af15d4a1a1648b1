from sklearn.feature_extraction.text import TfidfVectorizer

from utils.metrics.baselines import nearest_answers, tfidf_words


def test_a_question_is_answered_as_the_most_similar_known_one():
    known = ["What is ataxia?", "What causes a fever?", "How is asthma treated?"]
    questions = ["What treats asthma?", "What is ataxia of the arms?", "What causes fever in children?"]
    assert nearest_answers(known, ["a", "b", "c"], questions) == ["c", "a", "b"]


def test_words_of_tfidf_are_those_of_scikit_learn_and_of_every_script():
    text = "A 3-day fever: 38.5 °C, café & IL-6."
    assert tfidf_words(text) == TfidfVectorizer(lowercase=False).build_analyzer()(text)
    known = ["坏血病是由什么引起的？", "痛风有什么表现？", "哮喘怎么治疗？"]
    questions = ["请问哮喘应该怎么治疗？", "痛风的表现", "引起坏血病的原因"]
    assert nearest_answers(known, ["a", "b", "c"], questions) == ["c", "b", "a"]
    assert nearest_answers(["मरीज को बुखार", "मरीज को खांसी"], ["a", "b"], ["खांसी"]) == ["b"]
