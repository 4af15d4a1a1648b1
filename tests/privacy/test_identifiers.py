"""Planted identifiers of made-up people are found; clinical text without any gives no alarm, and no text is kept."""

import json
import random

import pytest
from conftest import toy_dialogues, toy_notes, toy_rows, write_rows

from utils.arguments import UserError
from utils.privacy.__main__ import PrivacyArguments, main
from utils.privacy.identifiers import count_identifiers, find_kinds, presidio_names, warn_of_identifiers

FIRST = ["Amara", "Björn", "Chen", "Dolores", "Edwin", "Fatima", "Grace", "Hugo", "Ines", "Jamal", "Katrin", "Liam"]
LAST = ["Okafor", "Lindqvist", "Wei", "Ramírez", "Baker", "Haddad", "O'Neill", "Moreau", "Silva", "Brooks", "Vogel"]
MONTHS = ["January", "Feb", "March", "Apr", "May", "June", "July", "Aug", "September", "Oct", "Nov", "December"]
CARE = [
    "was seen for chest pain and sent home", "takes 5 mg of amlodipine twice a day", "has had a cough for 3 weeks",
    "denies fever; blood pressure 120/80, pulse 72", "came back with a sodium of 131 and potassium of 4.2",
]  # fmt: skip
PHONES, ENDINGS = ["Tel", "Phone", "mobile", "Call him on"], ["org", "co.uk"]


def plant(rng: random.Random) -> tuple[str, str]:
    """Return a kind of identifier, and a sentence with one."""
    name = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1930, 2015)
    date = rng.choice([
        f"{day:02}/{month:02}/{year}", f"{year}-{month:02}-{day:02}", f"{day} {MONTHS[month - 1]} {year}",
        f"{MONTHS[month - 1]} {day}, {year}", f"{day}.{month}.{year}",
    ])  # fmt: skip
    digits = "".join(str(rng.randint(0, 9)) for _ in range(10))
    birth = rng.choice(["DOB: {}", "date of birth {}", "born on {}", "D.O.B. {}", "was born {}"]).format(date)
    title = rng.choice(["Mr", "Mrs.", "Ms", "Patient:", "Name:"])
    return rng.choice([
        ("e-mail address", f"Reach her at {rng.choice(FIRST).lower()}.{digits[:3]}@example.{rng.choice(ENDINGS)}."),
        ("phone number", f"{rng.choice(PHONES)}: {digits[:3]} {digits[3:6]} {digits[6:]}."),
        ("phone number", f"He left ({digits[:3]}) {digits[3:6]}-{digits[6:]} as his number."),
        ("phone number", f"Relatives: +44 20 {digits[:4]} {digits[4:8]}."),
        ("record number", f"{rng.choice(['MRN', 'MRN:', 'Patient ID', 'NHS number', 'Hospital no.'])} {digits[:7]}."),
        ("record number", f"Social security: {digits[:3]}-{digits[3:5]}-{digits[5:9]}."),
        ("date of birth", f"The patient, {birth}, is well."),
        ("name with a date of birth", f"{title} {name}, {birth}."),
    ])  # fmt: skip


def test_planted_identifiers_are_found():
    rng, missed = random.Random(3), []
    for _ in range(600):
        kind, sentence = plant(rng)
        text = f"The patient {rng.choice(CARE)}. {sentence} The patient {rng.choice(CARE)}."
        missed += [(kind, sentence)] if kind not in find_kinds(text) else []
    assert len(missed) <= 0.05 * 600, missed[:20]


def test_clinical_text_gives_no_alarm():
    texts = [f"The patient {care}." for care in CARE]
    texts += [value for rows in (toy_rows(), toy_notes(), toy_dialogues()) for row in rows for value in row.values()]
    texts += [
        "On 12/03/2021 the haemoglobin was 8.1 and the platelets 150 000.", "Give 0.9 % saline at 125 ml/h for 8 h.",
        "ICD-10 E11.9, SNOMED 44054006, LOINC 2345-7", "ratio 1:10 000, 95 % CI 1.20-1.45, p = 0.0003", "t(9;22)",
        "The baby was born at 38 weeks and weighs 3200 g.", "PMID 12345678, doi 10.1000/182", "case 3 of 12",
    ]  # fmt: skip
    assert [text for text in texts if find_kinds(text)] == []


def test_counts_name_columns_and_kinds_and_never_a_text(tmp_path, capsys, caplog):
    rows = [{"id": "1", "note": "MRN 4711001, cough", "turns": ["a", "mail me at a.b@example.org"], "age": 40}] * 3
    with caplog.at_level("WARNING"):
        assert warn_of_identifiers(rows) == {"data_train_identifiers": 6}
    main(PrivacyArguments(str(write_rows(tmp_path / "rows.jsonl", rows))))
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"note": {"record number": 3}, "turns": {"e-mail address": 3}}
    for text in (shown, caplog.text):
        assert "4711001" not in text and "example.org" not in text
    assert "`note`" in caplog.text and "`turns`" in caplog.text
    assert warn_of_identifiers([{"note": "a cough"}]) == {"data_train_identifiers": 0}


def test_a_file_to_look_through_is_needed():
    with pytest.raises(UserError, match="`input_file`"):
        main(PrivacyArguments())


def test_presidio_finds_names_without_a_title():
    pytest.importorskip("presidio_analyzer")
    has_name, rng, found = presidio_names(), random.Random(4), 0
    assert has_name is not None
    for _ in range(40):
        text = f"{rng.choice(FIRST)} {rng.choice(LAST)} was born on 3 May 1950 and {rng.choice(CARE)}."
        found += "name with a date of birth" in find_kinds(text, has_name)
    assert found >= 38
    assert count_identifiers([{"note": "Jamal Baker, DOB 03/05/1950"}])["note"]["name with a date of birth"] == 1
