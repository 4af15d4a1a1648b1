"""What the tables say about drugs: thresholds, pairs of each class, and words that are no pair."""

import pytest

from utils.safety import check_response, risk_level
from utils.safety.drugs import class_members, interaction


def level(answer, question=None, **context):
    return risk_level(check_response(answer, question, context or None))


def severity(first, second):
    found = interaction(first, second)
    return int(found[0]["severity"]) if found else 0


@pytest.mark.parametrize(
    ("answer", "age", "expected"),
    [
        ("Take citalopram 40 mg once a day.", 60, 0),
        ("Take citalopram 40 mg once a day.", 61, 3),
        ("Take tramadol 100 mg four times a day.", 75, 0),
        ("Take tramadol 100 mg four times a day.", 76, 3),
        ("Take diazepam at night.", 64, 0),
        ("Take diazepam at night.", 65, 2),
        ("Take diphenhydramine at night.", 65, 2),
        ("Take zolpidem at night.", 65, 2),
        ("Take doxycycline for ten days.", 7, 2),
        ("Take minocycline for ten days.", 7, 3),
        ("Take tetracycline for ten days.", 8, 0),
    ],
)
def test_ages_are_those_of_the_source(answer, age, expected):
    assert level(answer, age=age) == expected


@pytest.mark.parametrize(("egfr", "expected"), [(14, 4), (15, 3), (29, 3), (30, 0)])
def test_dabigatran_is_stopped_or_lowered_in_kidney_disease(egfr, expected):
    assert level("Take dabigatran.", kidney=egfr) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Take tadalafil 40 mg once a day for pulmonary hypertension.", 2),
        ("Take tadalafil 60 mg once a day.", 3),
        ("In alcohol withdrawal take chlordiazepoxide 50 mg four times a day.", 2),
        ("Take chlordiazepoxide 100 mg four times a day.", 3),
    ],
)
def test_the_ceiling_is_that_of_the_highest_use(answer, expected):
    assert level(answer) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("rifabutin", "darunavir", 2),
        ("rifampin", "darunavir", 4),
        ("bosentan", "ritonavir", 3),
        ("sumatriptan", "phenelzine", 4),
        ("eletriptan", "phenelzine", 2),
        ("naratriptan", "tranylcypromine", 2),
        ("lamotrigine", "valproate", 3),
    ],
)
def test_pairs_that_are_dosed_are_not_forbidden(first, second, expected):
    assert severity(first, second) == severity(second, first) == expected


@pytest.mark.parametrize(
    "text", ["In alcohol withdrawal take diazepam.", "Wipe with rubbing alcohol and take diazepam.", "Take diazepam."]
)
def test_words_that_contain_a_drug_are_none(text):
    assert level(text) == 0
    assert level("Take diazepam with alcohol.") == 3


ACE, ARB = class_members()["ace inhibitor"], class_members()["angiotensin receptor blocker"]
NSAIDS = class_members()["nsaid"]
# (one side, other side, lowest severity): every drug of a side with every drug of the other
PAIRS = [
    ({"verapamil", "diltiazem"}, {"metoprolol", "bisoprolol", "atenolol", "propranolol", "nebivolol", "timolol"}, 3),
    ({"potassium supplement"}, {"spironolactone", "eplerenone", "amiloride", "triamterene"}, 3),
    ({"trimethoprim", "sulfamethoxazole|trimethoprim"}, ACE | ARB | {"spironolactone"}, 3),
    (class_members()["opioid"], {"gabapentin", "pregabalin"}, 3),
    ({"zolpidem", "zopiclone", "eszopiclone", "zaleplon"}, {"alcohol"}, 3),
    (
        {"warfarin"},
        {"ciprofloxacin", "levofloxacin", "clarithromycin", "erythromycin", "rifampin", "carbamazepine"},
        3,
    ),
    ({"warfarin"}, {"st. john's wort", "fenofibrate", "voriconazole", "clopidogrel"}, 3),
    ({"apixaban", "rivaroxaban", "dabigatran", "edoxaban"}, {"rifampin", "carbamazepine", "phenytoin"}, 3),
    (NSAIDS, class_members()["serotonergic antidepressant"], 2),
    (NSAIDS, {"clopidogrel", "ticagrelor", "prasugrel"}, 3),
    (NSAIDS, {"prednisone", "dexamethasone", "methylprednisolone", "hydrocortisone"}, 2),
    (NSAIDS, ACE | ARB, 2),
    ({"ibuprofen", "codeine|ibuprofen"}, {"naproxen", "diclofenac", "celecoxib"}, 3),
    ({"lithium"}, ARB, 3),
    ({"linezolid", "methylene blue"}, class_members()["tricyclic antidepressant"], 4),
    ({"linezolid", "phenelzine"}, {"mirtazapine", "trazodone", "buspirone"}, 4),
    (class_members()["statin"], {"gemfibrozil"}, 3),
    ({"colchicine"}, {"ritonavir", "nirmatrelvir|ritonavir", "itraconazole"}, 3),
    ({"tacrolimus", "cyclosporine"}, {"clarithromycin", "fluconazole", "diltiazem", "rifampin", "ritonavir"}, 3),
    ({"clozapine"}, {"carbamazepine", "ciprofloxacin", "fluvoxamine", "lorazepam"}, 3),
    ({"ticagrelor"}, {"clarithromycin", "ketoconazole", "ritonavir"}, 4),
    ({"ticagrelor"}, {"ibuprofen", "rifampin"}, 3),
    ({"enoxaparin"}, {"ibuprofen", "apixaban"}, 3),
    ({"nirmatrelvir|ritonavir"}, {"simvastatin", "carbamazepine", "phenytoin", "amiodarone", "alfuzosin"}, 4),
    ({"midazolam", "triazolam"}, {"ritonavir", "itraconazole", "ketoconazole"}, 4),
    ({"midazolam"}, {"oxycodone", "alcohol", "clarithromycin"}, 3),
    ({"levonorgestrel", "combined oral contraceptive"}, {"rifampin", "carbamazepine", "st. john's wort"}, 3),
    ({"acetaminophen", "codeine|acetaminophen"}, {"oxycodone|acetaminophen", "acetaminophen|phenylephrine"}, 3),
]


@pytest.mark.parametrize(("ours", "theirs", "lowest"), PAIRS)
def test_each_pair_of_two_classes_is_found_in_both_orders(ours, theirs, lowest):
    for first in sorted(ours):
        for second in sorted(theirs):
            assert severity(first, second) == severity(second, first) >= lowest, (first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("amlodipine", "metoprolol"),  # not a calcium channel blocker that slows the heart
        ("spironolactone", "ferrous sulfate"),
        ("nitrofurantoin", "lisinopril"),
        ("gabapentin", "acetaminophen"),
        ("warfarin", "amoxicillin"),
        ("warfarin", "acetaminophen"),
        ("apixaban", "levetiracetam"),
        ("acetaminophen", "sertraline"),
        ("ibuprofen", "amlodipine"),
        ("hydrocortisone", "acetaminophen"),
        ("lithium", "amlodipine"),
        ("linezolid", "quetiapine"),
        ("rosuvastatin", "fenofibrate"),
        ("tacrolimus", "amoxicillin"),
        ("ticagrelor", "aspirin"),
        ("enoxaparin", "warfarin"),  # a usual overlap
        ("levonorgestrel", "lamotrigine"),
        ("lorazepam", "ritonavir"),
        ("beclomethasone", "ritonavir"),
        ("beclomethasone", "ibuprofen"),  # inhaled
        ("nsaids", "ibuprofen"),  # a class and its member
        ("warfarin", "blood thinners"),
        ("acetaminophen", "acetaminophen"),
        ("oxycodone|acetaminophen", "oxycodone"),
    ],
)
def test_drugs_that_look_alike_are_no_pair(first, second):
    assert severity(first, second) == severity(second, first) == 0


@pytest.mark.parametrize(
    ("answer", "question", "expected"),
    [
        ("Take Tylenol together with your co-codamol.", None, 3),
        ("Yes, that is fine.", "Can I take NyQuil with Tylenol?", 3),
        ("Yes.", "I take Percocet. Can I have paracetamol too?", 3),
        ("You can take one Percocet (oxycodone and acetaminophen) every six hours.", None, 0),
        ("Percocet contains acetaminophen.", None, 0),
        ("Yes. It contains acetaminophen and oxycodone.", "Is Percocet a strong painkiller?", 0),
        ("Ibuprofen is an NSAID. Take ibuprofen with food.", None, 0),
        ("Take Advil or Aleve.", None, 0),
        ("Take Advil together with Aleve.", None, 3),
    ],
)
def test_two_products_with_one_drug_are_a_pair_and_its_ingredients_are_none(answer, question, expected):
    assert level(answer, question) == expected
