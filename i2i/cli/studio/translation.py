"""A translation as the studio asks for it, as a command line and as Python lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2i.cli.studio.workspace import Outcome, Workspace, reason
from i2i.errors import JobError, RequestError


@dataclass(frozen=True)
class Translation:
    """Options of `i2i translate`, under the names they have there."""

    model: str
    direction: str = "ab"
    chain: Sequence[str] = ()
    tile: str = ""
    seed: int | None = None
    samples: int = 1
    format: str = ""

    def words(self, source: str, out: str, spread: str) -> list[str]:
        """The command line."""
        words = ["translate", self.model, source, "--out", out]
        words += ["--direction", self.direction] if self.direction != "ab" else []
        words += [word for each in self.chain for word in ("--chain", each)]
        words += ["--tile", self.tile] if self.tile else []
        words += ["--seed", str(self.seed)] if self.seed is not None else []
        words += ["--samples", str(self.samples), "--spread", spread] if self.samples > 1 else []
        return words + (["--format", self.format] if self.format else [])

    def python(self, source: str, out: str, spread: str) -> str:
        """The Python lines."""
        stages = [(self.model, self.direction), *(
            (name.removesuffix(":ba"), "ba" if name.endswith(":ba") else "ab") for name in self.chain)]
        loads = [f"load({name!r})" for name, _ in stages]
        options = [f"direction={self.direction!r}"] if self.direction != "ab" and not self.chain else []
        options += [f"suffix={f'.{self.format}'!r}"] if self.format else []
        options += [f"limits=Limits.parse(tile={self.tile!r})"] if self.tile else []
        options += [f"seed={self.seed}"] if self.seed is not None else []
        options += [f"samples={self.samples}", f"spread=Path({spread!r})"] if self.samples > 1 else []
        chain = ", ".join(load if way == "ab" else f"({load}, {way!r})"
                          for load, (_, way) in zip(loads, stages, strict=True))
        call = ", ".join(["model", f"open_source({source!r})", f"Path({out!r})", *options])
        return "\n".join([
            "from pathlib import Path\n", f"from i2i import {'Chain, ' * bool(self.chain)}load",
            "from i2i.data.sources import open_source",
            *["from i2i.inference.tiled.limits import Limits"] * bool(self.tile),
            "from i2i.inference.translate import translate\n",
            f"model = {f'Chain({chain})' if self.chain else loads[0]}", f"translate({call})"])

    def run(self, workspace: Workspace, source: Path, folder: Path
            ) -> tuple[Outcome, list[Path], list[Path]]:
        """Translate an image, a folder or a zip: what was printed, the results, and the spreads of samples.

        Raises:
            RequestError: if the model is not offered, or the command says that the request is wrong.
            JobError: if nothing could be translated.
        """
        check_offered(workspace, [self.model, *(name.removesuffix(":ba") for name in self.chain)])
        out, spread = folder / "translated", folder / "spread"
        outcome = workspace.run(self.words(str(source), str(out), str(spread)))
        results, spreads = ([path for path in sorted(each.rglob("*")) if path.is_file()]
                            for each in (out, spread))
        if not results:
            raise (RequestError if outcome.code == 2 else JobError)(reason(outcome))
        return outcome, results, spreads


def check_offered(workspace: Workspace, names: Sequence[str]) -> None:
    """RequestError for a model that the studio does not list."""
    offered = workspace.models()
    for name in names:
        if name not in offered:
            raise RequestError(f"model {name[:60]} is not offered; accepted: {', '.join(offered)}")
