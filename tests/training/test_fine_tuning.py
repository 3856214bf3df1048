"""Runs that start from another model's weights, with layers frozen, and runs that go on after their end or end early."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import i2i as package
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training.callbacks.base import Callback
from i2i.training.callbacks.evaluation import EarlyStopping
from i2i.training.freezing import describe_frozen, frozen_parameters
from i2i.training.initial_weights import InitialWeights, find_initial_weights, load_weights, match_weights
from i2i.training.trainer import Trainer
from tests.conftest import SMALL, Run, drawn_strips
from tests.training.test_resume import StopAfter, assert_same

RUN = ("pix2pix", *SMALL, "train.images=24")
INFO = DataInfo((16, 16), num_classes=3)
D4, G4 = Spec("dcgan", {"width": 4}), Spec("dcgan", {"width": 4, "z_dim": 8})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strips, a finished pix2pix run on them, and the run that this test file begins with its weights."""
    folder = tmp_path_factory.mktemp("tuning")
    package.train(*RUN, "train.seed=1", "train.keep_models=every", data=drawn_strips(folder / "strips"), out=folder / "first", device="cpu")
    package.train(*RUN, "train.freeze=D.layers.0,G.down.0-1", init=folder / "first", data=folder / "strips", out=folder / "tuned", device="cpu")
    return folder


class Start(Callback):
    """Keeps what the networks and their averages are before the first step."""

    def on_start(self, trainer: Trainer) -> None:
        self.modules, self.average = ({key: value.clone() for key, value in modules.state_dict().items()} for modules in (trainer.modules, trainer.ema_modules))
        trainer.stop("that is all")


def started(init: object, strips: Path, out: Path, *words: str) -> Start:
    start = Start()
    with pytest.raises(package.JobError, match="that is all"):
        package.train(*RUN, *words, init=init, data=strips, out=out, device="cpu", callbacks=[start])
    return start


def tensors(run: Path, images: int, prefix: str) -> dict[str, torch.Tensor]:
    return checkpoint.subset(checkpoint.load(RunFolder(run).state(images), "state")[0], prefix)


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def test_a_run_starts_with_the_networks_and_the_average_of_another_run(base: Path, tmp_path: Path) -> None:
    start, state = started(base / "first", base / "strips", tmp_path / "run"), tensors(base / "first", 24, "modules")
    assert_equal({key: value for key, value in start.modules.items() if key[0] in "GD"}, state)
    assert_equal(start.average, tensors(base / "first", 24, "ema"))
    assert not torch.equal(start.average["G.down.0.0.weight"], start.modules["G.down.0.0.weight"])


def test_a_model_file_gives_its_average_and_no_discriminator(base: Path, tmp_path: Path) -> None:
    starts = [started(init, base / "strips", tmp_path / str(i)) for i, init in enumerate((base / "first/model.safetensors", f"{base}/first@8", None))]
    for start, name in zip(starts, ("model.safetensors", "model-00000008.safetensors"), strict=False):
        model = checkpoint.load(base / "first" / name, "model")[0]
        assert_equal(model, start.modules)
        assert_equal(model, start.average)
        assert_equal({key: value for key, value in start.modules.items() if key[0] == "D"}, starts[2].modules)


def test_without_an_average_the_networks_themselves_count(base: Path, tmp_path: Path) -> None:
    start = started(base / "first", base / "strips", tmp_path / "run", "train.ema_half_life=0")
    assert_equal({key: value for key, value in start.modules.items() if key[0] in "GD"}, tensors(base / "first", 24, "modules"))


def test_a_run_from_a_model_resumes_bit_for_bit_without_it(base: Path, tmp_path: Path) -> None:
    first = shutil.copytree(base / "first", tmp_path / "first")
    words = (*RUN, "train.freeze=D.layers.0,G.down.0-1")
    with pytest.raises(KeyboardInterrupt):
        package.train(*words, init=first, data=base / "strips", out=tmp_path / "cut", device="cpu", callbacks=[StopAfter(10)])
    shutil.rmtree(first)
    package.train(*words, init=first, data=base / "strips", out=tmp_path / "cut", device="cpu")     # The same command.
    assert_same(base / "tuned", tmp_path / "cut")
    with pytest.raises(RequestError, match="holds another run, with --init .*first instead of"):
        package.train(*words, data=base / "strips", out=tmp_path / "cut", device="cpu")


def test_a_run_killed_before_its_first_state_reads_the_model_again(base: Path, tmp_path: Path) -> None:
    first = shutil.copytree(base / "first", tmp_path / "first")
    started(first, base / "strips", tmp_path / "run")
    for state in RunFolder(tmp_path / "run").states():
        state.unlink()
    start = Start()
    with pytest.raises(package.JobError, match="that is all"):
        package.train(resume=tmp_path / "run", device="cpu", callbacks=[start])
    assert_equal(start.average, tensors(first, 24, "ema"))
    for state in RunFolder(tmp_path / "run").states():
        state.unlink()
    RunFolder(first).state(24).write_bytes(b"other")
    with pytest.raises(RequestError, match="has changed since this run began"):
        package.train(resume=tmp_path / "run", device="cpu")


def test_frozen_parameters_keep_their_bits_and_the_others_learn(base: Path) -> None:
    before, after = (tensors(base / run, 24, "modules") for run in ("first", "tuned"))
    names = {name for name, _ in Pix2Pix(generator=Spec("unet", {"width": 4}), discriminator=Spec("patch", {"width": 4, "layers": 1})).modules(
        DataInfo((32, 32))).named_parameters() if name[0] in "GD"}
    frozen = {name for name in names if name.startswith(("D.layers.0.", "G.down.0.", "G.down.1."))}
    assert len(frozen) >= 5
    assert {name for name in names if torch.equal(before[name], after[name])} == frozen
    state, _ = checkpoint.load(RunFolder(base / "tuned").state(24), "state")
    assert len([name for name in state if name.startswith("optimizer.") and name.endswith("exp_avg")]) == len(names - frozen)
    assert json.loads((base / "tuned/config.json").read_text())["init"]["model"] == str(base / "first")


def test_the_plan_says_what_is_taken_and_frozen(base: Path, i2i: Run) -> None:
    words = ("train", *RUN, "--data", base / "strips", "--dry-run")
    lines = i2i(*words, "--init", base / "first", "freeze=D.layers.0").out.splitlines()
    assert f"init: {base}/first (state-00000024.safetensors, 24 images): G whole, D whole" in lines
    assert "frozen: 388 of the 1,045 parameters of D" in lines
    lines = i2i(*words, "--init", base / "first/model.safetensors", "freeze=D.layers.0").out.splitlines()
    assert f"init: {base}/first/model.safetensors (model.safetensors, 24 images): G whole; from scratch: D (not there)" in lines
    assert "frozen: 388 of the 1,045 parameters of D, 388 of them at random values" in lines


@pytest.mark.parametrize(("pattern", "count"), [
    ("D.layers.0", 4), ("D.layers.0-2", 8), ("D_a.layers.0-2", 4), ("D_a", 6), ("G.*.bias", 16), ("G_a?.layers.1", 2), ("*.layers.0.*", 4), ("D_[ab].layers.0", 4), ("G_ab.layers.1", 2)])
def test_patterns_name_players_or_networks_and_ranges_of_layers(pattern: str, count: int) -> None:
    recipe = CycleGAN(generator=Spec("resnet", {"width": 4, "blocks": 1}), discriminator=Spec("patch", {"width": 4, "layers": 1, "norm": "instance"}))
    assert len(frozen_parameters(recipe, recipe.modules(DataInfo((16, 16))), [pattern])[pattern]) == count


@pytest.mark.parametrize(("pattern", "said"), [
    ("D.layrs.0", "did you mean D.layers.0? known: D.layers"), ("G.down.77", "known: "), ("X", "known: "), ("D.layers.2-0", "ranges such as"),
    ("D.layers.0-999999", "ranges such as"), ("(", "known: "), ("T", "known: "), ("D", "all that player D could learn"), ("*", "all that player"), ("D.layers.0-1,D.*", "all that player D")])
def test_a_pattern_that_freezes_nothing_or_all_is_one_line(base: Path, i2i: Run, pattern: str, said: str) -> None:
    result = i2i("train", *RUN, f"freeze={pattern}", "--data", base / "strips", "--out", "run")
    assert result.code == 2
    assert "train.freeze=" in result.line
    assert said in result.line
    assert len(result.line) < 400
    assert not Path("run").exists()


def saved(path: Path, recipe: Any, info: DataInfo, change: Callable[[dict[str, torch.Tensor]], None] = lambda tensors: None, **header: Any) -> InitialWeights:
    """A model file of a recipe's generating networks, with other values than new ones."""
    modules = recipe.modules(info)
    values = {f"{name}.{key}": value + 1 if value.is_floating_point() else value for name in recipe.ema_modules for key, value in modules[name].state_dict().items()}
    change(values)
    checkpoint.save(path, values, {"kind": "model", "images": 0, **header})
    return find_initial_weights(str(path))


RESNET = Pix2Pix(generator=Spec("resnet", {"width": 4, "blocks": 1}), discriminator=Spec("patch", {"width": 4, "layers": 1}))


@pytest.mark.parametrize(("recipe", "info", "line", "misfits"), [
    (GAN(generator=G4, discriminator=D4, conditional=True), DataInfo((16, 16), num_classes=5), "G 98.6%; from scratch: D (not there)", {"G.embedding.weight": "(3x8 there, 5x8 here)"}),
    (GAN(generator=G4, discriminator=D4, conditional=True), DataInfo((16, 16), b_channels=1, num_classes=3), "G 97.6%; from scratch: D (not there)",
     {"G.out.weight": "(4x3x4x4 there, 4x1x4x4 here)", "G.out.bias": "(3 there, 1 here)"}),
    (GAN(generator=G4, discriminator=D4), DataInfo((16, 16)), "G 41.7%; from scratch: D (not there)", {"G.layers.0.weight": "(16x8x4x4 there, 8x8x4x4 here)"}),
    (RESNET, DataInfo((32, 48)), "G whole; from scratch: D (not there)", {})])
def test_what_fits_is_taken_of_models_with_other_classes_channels_and_sizes(tmp_path: Path, recipe: Any, info: DataInfo, line: str, misfits: dict[str, str]) -> None:
    weights, modules = saved(tmp_path / "m.safetensors", RESNET if recipe is RESNET else GAN(generator=G4, discriminator=D4, conditional=True), INFO), recipe.modules(info)
    match = match_weights(weights, recipe, modules)
    assert match.lines == (f"init: {weights.model} (m.safetensors, 0 images): {line}", *(["init: from scratch, as they do not fit: " + ", ".join(
        f"{name} {shapes}" for name, shapes in misfits.items())] if misfits else []))
    before = {key: value.clone() for key, value in modules.state_dict().items()}
    load_weights(weights, recipe, modules, torch.nn.ModuleDict({name: modules[name] for name in recipe.ema_modules}))
    changed = {key for key, value in modules.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {name for name in match.sources if "num_batches" not in name}
    assert {name for name in before if name[0] == "G" and name not in match.sources} == misfits.keys()


@pytest.mark.parametrize("recipe", [Pix2Pix(generator=Spec("unet", {"width": 4})), GAN(generator=Spec("stylegan2", {"width": 4, "max_channels": 8, "z_dim": 8, "w_dim": 8}), discriminator=D4)])
def test_a_model_of_another_kind_is_refused(tmp_path: Path, recipe: Any) -> None:
    weights, ours = saved(tmp_path / "m.safetensors", recipe, INFO), GAN(generator=G4, discriminator=D4)
    with pytest.raises(RequestError, match=r"has no network that fits those of this run: .*; accepted: a model of the same recipe, networks and size"):
        match_weights(weights, ours, ours.modules(INFO))


def test_of_the_same_recipe_with_other_networks_the_settings_are_said(base: Path, i2i: Run) -> None:
    result = i2i("train", "pix2pix", "generator=resnet", "generator.width=8", "--data", base / "strips", "--init", base / "first", "--out", "run")
    assert result.code == 2
    assert result.line.endswith("networks and size; it was trained with generator=unet generator.width=4 discriminator.width=4 discriminator.layers=1")


def test_broken_and_hostile_files_are_one_line(base: Path, tmp_path: Path, i2i: Run) -> None:
    recipe = Pix2Pix(generator=Spec("unet", {"width": 4}), discriminator=Spec("patch", {"width": 4, "layers": 1}))
    (tmp_path / "text.safetensors").write_text("no model")
    (tmp_path / "cut.safetensors").write_bytes((base / "first/model.safetensors").read_bytes()[:-100])
    for name, value in {"negative": -1, "list": [1], "none": None}.items():
        with pytest.raises(RequestError, match="its header is none that i2i writes"):
            saved(tmp_path / f"{name}.safetensors", recipe, DataInfo((32, 32)), images=value)
    saved(tmp_path / "nan.safetensors", recipe, DataInfo((32, 32)), lambda values: values["G.down.0.0.weight"].fill_(torch.nan))
    for name, said in {"text": "damaged", "cut": "damaged", "nan": "not finite", "negative": "none that i2i writes", "absent": "does not exist", "x.pth": "i2i convert"}.items():
        result = i2i("train", *RUN, "--data", base / "strips", "--out", name, "--init", tmp_path / (name if "." in name else f"{name}.safetensors"))
        assert result.code == 2
        assert said in result.line
    assert "--resume takes everything from the run; --init" in i2i("train", "--resume", base / "first", "--init", base / "first").line


def test_the_feature_networks_of_the_first_training_are_not_forgotten(tmp_path: Path) -> None:
    weights = saved(tmp_path / "m.safetensors", GAN(generator=G4, discriminator=D4), INFO, feature_networks={"vgg16": "abc"})
    assert weights.feature_networks == {"vgg16": "abc"}
    assert InitialWeights.from_config(json.loads(json.dumps(vars(weights)))) == weights


@pytest.mark.parametrize("init", [{}, {"model": 1, "feature_networks": {}}, {"model": "x", "feature_networks": {"a": 1}}, {"model": "x", "other": 1}, []])
def test_a_config_with_odd_initial_weights_is_refused(base: Path, tmp_path: Path, init: object) -> None:
    shutil.copytree(base / "first", tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps(config | {"init": init}))
    with pytest.raises(RequestError, match="is not the config of a run"):
        package.train(resume=tmp_path / "run", device="cpu")


def test_an_extended_run_with_a_constant_rate_is_the_longer_run(base: Path, tmp_path: Path, i2i: Run) -> None:
    words = ("train", "pix2pix", *SMALL, "schedule=constant", "--data", base / "strips", "--device", "cpu")
    assert i2i(*words, "images=16", "--out", "run").code == i2i(*words, "--images", "32", "--out", "longer").code == 0
    result = i2i("train", "--extend", "run", "--images", "32", "--device", "cpu")
    assert result.code == 0, result.err
    assert "extended from 16 images; schedule constant over all 32: the learning rates stay" in result.out
    assert [json.loads(line)["images"] for line in Path("run/log.jsonl").read_text().splitlines()] == [6, 12, 16, 18, 24, 30, 32]     # The end is logged.
    for name in ("state-00000032", "model"):
        (ours, _), (theirs, _) = (checkpoint.load(Path(out, f"{name}.safetensors"), name.partition("-")[0]) for out in ("run", "longer"))
        assert_equal(ours, theirs)
    train = json.loads(Path("run/config.json").read_text())["train"]
    assert (train["images"], train["growth_images"]) == (32, 16)
    assert "run is finished: 32 images" in i2i("train", "--extend", "run", "--images", "32").out


def test_an_extended_run_says_what_linear_decay_does_and_resumes(base: Path, tmp_path: Path, i2i: Run) -> None:
    shutil.copytree(base / "first", tmp_path / "run")
    messages: list[str] = []
    stop = StopAfter(30)
    stop.on_message = messages.append       # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        package.train(extend=tmp_path / "run", images="0.048k", device="cpu", callbacks=[stop])
    assert "extended from 24 images; schedule linear over all 48: the learning rates had come to 16.7% of their base and go on at 100.0%" in messages
    assert RunFolder(tmp_path / "run").images == 30
    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    result = i2i("train", "--extend", "run", "--images", "48", "--device", "cpu")
    assert result.code == 0, result.err
    assert i2i("train", "--resume", "resumed", "--device", "cpu").code == 0
    assert_same(tmp_path / "run", tmp_path / "resumed")
    result = i2i("train", "--extend", "run", "images=96", "schedule=constant", "--dry-run")
    assert " 96 images = 48 steps of 2 " in result.out


@pytest.mark.parametrize(("words", "said"), [
    (("--images", "8"), "has a length of 24 images already; --extend takes a larger one, such as --images 48"), (("--images", "48", "lambda_l1=1"), "cannot become 1.0 when it is resumed"),
    (("--images", "x"), "train.images=x cannot be read"), (("--images", "48", "--resume", "y"), "--extend takes everything from the run; --resume (y)"), (("pix2pix",), "--extend takes everything")])
def test_other_requests_to_extend_are_one_line(base: Path, i2i: Run, words: tuple[str, ...], said: str) -> None:
    result = i2i("train", "--extend", base / "first", *words)
    assert result.code == 2
    assert said in result.line


def test_an_unfinished_run_is_resumed_first(base: Path, tmp_path: Path, i2i: Run) -> None:
    started(None, base / "strips", tmp_path / "run")
    assert "first: i2i train --resume run" in i2i("train", "--extend", "run", "--images", "48").line


def test_a_setting_that_cannot_change_is_answered_by_a_line_that_works(base: Path, i2i: Run) -> None:
    line = i2i("train", "--resume", base / "first", "batch_size=4", "lr=1e-4").line
    assert "may change: train.num_workers" in line
    command = line.partition("to begin a new run from its weights: i2i ")[2].split()
    assert "train.batch_size=4" in command
    result = i2i(*command, "--dry-run")
    assert result.code == 0, result.err
    assert f"init: {base}/first (state-00000024.safetensors, 24 images): G whole, D whole" in result.out
    line = i2i("train", "--resume", base / "first", "train.images=99k").line
    assert line.endswith(f"to go on after its end: i2i train --extend {base}/first --images 99000")


IMPROVING, FLAT, WORSE = ([9.0, 6.0, 3.0], [9.0, 3.0, 3.0], [9.0, 3.0, 6.0])


@pytest.mark.parametrize(("when", "means", "ends"), [
    ("flat", IMPROVING, False), ("flat", FLAT, True), ("flat", WORSE, True), ("worse", IMPROVING, False), ("worse", FLAT, False), ("worse", WORSE, True), ("flat", FLAT[:2], False)])
def test_a_run_ends_as_soon_as_its_evaluations_are_flat_or_worse(tmp_path: Path, when: str, means: list[float], ends: bool) -> None:
    reasons: list[tuple[str, bool]] = []
    entries = [{"images": 100 * (i + 1), "each": [mean + 0.1 * (-1) ** j for j in range(20)]} for i, mean in enumerate(means)]
    trainer: Any = SimpleNamespace(images=entries[-1]["images"], total_images=10_000, folder=RunFolder(tmp_path), config=SimpleNamespace(stop_when=when),
                                   stop=lambda reason, as_wished: reasons.append((reason, as_wished)))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({**entry, "seconds": 0, "scores": {}}) + "\n" for entry in entries[:-1]))
    EarlyStopping().on_evaluation(trainer, entries[-1])
    state = {tuple(FLAT): "flat", tuple(WORSE): "worse"}.get(tuple(means))
    assert reasons == ([(f"{state} since image 200 by its evaluations", True)] if ends else [])
    trainer.total_images = trainer.images        # At its end.
    EarlyStopping().on_evaluation(trainer, entries[-1])
    assert len(reasons) == ends


def test_a_run_that_ended_early_is_finished_and_goes_on_if_asked(base: Path, tmp_path: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("train", *RUN, "train.seed=1", "--data", base / "strips", "--device", "cpu")
    monkeypatch.setattr(EarlyStopping, "_check", lambda self, trainer, entries: trainer.images >= 8 and trainer.stop("flat", as_wished=True))
    result = i2i(*words, "train.stop_when=flat", "--out", "run")
    assert (result.code, result.err) == (0, "")
    assert "ended at 8 of 24 images: flat; to go on: i2i train --resume run train.stop_when=never" in result.out
    assert json.loads(Path("run/verdict.json").read_text())["ended"] == {"images": 8, "reason": "flat"}
    assert "run is finished: 8 images" in i2i(*words, "train.stop_when=flat", "--out", "run").out
    assert i2i("train", "--resume", "run", "train.stop_when=never", "--device", "cpu").code == 0
    assert_same(base / "first", tmp_path / "run")
    assert "ended" not in json.loads(Path("run/verdict.json").read_text())


def test_nothing_can_end_a_run_that_is_not_evaluated(base: Path, tmp_path: Path, i2i: Run) -> None:
    shutil.copytree(base / "strips", tmp_path / "data")
    shutil.rmtree(tmp_path / "data/val")
    result = i2i("train", *RUN, "stop_when=worse", "--data", "data", "--out", "run")
    assert result.code == 2
    assert "train.stop_when=worse cannot be used: there are no val pairs" in result.line


def test_networks_grow_over_the_first_length() -> None:
    from i2i.seeding import Progress
    assert [Progress(step, 2, 40, 20).growth_fraction for step in (0, 5, 10, 20)] == [0, 0.5, 1, 1]
    assert [Progress(step, 2, 40).growth_fraction for step in (0, 5, 10, 20)] == [0, 0.25, 0.5, 1]


def test_a_frozen_player_is_described_by_numbers() -> None:
    recipe = GAN(generator=G4, discriminator=D4)
    modules = recipe.modules(INFO)
    total = sum(p.numel() for p in modules["D"].parameters())
    frozen = sum(p.numel() for p in modules["D"].layers[0].parameters())       # type: ignore[union-attr,index]
    assert describe_frozen(recipe, modules, ["D.layers.0"], {"D.layers.0.0.weight"}).startswith(f"{frozen:,} of the {total:,} parameters of D")
