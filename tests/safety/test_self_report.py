"""What a question says of a person is read, what it denies, asks in general or says of others is not."""

import pytest

from utils.safety.patient import read_patient


@pytest.mark.parametrize(
    ("question", "age"),
    [
        ("My 6 year old has a fever.", 6), ("For a 14-month-old, what dose?", 14 / 12), ("I'm 72 and dizzy.", 72),
        ("My son, 9, has the flu.", 9), ("She's four and coughs.", 4), ("My toddler has a cold.", 2),
        ("my baby is 8 weeks and sneezes", 8 / 52), ("Mum is in her 80s.", 80), ("a nine year old boy", 9),
        ("He takes 2 a day.", None), ("I take 20 mg.", None), ("What is ataxia?", None), ("She is 5 feet tall.", None),
    ],
)  # fmt: skip
def test_ages(question, age):
    assert read_patient(None, question).age == (None if age is None else pytest.approx(age))


@pytest.mark.parametrize(
    ("question", "pregnant"),
    [
        ("I'm 10 weeks pregnant.", True), ("We are trying for a baby.", True), ("26 weeks along, on Zestril.", True),
        ("Pregnant, back pain.", True), ("Second trimester and high blood pressure", True),
        ("I am not pregnant.", False), ("When I was pregnant I took it.", False), ("Is it safe in pregnancy?", True),
        ("Does acne get better after pregnancy?", False), ("What is ataxia?", False),
    ],
)  # fmt: skip
def test_pregnancy(question, pregnant):
    assert read_patient(None, question).pregnant == pregnant


@pytest.mark.parametrize(
    ("question", "egfr"),
    [
        ("My eGFR is 22.", 22), ("My dad is on dialysis.", 14), ("Kidneys working at 20%, sore shoulder", 20),
        ("I have stage 4 kidney disease.", 29), ("My kidneys are fine.", None),
        ("No kidney failure, just gout.", None),
    ],
)  # fmt: skip
def test_kidney_function(question, egfr):
    assert read_patient(None, question).egfr == egfr


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("I am allergic to penicillin.", "penicillin"), ("Sulfa allergy, bladder infection.", "sulfa"),
        ("Codeine gave me hives.", "codeine"), ("I came out in a rash after amoxicillin.", "amoxicillin"),
        ("I reacted badly to aspirin.", "aspirin"), ("I can't have penicillin.", "penicillin"),
        ("I am not allergic to penicillin.", None), ("What is an allergy?", None),
    ],
)  # fmt: skip
def test_allergies(question, name):
    found = " ".join(read_patient(None, question).allergies)
    assert name in found if name else not found


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("I have asthma and my heart races.", True), ("Asthma since childhood, migraine now.", True),
        ("I don't have asthma.", False), ("Asthma runs in the family.", False), ("My father had asthma.", False),
        ("Does aspirin cause asthma?", False), ("My mother has asthma, can she take it?", True),
    ],
)  # fmt: skip
def test_conditions(question, expected):
    assert any("asthma" in condition for condition in read_patient(None, question).conditions) == expected


def test_what_the_context_says_goes_before_what_the_question_says():
    patient = read_patient({"age": 40, "pregnancy": False, "kidney": 90}, "I'm 72, pregnant, and on dialysis.")
    assert (patient.age, patient.pregnant, patient.egfr) == (40, False, 90)
