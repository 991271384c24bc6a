"""The model ``llava`` of lmms-eval: hands lmms-eval's requests to the engine."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics

from otprune.checks import check_device
from otprune_lmms.engine import (
    Answers,
    DocumentError,
    Engine,
    Request,
    RequestError,
    VisualFolder,
    requests_from,
)
from otprune_lmms.environment import SettingsError, merged, read_environment
from otprune_lmms.installation import check_installation
from otprune_lmms.journal import Journal
from otprune_lmms.launch import forward_messages
from otprune_lmms.launch.command_line import arguments_of, completed
from otprune_lmms.model_arguments import Arguments, parse, renamed
from otprune_lmms.models import check_source, load_model
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.scoring.captions import guard_captions

logger = logging.getLogger(__name__)


class PrunedModel(lmms):
    """A vision-language model with pruned visual tokens, as lmms-eval drives it.

    Args:
        **given: see `otprune_lmms.model_arguments`; completed by the environment's settings.

    Attributes:
        arguments: the arguments, checked.
        accelerator: the processes of this run.
        answers: answers of the last call, with its counts; None before the first.

    Raises:
        SettingsError: an unknown argument, an impossible value, a conflict; before anything is
            loaded.
        ValueError: the checkpoint is incomplete, damaged or of another kind.
    """

    is_simple = True

    def __init__(self, **given: Any) -> None:
        super().__init__()
        check_installation()
        forward_messages()
        # lmms-eval scores the answers in this process.
        guard_captions()
        environment = read_environment()
        self.arguments = parse(merged(renamed(given), environment))
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        self._device = _device(self.arguments, self.accelerator)
        self.answers: Answers | None = None
        self._journal: Journal | None = None
        self._engine: Engine | None = None
        if self._rank == 0:
            logger.info("pruning: %s (%s)", self.config.label, self.config.as_dict())
        self._load()

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> "PrunedModel":
        """Return the model that ``--model_args`` describe.

        Raises:
            SettingsError: see the class; or the environment has pruning settings, and lmms-eval was
                not started by its command line: its cache and results would not show them.
        """
        complete = completed(arg_string, read_environment())
        if complete != arg_string:
            raise SettingsError(
                "lmms-eval's cache and results show the settings of model_args only, and settings "
                "from the environment are added there by its command line alone; here give "
                f"model_args {complete!r}"
            )
        others = {k: v for k, v in (additional_config or {}).items() if v is not None}
        return cls(**{**others, **arguments_of(arg_string)})

    def __repr__(self) -> str:
        """Return all that decides the answers; lmms-eval's cache identifies a model by this."""
        return f"{type(self).__module__}.{type(self).__name__}({self.arguments})"

    @property
    def config(self) -> PruningConfig:
        """The pruning config."""
        return self.arguments.config

    @property
    def device(self) -> torch.device:
        """Device that the model is on."""
        return self._device

    @property
    def batch_size(self) -> int:
        """Requests in one call of the language model."""
        return self.arguments.batch_size

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Return the answers to generation requests, in order."""
        own_requests, answers = self._run(requests)
        return [answers[self.config, request].text or "" for request in own_requests]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Return (mean loss in nats, whether greedy) of each continuation, in order.

        The loss and not the log-likelihood: lmms-eval's tasks for LLaVA take the smallest value.
        """
        own_requests, answers = self._run(requests)
        found = [answers[self.config, request] for request in own_requests]
        return [(float(one.loss or 0.0), bool(one.greedy)) for one in found]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refuse.

        Raises:
            NotImplementedError: always.
        """
        tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
        raise NotImplementedError(
            f"llava answers requests of one round; {tasks} has requests of several rounds"
        )

    def clean(self) -> None:
        """Free the model; ``answers`` stay."""
        self._engine = None
        if self._journal is not None:
            self._journal.close()
        super().clean()

    def _load(self) -> None:
        given = self.arguments
        source = given.source(str(self._device))
        try:
            check_source(source, (given.config.pruning,))
        except ValueError as error:
            raise SettingsError(str(error)) from error
        if given.journal is not None:
            self._journal = Journal(given.journal, {"arguments": repr(given)})
        visual = None
        if given.visual_store is not None:
            visual = VisualFolder(Path(given.visual_store), given.visual_store_gib)
        self._engine = Engine(
            load_model(source),
            model_name=Path(given.pretrained).name,
            batch_size=given.batch_size,
            workers=given.workers,
            journal=self._journal,
            seed_video=given.seed_video,
            progress=self._rank == 0,
            eval_time=given.eval_time,
            visual_folder=visual,
        )

    def _run(self, instances: Sequence[Instance]) -> tuple[list[Request], Answers]:
        if self._engine is None:
            raise RuntimeError("the model was freed by clean(); make another one")
        try:
            own_requests = requests_from(instances, self.task_dict)
            answers = self.answers = self._engine.run(own_requests, [self.config])
        except DocumentError as error:
            raise RequestError(
                f"{error}; lmms-eval cannot leave a document out, otprune run does"
            ) from error
        _report(answers, own_requests, self._rank)
        return own_requests, answers


def _device(arguments: Arguments, accelerator: Accelerator) -> torch.device:
    """Return this process's device."""
    several = accelerator.num_processes > 1
    if several and arguments.device_map == "auto":
        raise SettingsError("device_map=auto spreads one process over all GPUs; start one process")
    wanted = arguments.device
    if wanted is None and arguments.device_map not in (None, "auto"):
        wanted = arguments.device_map
    if wanted is None or (several and wanted != "cpu"):
        return accelerator.device
    try:
        device = torch.device(check_device(wanted))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return torch.device("cuda", 0) if wanted == "cuda" else device


def _report(answers: Answers, own_requests: Sequence[Request], rank: int) -> None:
    """Write counts of the run into lmms-eval's results and into the log."""
    counts, (config,) = answers.counts, answers.configs
    found = [answers[config, request] for request in own_requests]
    kept = [n for one in found for n in one.kept]
    candidates = [n for one in found for n in one.candidates]
    cut = sum(one.truncated > 0 for one in found)
    seconds = sum(counts.seconds.values())
    tokens = sum(one.new_tokens for one in found)
    log_metrics(
        total_elapsed_time=seconds,
        total_gen_tokens=tokens,
        avg_speed=tokens / seconds if seconds else 0.0,
        additional_metrics={
            "visual_tokens_kept": sum(kept) / max(len(kept), 1),
            "visual_tokens": sum(candidates) / max(len(candidates), 1),
            "images_encoded": counts.encoded,
            "answers_from_journal": counts.reused,
            "prompts_cut": cut,
        },
    )
    if cut:
        logger.warning("%s of %s prompts are longer than the model takes, and cut", cut, len(found))
    if rank == 0:
        logger.info("%s", counts)
