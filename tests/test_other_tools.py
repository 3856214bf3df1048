"""Words of other tools: each is accepted, or answered in one line with exactly what to type, which is then accepted."""

import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from i2i import registry
from i2i.cli import app
from i2i.config import parse_assignments
from i2i.errors import RequestError
from i2i.recipes.presets import PRESETS
from i2i.training.other_tools import known_words
from i2i.training.settings import configure, initial_settings
from tests.conftest import Run

# Recipe, what is typed, what the answer says to type.
OPTIONS = """
pix2pix --lr 1e-4                   | lr=1e-4
pix2pix --lr=1e-4                   | lr=1e-4
pix2pix --n_epochs 100              | --epochs 100
pix2pix --n_epochs_decay 100        | schedule=linear schedule.start=0.5
pix2pix --niter 100                 | --epochs 100
pix2pix --max_epochs 7              | --epochs 7
pix2pix --num_train_epochs 7        | --epochs 7
pix2pix --load_size 286             | load_size=286
pix2pix --loadSize 286              | load_size=286
pix2pix --crop_size 256             | size=256
pix2pix --fineSize 256              | size=256
pix2pix --resolution 512            | size=512
pix2pix --netG unet_256             | generator=unet
pix2pix --netG resnet_9blocks       | generator=resnet generator.blocks=9
pix2pix --netG other                | i2i list generator
pix2pix --netD pixel                | discriminator=pixel
pix2pix --ngf 32                    | generator.width=32
pix2pix --ndf 32                    | discriminator.width=32
pix2pix --n_layers_D 2              | discriminator.layers=2
pix2pix --gpu_ids 0                 | --device cuda
pix2pix --gpu_ids -1                | --device cpu
pix2pix --gpus 8                    | torchrun --nproc_per_node 8 -m i2i.cli train
pix2pix --accelerator gpu           | --device cuda
cyclegan --lambda_A 10              | lambda_cycle_a=10
cyclegan --lambda_B 10              | lambda_cycle_b=10
cyclegan --lambda_idt 0.5           | lambda_identity=0.5
cyclegan --lambda_identity 0.5      | lambda_identity=0.5
cyclegan --pool_size 50             | pool=50
cut --CUT_mode FastCUT              | i2i train fastcut
cut --CUT_mode CUT                  | i2i train cut
cut --model cut                     | i2i train cut
cut --nce_idt false                 | nce_identity=false
cut --nce_T 0.1                     | nce_temperature=0.1
cut --num_patches 64                | nce_patches=64
cut --netF_nc 128                   | nce_width=128
cut --nce_includes_all_negatives_from_minibatch 1 | nce_negatives=batch
pix2pix --lambda_L1 100             | lambda_l1=100
pix2pix --dataroot ./facades        | --data ./facades
pix2pix --train_data_dir x          | --data x
pix2pix --name facades              | --out runs/facades
pix2pix --checkpoints_dir x         | --out x
pix2pix --output_dir x              | --out x
pix2pix --direction BtoA            | direction=ba
pix2pix --batch-size 8              | batch_size=8
pix2pix --batch_size=8              | batch_size=8
pix2pix --batchSize 8               | batch_size=8
pix2pix --train_batch_size 8        | batch_size=8
pix2pix --norm instance             | generator.norm=instance or discriminator.norm=instance
pix2pix --gan_mode lsgan            | adversarial=lsgan
pix2pix --gan_mode vanilla          | adversarial=nonsaturating
pix2pix --gan_mode wgangp           | adversarial=wasserstein penalty=wgan-gp
pix2pix --no_dropout                | generator.dropout=0
pix2pix --no_flip --gpu_ids 0       | flip=false
pix2pix --num_threads 4             | num_workers=4
pix2pix --workers 4                 | num_workers=4
pix2pix --dataloader_num_workers 4  | num_workers=4
pix2pix --lr_policy linear          | schedule=linear
pix2pix --beta1 0.5                 | beta1=0.5
pix2pix --continue_train            | --resume RUN
pix2pix --model cycle_gan           | i2i train cyclegan
pix2pix --model cyclegan            | i2i train cyclegan
stylegan2 --kimg 25000              | images=25000k
stylegan2 --gamma 10                | penalty.gamma=10
pix2pix --gamma 10                  | penalty=r1 penalty.gamma=10
stylegan2 --mirror 1                | flip=true
stylegan2 --mirror=0                | flip=false
stylegan2 --snap 10                 | checkpoint_every=40k
stylegan2 --cfg stylegan2           | i2i train stylegan2
stylegan2 --cfg auto                | i2i train stylegan2-ada
stylegan2 --aug ada                 | augment=ada
stylegan2 --cond 1                  | conditional=true
stylegan2 --outdir x                | --out x
stylegan2 --batch 32                | batch_size=32
dcgan --nz 64                       | generator.z_dim=64
dcgan --latent_dim 64               | generator.z_dim=64
wgan --n_critic 5                   | d_steps=5
dcgan --learning_rate 1e-4          | lr=1e-4
dcgan --g_lr 1e-4                   | g_optimizer.lr=1e-4
dcgan --optimizer adamw             | g_optimizer=adamw d_optimizer=adamw
dcgan --mixed_precision bf16        | precision=bf16
dcgan --fp16                        | precision=bf16
dcgan --seed 3                      | seed=3
dcgan --max_train_steps 100         | images=3200
dcgan batch_size=8 --max_steps 100  | images=800
pix2pix --gradient_checkpointing    | gradient_checkpointing=true
pix2pix --lambda_identity 0.5       | lambda_identity=0.5 with cyclegan
pix2pix --epoch latest              | --resume RUN
pix2pix --use_wandb                 | trackers=wandb
pix2pix --report_to tensorboard     | trackers=tensorboard
pix2pix --precision 16-mixed        | precision=bf16
pix2pix --imgsz 256                 | size=256
"""
SETTINGS = """
pix2pix workers=2                   | num_workers=2
pix2pix train.workers=2             | num_workers=2
pix2pix epochs=3                    | --epochs 3
pix2pix trainer.max_epochs=3        | --epochs 3
pix2pix image_size=128              | size=128
pix2pix data.image_size=128         | size=128
pix2pix ngf=32                      | generator.width=32
pix2pix width=32                    | generator.width=32 or discriminator.width=32
pix2pix generator=resnet blocks=6   | generator.blocks=6
pix2pix Batch_Size=4                | batch_size=4
pix2pix batch=4                     | batch_size=4
pix2pix learning_rate=1e-4          | lr=1e-4
pix2pix lambda_A=10                 | lambda_cycle_a=10 with cyclegan
stylegan2-ada gamma=8               | penalty.gamma=8
pix2pix batch_size=8 max_steps=6    | images=48
pix2pix optimizer.lr=1e-4           | lr=1e-4
pix2pix model.ngf=32                | generator.width=32
pix2pix pool=50                     | pool=50 with cyclegan
cyclegan lambda_nce=2               | lambda_nce=2 with cut
"""


def cases(table: str) -> list[Any]:
    rows = [[part.strip() for part in line.split("|")] for line in table.strip().splitlines()]
    return [pytest.param(typed, answer, id=typed) for typed, answer in rows]


def check_accepted(recipe: str, answer: str, *given: str) -> None:
    """The answer exists: an option or a command that can be typed, or settings that the recipe takes."""
    options = {option for parameter in typer_command("train").params for option in parameter.opts}
    for each in answer.split(" or "):
        each, _, other = each.partition(" with ")
        words = shlex.split(each)
        if words[0].startswith("--"):
            assert words[0] in options, words
        elif words[:2] == ["i2i", "train"]:
            assert words[2] in [*PRESETS, *registry.names("recipe")], words
        elif words[0] in ("i2i", "torchrun"):
            assert words[0] == "torchrun" or lists(*words[1:]), words
        else:
            configure(*initial_settings(other or recipe)[1], parse_assignments([*given, *words]))


@cache
def lists(*words: str) -> bool:
    return app.run(list(words)) == 0


def typer_command(name: str) -> Any:
    import typer
    return typer.main.get_command(app).commands[name]       # type: ignore[attr-defined]


@pytest.mark.parametrize(("typed", "answer"), [*cases(OPTIONS), *cases(SETTINGS)])
def test_a_word_of_another_tool_is_answered_with_what_to_type(i2i: Run, typed: str, answer: str) -> None:
    result = i2i("train", *typed.split())
    assert result.code == 2
    assert result.line.endswith(f"; type {answer}"), result.line
    assert not Path("runs").exists()
    check_accepted(typed.split()[0], answer, *(["generator=resnet"] if "generator=resnet" in typed else []))


@pytest.mark.parametrize("setting", ["batch_size=8", "lr=1e-4", "load_size=286", "beta1=0.5", "images=400k", "seed=3", "precision=bf16", "direction=ba"])
def test_settings_need_no_prefix_where_only_one_has_the_name(i2i: Run, setting: str) -> None:
    result = i2i("train", "pix2pix", setting, "--dry-run")
    assert result.code == 0, result.err


VALUES = ("3", "256", "0.5", "lsgan", "adamw", "linear", "pix2pix", "2", "true")


@pytest.mark.parametrize("word", known_words())
def test_every_answer_of_the_table_is_accepted_by_some_recipe(word: str) -> None:
    """Whatever row of the table answers; with the first value that the setting takes."""
    from i2i.training.other_tools import _equivalents
    from i2i.training.settings import hint
    for value in [value or None for value in _equivalents()[word]]:
        accepted = []
        for recipe in ("pix2pix", "cyclegan", "cut", "stylegan2", "infogan"):
            for each in [value] if value else VALUES:
                answer = hint(word, each, initial_settings(recipe)[1], [])
                assert "…" not in answer
                if not answer or " with " in answer:
                    continue
                try:
                    check_accepted(recipe, answer)
                    accepted.append(answer)
                except (AssertionError, RequestError):
                    pass
        assert accepted, (word, value)


def test_commands_that_run_models_answer_with_their_own_options(i2i: Run) -> None:
    assert i2i("translate", "m", "x", "--gpu_ids", "-1").line.endswith("; type --device cpu")
    assert i2i("translate", "m", "x", "--results_dir", "there").line.endswith("; type --out there")
    assert i2i("generate", "m", "--outdir", "there").line.endswith("; type --out there")
    assert "type" not in i2i("translate", "m", "x", "--n_epochs", "3").line          # Which it has nothing for.


def test_checkpoints_of_other_tools_are_to_be_converted(i2i: Run) -> None:
    assert "i2i convert network.pkl" in i2i("train", "--resume", "network.pkl").line


def test_an_unknown_word_gets_the_nearest_or_the_list(i2i: Run) -> None:
    assert "did you mean 'lambda_l1'" in i2i("train", "pix2pix", "lamda_l1=3").line
    assert "known: " in i2i("train", "pix2pix", "frobnicate=3").line
    assert i2i("train", "pix2pix", "--frobnicate", "3").code == 2
