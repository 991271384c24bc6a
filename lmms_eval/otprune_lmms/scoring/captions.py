"""Caption metrics with shared work between metrics, configs and tasks; the numbers are unchanged.

lmms-eval's caption tasks start Java three times for each of seven metrics: the tokeniser for
references, again for candidates, and METEOR, even where the metric is not METEOR. Inside
`shared_captions` the tokeniser runs once for each new text, METEOR is one process that scores each
sentence once, and BLEU is computed once for its four orders. Everything else is lmms-eval's and
pycocoevalcap's code. A text is all captions of a call, never a single line: Stanford's tokeniser
looks ahead over line ends, so a line's tokens can depend on the next one.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pycocoevalcap.meteor.meteor as stock_meteor
import pycocoevalcap.tokenizer.ptbtokenizer as stock_tokenizer
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from otprune_lmms.processes import tied

Captions = Mapping[Any, Sequence[Mapping[str, str]]]
"""Captions of each image, each under "caption"."""

Tokenised = Mapping[Any, Sequence[str]]
"""Tokenised captions of each image."""

_TOKENIZER_JAR = Path(stock_tokenizer.__file__).parent / stock_tokenizer.STANFORD_CORENLP_3_4_1_JAR
_METEOR_JAR = Path(stock_meteor.__file__).parent / stock_meteor.METEOR_JAR


class JavaError(RuntimeError):
    """Java is missing, or a Java tool failed."""


def java() -> str | None:
    """Return the path of the Java runtime, or None."""
    return shutil.which("java")


def _java(*arguments: str) -> list[str]:
    """Return a command that runs Java; its process ends with this one, and leaves no files."""
    found = java()
    if found is None:
        raise JavaError("caption metrics need Java (tokeniser, METEOR), which is not on the PATH")
    return tied([found, "-XX:-UsePerfData", *arguments])


_BREAKS = str.maketrans(dict.fromkeys("\n\v\f\r\x85\u2028\u2029", " "))
"""What Stanford's tokeniser takes for the end of a line."""


def one_line(caption: str) -> str:
    """Return a caption with spaces for line breaks of any kind.

    The tokeniser is given a caption a line. pycocoevalcap replaces newlines alone, so that a
    caption with another line break moves all later captions to the images before them.
    """
    return caption.translate(_BREAKS)


def _text(captions: Captions) -> str:
    return "\n".join(one_line(one["caption"]) for many in captions.values() for one in many)


class SharedTokenizer:
    """Stanford's tokeniser, run once for each new text, on many texts at a time."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}
        self.runs = 0

    def prime(self, texts: Iterable[str]) -> None:
        """Tokenise texts that `tokenize` will be called with, in one run.

        A text that was not primed costs `tokenize` a run of its own; nothing else differs.

        Args:
            texts: captions joined by newlines, as `tokenize` joins those of its call.

        Raises:
            JavaError: Java is missing, or the tokeniser failed.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._lines]
        if not new:
            return
        command = _java("-cp", str(_TOKENIZER_JAR), "edu.stanford.nlp.process.PTBTokenizer")
        command += ["-preserveLines", "-lowerCase", "-ioFileList", "files"]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            pairs = []
            for number, text in enumerate(new):
                (folder / f"{number}.in").write_bytes(text.encode())
                pairs.append(f"{number}.in\t{number}.out\n")
            (folder / "files").write_text("".join(pairs), encoding="utf-8")
            # A group of its own: Ctrl-C must end this process first, not the one that it waits for.
            done = subprocess.run(
                command, cwd=folder, capture_output=True, check=False, process_group=0
            )
            made = [folder / f"{number}.out" for number in range(len(new))]
            if done.returncode or not all(file.exists() for file in made):
                raise JavaError(f"the caption tokeniser failed: {_tail(done.stderr)}")
            self.runs += 1
            for text, file in zip(new, made, strict=True):
                self._lines[text] = file.read_bytes().decode().split("\n")

    def tokenize(self, captions: Captions) -> dict[Any, list[str]]:
        """Return the tokens of each image's captions without punctuation, joined by spaces.

        Raises:
            JavaError: Java is missing, the tokeniser failed, or it returned another number of lines
                than it was given.
        """
        text = _text(captions)
        self.prime([text])
        images = [image for image, many in captions.items() for _ in many]
        lines = self._lines[text]
        # Each line is ended, the last one by the end of the file where it is empty.
        lines = lines[: len(images)] if not any(lines[len(images) :]) else lines
        if len(lines) != len(images):
            raise JavaError(
                f"the caption tokeniser returned {len(lines)} lines for {len(images)} captions"
            )
        tokenised: dict[Any, list[str]] = {}
        for image, line in zip(images, lines, strict=True):
            words = [w for w in line.rstrip().split(" ") if w not in stock_tokenizer.PUNCTUATIONS]
            tokenised.setdefault(image, []).append(" ".join(words))
        return tokenised


class SharedMeteor:
    """METEOR in one process, started when it is first needed; each sentence is scored once."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._statistics: dict[str, str] = {}

    def compute_score(self, references: Tokenised, found: Tokenised) -> tuple[float, list[float]]:
        """Return the corpus score and the score of each image.

        Raises:
            JavaError: Java is missing, or METEOR has ended.
        """
        lines = []
        for image, refs in references.items():
            candidate = found[image][0].replace("|||", "").replace("  ", " ")
            lines.append(" ||| ".join(["SCORE", *refs, candidate]))
        for line in lines:
            if line not in self._statistics:
                self._write(line)
                self._statistics[line] = self._read()
        self._write(" ||| ".join(["EVAL", *(self._statistics[line] for line in lines)]))
        scores = [float(self._read()) for _ in lines]
        return float(self._read()), scores

    def close(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            with self._process:
                self._process.kill()
            self._process = None

    def start(self) -> None:
        """Start the process unless it runs; it takes some seconds before it can score.

        Raises:
            JavaError: Java is missing.
        """
        if self._process is None:
            command = _java("-jar", "-Xmx2G", _METEOR_JAR.name, "-", "-", "-stdio")
            self._process = subprocess.Popen(
                [*command, "-l", "en", "-norm"],
                cwd=_METEOR_JAR.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                process_group=0,  # as the tokeniser
            )

    def _write(self, line: str) -> None:
        self.start()
        pipe = self._process.stdin if self._process else None
        if self._process is None or pipe is None or self._process.poll() is not None:
            raise JavaError("METEOR has ended")
        pipe.write(line + "\n")
        pipe.flush()

    def _read(self) -> str:
        pipe = self._process.stdout if self._process else None
        line = pipe.readline() if pipe else ""
        if not line:
            raise JavaError("METEOR has ended without an answer")
        return line.strip()


class CaptionTools:
    """The tools that are shared inside one `shared_captions`.

    Attributes:
        tokenizer: see `SharedTokenizer`; call its `prime` with all candidates of a task at once.
        meteor: see `SharedMeteor`.
        cider: CIDEr of each image of the captions scored last, by the image's id.
    """

    def __init__(self) -> None:
        self.tokenizer = SharedTokenizer()
        self.meteor = SharedMeteor()
        self.cider: dict[Any, float] = {}
        self._bleu: dict[tuple[Any, ...], Any] = {}

    def bleu(self, scorer: Bleu, references: Tokenised, found: Tokenised) -> Any:
        """Return BLEU's result for its orders, computed once for equal captions."""
        key = (scorer._n, _frozen(references), _frozen(found))
        if key not in self._bleu:
            # One entry: lmms-eval computes the four orders of a config one after another.
            self._bleu.clear()
            self._bleu[key] = _stock_bleu(scorer, references, found, verbose=0)
        return self._bleu[key]


class _StandIn(Meteor):
    """A METEOR without a process; it may live longer than the context that has made it."""

    def __del__(self) -> None:
        """Do nothing: the stock method ends a process."""


_stock_bleu = Bleu.compute_score
_stock_cider = Cider.compute_score


def _frozen(captions: Tokenised) -> tuple[Any, ...]:
    return tuple((image, tuple(many)) for image, many in captions.items())


def guard_captions() -> None:
    """From now on, let lmms-eval's caption tasks in this process use `SharedTokenizer`.

    Then a line break inside one caption moves no other caption, also where lmms-eval scores.
    """
    tokenizer = SharedTokenizer()

    def tokenize(self: PTBTokenizer, captions_for_image: Captions) -> dict[Any, list[str]]:
        return tokenizer.tokenize(captions_for_image)

    PTBTokenizer.tokenize = tokenize


@contextmanager
def shared_captions() -> Iterator[CaptionTools]:
    """In this context pycocoevalcap's tokeniser, METEOR and BLEU share their work.

    Yields:
        The shared tools. METEOR's process ends with the context.
    """
    tools = CaptionTools()

    def tokenize(_: PTBTokenizer, captions: Captions) -> dict[Any, list[str]]:
        return tools.tokenizer.tokenize(captions)

    def meteor(_: Meteor, references: Tokenised, found: Tokenised) -> tuple[float, list[float]]:
        return tools.meteor.compute_score(references, found)

    def bleu(scorer: Bleu, references: Tokenised, found: Tokenised, verbose: int = 1) -> Any:
        return tools.bleu(scorer, references, found)

    def cider(scorer: Cider, references: Tokenised, found: Tokenised) -> Any:
        total, scores = _stock_cider(scorer, references, found)
        tools.cider = dict(zip(references, map(float, scores), strict=True))
        return total, scores

    def stand_in(meteor: Meteor) -> None:
        meteor.__class__ = _StandIn

    with ExitStack() as stack:
        stack.callback(tools.meteor.close)
        for owner, name, shared in (
            (PTBTokenizer, "tokenize", tokenize),
            (Meteor, "__init__", stand_in),
            (Meteor, "compute_score", meteor),
            (Bleu, "compute_score", bleu),
            (Cider, "compute_score", cider),
        ):
            stack.enter_context(patch.object(owner, name, shared))
        yield tools


def _tail(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"
