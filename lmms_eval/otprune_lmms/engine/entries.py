"""Answers as the journal has them."""

from otprune_lmms.engine.requests import Answer
from otprune_lmms.engine.survey import Question
from otprune_lmms.journal import Record
from otprune_lmms.pruning_config import PruningConfig


def answer_of(record: Record) -> Answer:
    """Return the answer that a record holds."""
    return Answer(
        text=record.text,
        loss=record.loss,
        greedy=record.greedy,
        kept=record.kept,
        candidates=record.candidates,
        new_tokens=record.new_tokens,
        seconds=record.seconds.get("generate", 0.0),
        phases={name: spent for name, spent in record.seconds.items() if name != "generate"},
    )


def record_of(
    question: Question, answer: Answer, config: PruningConfig, fingerprint: str
) -> Record:
    """Return the record of an answer; ``fingerprint`` is the config's."""
    request = question.request
    seconds = {"generate": answer.seconds, **answer.phases}
    return Record(
        config=fingerprint,
        request=question.digest,
        settings=config.as_dict(),
        task=request.task,
        split=request.split,
        doc_id=request.doc_id,
        index=request.index,
        kind=request.kind,
        text=answer.text,
        loss=answer.loss,
        greedy=answer.greedy,
        kept=answer.kept,
        candidates=answer.candidates,
        new_tokens=answer.new_tokens,
        seconds={name: round(spent, 6) for name, spent in seconds.items()},
    )
