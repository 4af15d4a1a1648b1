"""Request and response models of the REST API with their limits, used by FastAPI for validation and `/docs`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from utils.serving.answering import check_settings

MAX_CHARACTERS = 50_000  # per text, about 10,000 tokens; `cut` says whether the model saw only a part
MAX_TEXTS = 64  # per request
MAX_BEAMS = 8  # each beam is a row of the batch


def _can_be_sent(text: str) -> str:
    """JSON may write half of a character (`"\\ud800"`), which neither a tokenizer nor an answer can hold."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the text has a lone surrogate, which is no character")
    return text


Whole = Annotated[str, AfterValidator(_can_be_sent)]
Text = Annotated[Whole, Field(min_length=1, max_length=MAX_CHARACTERS, pattern=r"\S")]
Name = Annotated[Whole, Field(max_length=200)]
Names = Annotated[list[Name], Field(max_length=100)] | Name
# The columns of a model that reads several
Row = Annotated[dict[Name, Annotated[Whole, Field(max_length=MAX_CHARACTERS)]], Field(min_length=1, max_length=20)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Request(Body):
    model: str | None = Field(
        None, max_length=1000, description="name of a model of `GET /models`; default: the first one of the task"
    )


class PatientContext(Body):
    """What is known about the patient. Only the safety checks use it."""

    age: float | None = Field(None, ge=0, le=130, description="years")
    weight: float | None = Field(None, gt=0, le=700, description="kg")
    pregnancy: bool | Name | None = None
    kidney: float | Name | None = Field(
        None, description="eGFR in mL/min/1.73 m2, or words such as dialysis, G4, eGFR 52"
    )
    conditions: Names | None = None
    medications: Names | None = None
    allergies: Names | None = None


class GenerateRequest(Request):
    question: Text
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy; default: as in the evaluation")
    max_length: int | None = Field(
        None, ge=1, le=4096, description="maximum tokens of the answer; default: as in the evaluation"
    )
    num_beams: int | None = Field(
        None, ge=1, le=MAX_BEAMS, description="beams of beam search; default: as in the evaluation"
    )
    length_penalty: float | None = Field(
        None, ge=-2, le=2, description="of beam search: 0 and below favours short answers, above 1 long ones"
    )
    use_safety: bool = True
    patient_context: PatientContext | None = None

    @model_validator(mode="after")
    def settings_go_together(self) -> "GenerateRequest":
        check_settings(self.temperature, self.num_beams, self.length_penalty)
        return self


class Finding(BaseModel):
    rule: str
    kind: str
    severity: int = Field(ge=1, le=4)
    message: str
    span: list[int] = Field(description="start and end (exclusive) in characters of the text in `where`")
    source: str
    where: Literal["question", "response"]


class Unrecognised(BaseModel):
    key: Literal["kidney", "medications", "allergies", "conditions"]
    value: str = Field(description="the words as given")


class SafetyReport(BaseModel):
    risk_level: int = Field(
        ge=0, le=4, description="0 nothing found, 1 note, 2 caution, 3 serious, 4 emergency or contraindicated"
    )
    warnings: list[Finding]
    unread_language: str | None = Field(
        None,
        description="ISO 639 code of a text that the English tables cannot read, which was not checked; else null",
    )
    stages: list[Literal["rules", "classifier"]] = Field(
        description="what the question was checked with: the classifier takes part if the app has `safety_model`"
    )
    unrecognised: list[Unrecognised] = Field(
        description="what the checks do not know of `patient_context`, so that nothing was checked for it"
    )


class CitedPassage(BaseModel):
    number: int = Field(description="number by which the answer cites it")
    cited: bool = Field(description="whether a sentence of the answer cites it")
    id: str
    title: str
    source: str
    text: str
    score: float = Field(description="BM25 score for the question: above 0, unbounded")


class GenerateAnswer(BaseModel):
    response: str = Field(description="with a corpus, each sentence ends in [1] or in [no passage supports this]")
    safety_report: SafetyReport | None = Field(description="null if `use_safety` is false")
    inference_time_ms: float
    finished: bool = Field(description="whether the answer ended by itself, not at the length or time limit")
    cut: bool = Field(description="whether the model saw only a part of the question")
    confidence: float | None = Field(
        description="mean probability of the tokens of the answer, lowered where it repeats itself"
    )
    confidence_note: str | None = Field(description="what this confidence meant in the evaluation, in words")
    passages: list[CitedPassage] | None = Field(
        None, description="passages in the prompt; null without a corpus, or if no model was asked"
    )
    supported: float | None = Field(None, description="share of the sentences that a passage supports")
    wrong_citations: int | None = Field(
        None, description="number of wrong citations by the model, which were replaced"
    )


class ClassifyRequest(Request):
    text: Text | Row | None = None
    texts: Annotated[list[Text | Row], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    top_k: int = Field(3, ge=1, le=10_000, description="number of most likely classes to return per level")
    task: Literal["classification", "hierarchical"] | None = Field(
        None, description="model to use if both are loaded; default: classification"
    )

    @model_validator(mode="after")
    def one_of_both(self) -> "ClassifyRequest":
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either `text` or `texts`")
        return self


class ClassResult(BaseModel):
    prediction: str
    confidence: float = Field(description="calibrated probability")
    abstained: bool = Field(description="the model is not sure enough: needs human review")
    cut: bool = Field(description="whether the model saw only a part of the text")
    probabilities: dict[str, float]


class LabelsResult(BaseModel):
    prediction: list[str] = Field(description="labels above their thresholds, the most probable first; may be none")
    confidence: list[float] = Field(description="their calibrated probabilities")
    cut: bool
    probabilities: dict[str, float] = Field(description="these labels first, then others")


class PathResult(BaseModel):
    prediction: list[str] = Field(description="path of classes from the root down")
    confidence: list[float]
    shown: int = Field(description="number of levels that are sure enough; 0: needs human review")
    cut: bool
    probabilities: list[dict[str, float]]


class ClassifyAnswer(BaseModel):
    results: list[ClassResult | PathResult | LabelsResult] = Field(description="one per text, in the same order")
    inference_time_ms: float


class SummarizeRequest(Request):
    text: Text


class Hallucination(BaseModel):
    kind: str
    text: str
    span: list[int]
    detail: str


class SummarizeAnswer(BaseModel):
    summary: str
    finished: bool
    cut: bool
    hallucinations: list[Hallucination] | None = Field(
        description="found claims that the text does not support; null where the text is not English"
    )
    inference_time_ms: float


class LoadedModel(BaseModel):
    name: str
    task: Literal["qa", "classification", "hierarchical", "summarization"]


class Health(BaseModel):
    status: str = Field(description="ok, or the problem")
    model_loaded: bool
    gpu_available: bool


class Problem(BaseModel):
    detail: Any
