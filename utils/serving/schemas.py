"""What the REST API takes and gives, with its limits; FastAPI checks requests against it and writes it to `/docs`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from utils.serving.answering import check_settings

MOST_CHARACTERS = 50_000  # of a text: about 10,000 tokens; what a model does not take of it the answer calls `cut`
MOST_TEXTS = 64  # of one request
MOST_BEAMS = 8  # each is a row of the batch

Text = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS, pattern=r"\S")]
Name = Annotated[str, Field(max_length=200)]
Names = Annotated[list[Name], Field(max_length=100)] | Name


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class PatientContext(Body):
    """What is known about the patient; it takes part in the safety checks alone."""

    age: float | None = Field(None, ge=0, le=130, description="years")
    weight: float | None = Field(None, gt=0, le=700, description="kg")
    pregnancy: bool | Name | None = None
    kidney: float | Name | None = Field(None, description="eGFR in mL/min/1.73 m2, or words: dialysis, stage 4")
    conditions: Names | None = None
    medications: Names | None = None
    allergies: Names | None = None


class GenerateRequest(Body):
    question: Text
    temperature: float | None = Field(None, ge=0, le=2, description="0: the likeliest words; default: as evaluated")
    max_length: int | None = Field(None, ge=1, le=4096, description="tokens of the answer; default: as evaluated")
    num_beams: int | None = Field(
        None, ge=1, le=MOST_BEAMS, description="beam search for the likeliest whole answer; default: as evaluated"
    )
    length_penalty: float | None = Field(
        None, ge=-2, le=2, description="of beam search: 0 and below for concise answers, above 1 for long ones"
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
    span: list[int] = Field(description="first character and the one after the last, in the text that `where` names")
    source: str
    where: Literal["question", "response"]


class SafetyReport(BaseModel):
    risk_level: int = Field(ge=0, le=4, description="0 nothing found, 1 note, 2 caution, 3 serious, 4 emergency")
    warnings: list[Finding]


class CitedPassage(BaseModel):
    number: int = Field(description="as the answer cites it")
    cited: bool = Field(description="a sentence of the answer cites it")
    id: str
    title: str
    source: str
    text: str
    score: float = Field(description="of BM25 for the question: above 0, without a top")


class GenerateAnswer(BaseModel):
    response: str = Field(description="with a corpus each sentence ends in [1] or in [no passage supports this]")
    safety_report: SafetyReport | None = Field(description="null where `use_safety` was false: nothing was checked")
    inference_time_ms: float
    finished: bool = Field(description="the answer ended by itself")
    cut: bool = Field(description="the model saw a part of the question")
    confidence: float | None = Field(description="mean probability of a token")
    confidence_note: str | None = Field(description="what that was worth in the evaluation of the model, in words")
    passages: list[CitedPassage] | None = Field(
        None, description="of the corpus, that the model was shown; null without a corpus, or where no model was asked"
    )
    supported: float | None = Field(None, description="share of the answer's sentences that a passage supports")
    wrong_citations: int | None = Field(
        None, description="citations that the model wrote itself and that were wrong; they are replaced"
    )


class ClassifyRequest(Body):
    text: Text | None = None
    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)] | None = None
    top_k: int = Field(3, ge=1, le=10_000, description="classes with their probabilities, a level")
    task: Literal["classification", "hierarchical"] | None = Field(
        None, description="which model, where both are loaded; default: classification"
    )

    @model_validator(mode="after")
    def one_of_both(self) -> "ClassifyRequest":
        if (self.text is None) == (self.texts is None):
            raise ValueError("give `text` or `texts`, and not both")
        return self


class ClassResult(BaseModel):
    prediction: str
    confidence: float = Field(description="calibrated probability")
    abstained: bool = Field(description="too unsure: for a person")
    cut: bool = Field(description="the model saw a part of the text")
    probabilities: dict[str, float]


class PathResult(BaseModel):
    prediction: list[str] = Field(description="from the root down")
    confidence: list[float]
    shown: int = Field(description="levels that are sure enough; 0: for a person")
    cut: bool
    probabilities: list[dict[str, float]]


class ClassifyAnswer(BaseModel):
    results: list[ClassResult | PathResult] = Field(description="one a text, in their order")
    inference_time_ms: float


class SummarizeRequest(Body):
    text: Text


class Invention(BaseModel):
    kind: str
    text: str
    span: list[int]
    detail: str


class SummarizeAnswer(BaseModel):
    summary: str
    finished: bool
    cut: bool
    hallucinations: list[Invention] = Field(description="what the summary says and the text does not, as far as seen")
    inference_time_ms: float


class Health(BaseModel):
    status: str = Field(description="ok, or what is wrong")
    model_loaded: bool
    gpu_available: bool


class Problem(BaseModel):
    detail: Any
