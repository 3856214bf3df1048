"""Components of other people's files and packages: found, named, recorded, and never run unasked."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import i2i as package
from i2i.runs import checkpoint
from tests.conftest import SMALL
from tests.forked import run as i2i  # Plugins are state of a process.

ROOT = Path(__file__).parents[1]
EXAMPLE = re.search(r"^`my_loss\.py`:\n\n```python\n(.*?)^```", (ROOT / "docs" / "plugins.md").read_text(), re.MULTILINE | re.DOTALL)[1]
TRAIN = ("train", "pix2pix", *SMALL, "train.images=4", "adversarial=margin", "adversarial.margin=0.5", "--device", "cpu")


def fresh(*words: object, cwd: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A process that has imported nothing of i2i."""
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(path)]), "OMP_NUM_THREADS": "1"})


def error(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr.strip()


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "my_loss.py").write_text(EXAMPLE)
    return tmp_path / "my_loss.py"


def install(site: Path, name: str, source: str, target: str) -> Path:
    """A package as an installer would have left it, offline."""
    site.mkdir(exist_ok=True)
    (site / f"{name}.py").write_text(source)
    info = site / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[i2i.components]\nmine = {target}\n")
    return site


def test_a_file_is_trained_saved_resumed_loaded_and_translated(plugin: Path, strips: Path, tmp_path: Path) -> None:
    done = i2i(*TRAIN, "--data", strips, "--out", "run", "--plugin", "my_loss.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest()
    used = [{"name": "my_loss.py", "sha256": sha256, "components": ["adversarial margin"]}]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plugins"] == used
    assert checkpoint.read_header(tmp_path / "run" / "model.safetensors", "model")["plugins"] == used

    done = i2i("translate", "run", strips / "test", "--half", "left", "--out", "out", "--device", "cpu", "--plugin", "my_loss.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 4
    code = "import i2i; i2i.load_plugin('my_loss.py'); i2i.load_plugin('my_loss.py'); print(i2i.load('run', device='cpu'))"
    assert "Model(pix2pix" in i2i(cwd=tmp_path, code=code).stdout
    assert "is finished" in i2i(*TRAIN, "--data", strips, "--out", "run", "--plugin", "my_loss.py", cwd=tmp_path).stdout

    missing = "made with the plugin my_loss.py (adversarial margin), which is not loaded"
    for words in (("translate", "run", strips / "test", "--out", "x"), ("evaluate", "run"), ("train", "--resume", "run")):
        assert missing in error(i2i(*words, "--device", "cpu", cwd=tmp_path))
    assert "--plugin my_loss.py" in error(i2i("translate", "run", strips / "test", "--out", "x", cwd=tmp_path))

    plugin.write_text(EXAMPLE + "\nprint('changed')\n")
    refused = i2i("train", "--resume", "run", "--device", "cpu", "--plugin", "my_loss.py", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "changed\n")
    assert "the plugin my_loss.py has changed since run was made with it" in refused.stderr
    warned = i2i("translate", "run", strips / "test", "--half", "left", "--out", "y", "--device", "cpu", "--plugin", "my_loss.py", cwd=tmp_path)
    assert (warned.returncode, warned.stderr.count("warning: the plugin my_loss.py has changed")) == (0, 1)


METRICS = """
from i2i.metrics.set_metrics import Score
from i2i.registry import register

@register("paired_metric", "largest_error")
def largest_error(find_weights):
    \"\"\"Largest difference of a level.\"\"\"
    return lambda fake, real: (fake.double() - real.double()).abs().amax((1, 2, 3))

@register("metric", "numbers")
def numbers(fake, real, context):
    \"\"\"How many images there are.\"\"\"
    return {"fakes": Score(float(len(fake))), "reals": Score(float(len(real)))}
"""


def test_metrics_of_a_file(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "my_metrics.py").write_text(METRICS)
    words = ("evaluate", trained, "--metrics", "l1,largest_error", "--json", "figures.json", "--device", "cpu")
    done = i2i(*words, "--plugin", "my_metrics.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "figures.json").read_text())["scores"]["model"]
    assert 255 >= scores["largest_error"] > scores["l1"] > 0
    assert "no metric is called 'largest_error'" in error(i2i(*words, cwd=tmp_path))
    found = json.loads((trained / "config.json").read_text())["data"]["where"]
    done = i2i("evaluate", "--real", f"{found}/train", "--fake", f"{found}/test", "--metrics", "numbers", "--plugin", "my_metrics.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"fakes +6.0000\b.*\nreals +6.0000\b", done.stdout)


def test_a_recipe_with_a_network_and_a_loss_from_three_files(strips: Path, tmp_path: Path) -> None:
    """Those of CONTRIBUTING.md."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    files = dict(re.findall(r"^`i2i/\w+/(\w+\.py)`, imported in .*?```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    plugins = [word for name in files for word in ("--plugin", name)]
    done = i2i("train", "context-encoder", "generator=encoder-decoder", "adversarial=margin-ranking", "generator.width=4", "discriminator.width=4", "discriminator.layers=1",
               "batch_size=2", "images=4", "--data", strips, "--out", "run", "--device", "cpu", *plugins, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    described = json.loads((tmp_path / "run" / "config.json").read_text())["plugins"]
    assert {each["name"]: each["components"] for each in described} == {
        "context_encoder.py": ["recipe context-encoder"], "encoder_decoder.py": ["generator encoder-decoder"], "margin_ranking.py": ["adversarial margin-ranking"]}
    words = ("translate", "run", strips / "test", "--half", "left", "--out", "out", "--device", "cpu")
    assert i2i(*words, *plugins, cwd=tmp_path).returncode == 0
    assert "context_encoder.py (recipe context-encoder), which is not loaded" in error(i2i(*words, cwd=tmp_path))


PRESETS = """
from i2i.nets.unet import UNet
from i2i.recipes.presets import Preset
from i2i.registry import register

register("preset", "soft-pix2pix")(Preset("pix2pix", ("lambda_l1=50", "generator=my-unet"), "Doe 2026"))
register("generator", "my-unet")(UNet)
"""


def test_a_preset_of_a_file_or_package(strips: Path, tmp_path: Path) -> None:
    """A network that is one of ours under another name belongs to the plugin, too."""
    (tmp_path / "my_presets.py").write_text(PRESETS)
    words = ("train", "soft-pix2pix", "generator.width=4", "discriminator.width=4", "discriminator.layers=1", "batch_size=2", "images=4",
             "--data", strips, "--out", "run", "--device", "cpu")
    done = i2i(*words, "--plugin", "my_presets.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["recipe"]["name"], config["recipe"]["requested"], config["recipe"]["settings"]["lambda_l1"]) == ("pix2pix", "soft-pix2pix", 50)
    assert [each["components"] for each in config["plugins"]] == [["preset soft-pix2pix", "generator my-unet"]]
    (used,) = checkpoint.read_header(tmp_path / "run" / "model.safetensors", "model")["plugins"]
    assert used["components"] == ["generator my-unet"]          # A model does not depend on how its settings were chosen.
    assert "my_presets.py (preset soft-pix2pix, generator my-unet), which is not loaded" in error(i2i("train", "--resume", "run", "--device", "cpu", cwd=tmp_path))

    site = install(tmp_path / "site", "my_presets", PRESETS, "my_presets")
    listed = i2i("list", "soft-pix2pix", cwd=tmp_path, path=site).stdout
    assert listed.startswith("soft-pix2pix (preset, from my-presets): Doe 2026 (pix2pix). The same as: i2i train pix2pix lambda_l1=50 generator=my-unet")
    assert re.search(r"^  lambda_l1 +50", listed, re.MULTILINE)


WRONG_PRESETS = """
import i2i.recipes
from i2i.recipes.presets import Preset
from i2i.registry import register
register("preset", "misspelt")(Preset("pix2pix", ("lambda_l=50",), "Doe"))
register("preset", "orphan")(Preset("pix3pix", (), "Doe"))
register("preset", "no-preset")(("pix2pix", "lambda_l1=50"))
"""
TRY_THEM = """
import sys, i2i
from i2i.cli import app
def attempt(call, *arguments):
    try:
        call(*arguments)
    except i2i.RequestError as error:
        print(error)
for name in ("text", "taken", "number"):
    attempt(i2i.load_plugin, name + ".py")
i2i.load_plugin("wrong.py")
for name in ("misspelt", "orphan", "no-preset"):
    attempt(i2i.train, name)
app.run(["list", "preset"])
"""


def test_a_wrong_preset_is_one_line_and_keeps_no_other_from_being_listed(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG_PRESETS)
    for name, line in {"text": 'register("preset", "soft")(Preset("pix2pix", "lambda_l1=50", "Doe"))', "taken": 'register("preset", "dcgan")(Preset("gan", (), "Doe"))',
                       "number": 'register("norm", "soft")(0)'}.items():
        (tmp_path / f"{name}.py").write_text("\n".join(WRONG_PRESETS.splitlines()[:4]) + f"\n{line}\n")
    lines = i2i(cwd=tmp_path, code=TRY_THEM).stdout.splitlines()
    assert lines[:5] == ["--plugin text.py, line 5: TypeError: settings is a text; accepted: a tuple, such as ('lambda_l1=50',)",
                         "--plugin taken.py, line 5: ValueError: preset 'dcgan' is registered twice", "--plugin number.py, line 5: TypeError: norm 'soft' is int and cannot be called",
                         lines[3], "preset 'orphan' is one of a recipe 'pix3pix', which does not exist; did you mean 'pix2pix'? " + lines[4].partition("? ")[2]]
    assert lines[3].startswith("preset 'misspelt' cannot be used: no setting 'lambda_l'; did you mean 'lambda_l1'?")
    assert lines[5] == "preset 'no-preset' of wrong.py is a tuple; accepted: an i2i.recipes.presets.Preset"
    assert [line.split()[0] for line in lines[6:] if "(preset, from wrong.py)" in line] == ["misspelt", "no-preset", "orphan"]
    assert any(line.startswith("dcgan (preset): Radford et al. 2016") for line in lines)


DATASET = """
from dataclasses import dataclass, replace
from typing import ClassVar

from i2i.data.paired import PairedDataset, find_paired
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import register


class InvertedTargets(PairedDataset):
    \"\"\"Pairs whose targets are inverted.\"\"\"

    def decode(self, keys, index):
        a, b = super().decode(keys, index)
        return a, replace(b, array=255 - b.array)


@register("dataset", "inverted-targets")
def find_inverted_targets(source, direction="ab"):
    \"\"\"Pairs with inverted targets.\"\"\"
    return {name: InvertedTargets(split.source, name, split.a, split.b, direction) for name, split in find_paired(source).items()}


@register("recipe", "inverting")
@dataclass(frozen=True, kw_only=True)
class Inverting(Pix2Pix):
    \"\"\"Pix2pix of inverted targets.\"\"\"

    dataset: ClassVar[str] = "inverted-targets"
"""

SPAWNED = """
import multiprocessing

import i2i

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    i2i.load_plugin("my-data.py")
    for workers in (0, 1):
        i2i.train("inverting", "generator.width=4", "discriminator.width=4", "discriminator.layers=1", "batch_size=2", "images=4", f"num_workers={workers}",
                  data="strips", out=str(workers), device="cpu")
"""


def test_loader_processes_that_are_spawned_know_the_classes_of_a_file(strips: Path, tmp_path: Path) -> None:
    """As on macOS and Windows; forked ones know them anyway.  The batches are the same as without processes."""
    (tmp_path / "my-data.py").write_text(DATASET)
    (tmp_path / "train.py").write_text(SPAWNED)
    done = fresh("train.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0" / "log.jsonl").read_bytes() == (tmp_path / "1" / "log.jsonl").read_bytes()
    assert "--data is needed: nothing bundled is a dataset of kind 'inverted-targets'" in error(i2i("train", "inverting", "--plugin", "my-data.py", cwd=tmp_path))


CALLBACK = """
from i2i.registry import register
from i2i.training.callbacks.base import Callback

@register("callback", "counter")
class Counter(Callback):
    \"\"\"Counts steps.\"\"\"
    steps = 0

    def on_step(self, trainer, logs):
        self.steps += 1

    def on_end(self):
        print(f"{self.steps} steps were counted")
"""


def test_a_callback_of_a_file(strips: Path, tmp_path: Path) -> None:
    """It belongs to the run, not to the model."""
    (tmp_path / "my_callback.py").write_text(CALLBACK)
    words = ("train", "pix2pix", *SMALL, "train.images=4", "train.callbacks=counter", "--data", strips, "--out", "run", "--device", "cpu")
    done = i2i(*words, "--plugin", "my_callback.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 steps were counted" in done.stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plugins"][0]["components"] == ["callback counter"]
    assert "plugins" not in checkpoint.read_header(tmp_path / "run" / "model.safetensors", "model")
    assert i2i("translate", "run", strips / "test", "--half", "left", "--out", "out", "--device", "cpu", cwd=tmp_path).returncode == 0
    assert "my_callback.py (callback counter), which is not loaded" in error(i2i("train", "--resume", "run", "--device", "cpu", cwd=tmp_path))


def test_an_installed_package_is_trained_saved_loaded_and_translated(strips: Path, tmp_path: Path) -> None:
    site = install(tmp_path / "site", "example_losses", EXAMPLE, "example_losses")
    done = i2i(*TRAIN, "--data", strips, "--out", "run", cwd=tmp_path, path=site)
    assert done.returncode == 0, done.stderr
    used = [{"name": "example-losses", "version": "1.2", "components": ["adversarial margin"]}]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plugins"] == used
    words = ("translate", "run", strips / "test", "--half", "left", "--out", "out", "--device", "cpu")
    assert i2i(*words, cwd=tmp_path, path=site).returncode == 0
    assert "made with the plugin example-losses (adversarial margin), which is not installed" in error(i2i(*words, cwd=tmp_path))
    listed = i2i("list", "adversarial", cwd=tmp_path, path=site).stdout
    assert "margin (adversarial, from example-losses): Hinge loss with a margin." in listed
    assert re.search(r"margin +1.0 +Logits beyond it cost nothing", listed)


def test_pip_installs_the_entry_point_of_a_package(tmp_path: Path) -> None:
    """As the page says, by a function; without a network."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "my_losses.py").write_text("def register_all():\n" + "".join(f"    {line}\n" for line in EXAMPLE.splitlines()))
    entry = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(), re.DOTALL)[1]
    (project / "pyproject.toml").write_text('[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n[project]\nname = "my-losses"\nversion = "0.3"\n'
                                            f'{entry}[tool.hatch.build.targets.wheel]\ninclude = ["my_losses.py"]\n')
    pytest.importorskip("hatchling")
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", tmp_path / "site", project],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "margin (adversarial, from my-losses)" in i2i("list", "margin", cwd=tmp_path, path=tmp_path / "site").stdout


def test_packages_are_not_loaded_when_i2i_is_imported(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "loud", f"print('loaded')\n{EXAMPLE}", "loud")
    code = "import i2i\nfrom i2i import registry, losses\nprint('imported')\nregistry.names('adversarial')\nregistry.names('norm')"
    assert fresh("-c", code, cwd=tmp_path, path=site).stdout == "imported\nloaded\n"


@pytest.mark.parametrize(("source", "target", "reason"), [
    ("import no_such_module", "broken", "ModuleNotFoundError: No module named 'no_such_module'"), (f"{EXAMPLE}\nraise ValueError('two\\nlines')", "broken", "ValueError: two lines"),
    ("x = (", "broken", "SyntaxError"), ("", "broken:nothing", "AttributeError"), ("raise SystemExit(3)", "broken", "SystemExit: 3"),
    (f"{EXAMPLE}\nregister('norm', 'mine')(dict)", "broken", "ValueError: no signature found"),
    ("from i2i import nets\nfrom i2i.registry import register\nregister('generator', 'unet')(lambda: None)", "broken", "'unet' is registered twice"),
])
def test_a_broken_package_is_one_warning(tmp_path: Path, source: str, target: str, reason: str) -> None:
    site = install(tmp_path / "site", "broken", source, target)
    done = i2i("list", "adversarial", cwd=tmp_path, path=site)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"warning: the plugin broken is left out: {reason.split(':')[0]}" if ":" in reason else "warning: the plugin broken is left out: ")
    assert reason in done.stderr
    assert "lsgan (adversarial)" in done.stdout
    assert "margin (adversarial" not in done.stdout           # What it had registered before it failed.


def test_i2is_own_components_keep_their_names(tmp_path: Path) -> None:
    """Also those that are imported after the plugin."""
    source = "from i2i.registry import register\n@register('metric', 'kid')\ndef kid(): 'Mine.'\n"
    site = install(tmp_path / "site", "other_kid", source, "other_kid")
    code = "from i2i import registry\nregistry.names('metric')\nimport i2i.metrics.set_metrics\nprint(registry.lookup('metric', 'kid').__module__)"
    done = fresh("-c", code, cwd=tmp_path, path=site)
    assert done.stdout.startswith("i2i.metrics"), done.stderr
    assert done.stderr == "warning: metric 'kid' of other-kid is left out: i2i has one of that name\n"


@pytest.mark.parametrize(("name", "text", "said"), [
    ("none.py", None, "none.py is no Python file"), ("my_loss.txt", "", "is no Python file"), ("empty.py", "", "it registers no component"),
    ("syntax.py", "x = (", "SyntaxError"), ("fails.py", "import i2i.nets\n\n1 / 0", "fails.py, line 3: ZeroDivisionError: division by zero"),
    ("quits.py", "raise SystemExit(0)", "line 1: SystemExit"), ("ends.py", "raise GeneratorExit", "line 1: GeneratorExit"),
    ("lines.py", "raise ValueError('two\\nlines')", "line 1: ValueError: two lines"), ("itself.py", "import i2i\ni2i.load_plugin('itself.py')", "it registers no component"),
    ("mute.py", "class E(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise E", "mute.py, line 4: E"),
    ("name.py", "from i2i.registry import register\nregister('norm', 'a b')(print)", "norm 'a b' cannot be typed; accepted: a name such as 'my-norm'"),
    ("three.py", "from i2i.registry import register\nregister('norm', 3)(print)", "norm 3 cannot be typed"),
    ("kind.py", "from i2i.registry import register\nregister('generatr', 'mine')(print)", "no kind of component is called 'generatr'; did you mean 'generator'?"),
    ("loss.py", "from i2i.registry import register\nregister('loss', 'mine')(print)", "no kind of component is called 'loss'; known: adversarial, augment, "),
    ("signature.py", "from i2i.registry import register\nregister('norm', 'mine')(dict)", "signature.py: ValueError: no signature found"),
    ("annotation.py", "from i2i.registry import register\n@register('norm', 'mine')\ndef f(c, *, a: 'Nope' = 1): 'x'", "NameError: name 'Nope' is not defined"), ("binary.py", "\0", "source code"),
    ("taken.py", "import i2i.losses\nfrom i2i.registry import register\n@register('adversarial', 'lsgan')\ndef f(): 'x'", "'lsgan' is registered twice"),
])
def test_a_file_that_cannot_be_a_plugin_is_one_line(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert said in error(i2i("list", "adversarial", "--plugin", name, cwd=tmp_path))


def test_a_recipe_may_have_kinds_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("""from dataclasses import dataclass
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import component, register, Spec

@register("recipe", "sharpened")
@dataclass(frozen=True, kw_only=True)
class Sharpened(Pix2Pix):
    'Pix2pix with an edge loss.'
    edges: Spec = component("edge_loss", "sobel")

@register("edge_loss", "sobel")
def sobel():
    'Sobel edges.'
""")
    done = i2i("list", "edge_loss", "--plugin", "own.py", cwd=tmp_path)
    assert done.stdout.startswith("sobel (edge_loss, from own.py): Sobel edges."), done.stderr


def test_two_files_of_one_name_are_refused(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my_loss.py").write_text(EXAMPLE.replace('"margin"', '"other"'))
    assert "another plugin of that name is loaded" in error(i2i("list", "--plugin", "my_loss.py", "--plugin", "other/my_loss.py", cwd=tmp_path))


def test_an_untrusted_model_runs_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its header names a plugin, with a path to a file that exists: it is only named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('ran', 'w').write('x')\n")
    tensors, header = checkpoint.load(trained / "model.safetensors", "model")
    for plugins, said in [([{"name": str(tmp_path / "evil.py"), "sha256": "0" * 64, "components": ["adversarial evil"]}], "evil.py (adversarial evil), which is not loaded"),
                          ([{"name": "evil\x1b[2J.py", "sha256": "0", "components": []}], r"evil\x1b[2J.py"), ([{"name": "os", "components": ["generator os"]}], "os (generator os), which is not"),
                          ("evil.py", "is damaged"), ([3], "is damaged"), ([{"name": "x"}], "is damaged"), ({"name": "x", "components": 3}, "is damaged")]:
        checkpoint.save(tmp_path / "m.safetensors", tensors, header | {"plugins": plugins})
        with pytest.raises(package.RequestError, match=re.escape(said)):
            package.load("m.safetensors", device="cpu")
        assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "ran").exists()


def test_no_plugin_is_an_empty_list_to_every_version_of_typer() -> None:
    """Those before 0.20 took the length of what the callback of an option returns, and every command failed."""
    from i2i.cli.options import _load_plugins
    assert _load_plugins(None) == _load_plugins([]) == []
