"""What to measure on a GPU, in one command of less than eight minutes, as lines to put into a file.

    python bench/gpu.py > gpu.txt
    python bench/gpu.py --device cpu --loads --width 4 --size 32 --width-of-loads 4    # a trial of 1, 4 and 5

1. Every preset makes 20 steps on random images in fp32 and in bf16: whether its losses stay finite, and the
   time of a step after the fifth.
2. Steps of pix2pix and CycleGAN at 256 pixels and of DCGAN at 64 beside the plain loops (bench/train.py),
   also with bf16, channels-last and torch.compile together.
3. `i2i train` reads PNG files for 20 seconds: how busy nvidia-smi says the GPU is in the last ten.
4. Steps of pix2pix on batches in the host's memory, with one means of speed after the other.
5. The same in two processes, if there are two GPUs, with gradients sent during and after the backward pass.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from train import write_images

from i2i.config import parse_assignments
from i2i.data.config import DataConfig
from i2i.errors import I2IError
from i2i.recipes.base import DataInfo
from i2i.recipes.presets import PRESETS
from i2i.registry import lookup
from i2i.runs.folder import RunFolder
from i2i.training.config import TrainConfig
from i2i.training.distributed import GradientBuckets, Runtime
from i2i.training.settings import configure, recipe_or_preset
from i2i.training.trainer import Trainer

STEPS, WARM_UP, CLASSES, BATCH = 20, 5, 2, 4
NETWORKS = ("generator", "discriminator", "encoder", "network", "denoiser")
LOADS = {"pix2pix": 16, "cyclegan": 4, "dcgan": 128}        # Name in bench/train.py: batch size.
FAST = ("train.precision=bf16", "train.memory_format=channels-last", "train.compile=true")
SMI = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
MEANS = {                   # Of part 4, and how each is had.
    "fp32": (), "fp32, no stream for copies": (), "bf16": FAST[:1], "bf16, channels-last": FAST[:2],
    "the same, augmented": (*FAST[:2], "train.device_augment=kornia",
                            "train.device_augment.ops=RandomHorizontalFlip,RandomAffine"),
    "compiled": FAST, "compiled, CUDA graphs": (*FAST[:2], "train.cuda_graphs=true")}
SECONDS = 20                # Of each load of part 2.
READING, IDLE = 20, 10      # Seconds of part 3, and those before anything is sampled.


def make_trainer(preset: str, options: argparse.Namespace, *words: str, size: int = 0) -> Trainer:
    """The trainer that `i2i train` uses."""
    name, preset_words = recipe_or_preset(preset)
    recipe, config = lookup("recipe", name)(), TrainConfig()
    width = options.width_of_loads if size else options.width
    widths = ([f"{key}.width={width}"] for key in (NETWORKS if width else ()))
    for each in (preset_words, words, *widths):
        with suppress(ValueError):      # The recipe has no such network.
            recipe, _, config = configure(recipe, DataConfig(), config, parse_assignments(each))
    info = DataInfo((size or options.size,) * 2,
                    num_classes=CLASSES if getattr(recipe, "conditional", False) else 0)
    # Compiled code of part 2 is in a cache, for these shapes.
    config = replace(config, images=10**6, batch_size=LOADS["pix2pix"] if size else BATCH)
    return Trainer(recipe, info, config, Runtime.for_config(config, options.device),
                   RunFolder(Path("unused")), {})


def try_preset(preset: str, precision: str, options: argparse.Namespace) -> str:
    """Milliseconds of a step, or what went wrong."""
    try:
        trainer = make_trainer(preset, options, f"train.precision={precision}")
        size, device = options.size, trainer.runtime.device
        batch = {side: torch.rand(BATCH, 3, size, size, device=device) * 2 - 1 for side in "ab"}
        batch["c"] = torch.arange(BATCH, device=device) % CLASSES
        seconds = [trainer.seconds(lambda: trainer.advance(batch)) for _ in range(STEPS)]
        means = trainer.state.optimizers.means()
    except (I2IError, RuntimeError) as error:
        return f"FAILED: {str(error).splitlines()[0]}"
    wrong = [key for key, value in means.items() if value != value or key.startswith("skipped_")]
    return f"FAILED: {', '.join(wrong)}" if wrong else f"{1e3 * statistics.median(seconds[WARM_UP:]):.1f}"


def compare_with_plain_loops(options: argparse.Namespace) -> None:
    """Part 2, each load in a process of its own."""
    for load in options.loads:
        subprocess.run([sys.executable, Path(__file__).with_name("train.py"), load, "--quick", "--batch",
                        str(LOADS[load]), "--seconds", str(SECONDS), "--device", options.device, "--width",
                        str(options.width_of_loads), "--with", *FAST])


def measure_utilization(load: str) -> str:
    """Part 3: the median of what nvidia-smi says each half second, and the last line of the run."""
    name, size = load, 64 if load == "dcgan" else 256
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        (data / "train").mkdir(parents=True)
        write_images(data, size, lookup("recipe", recipe_or_preset(name)[0])().dataset)
        command = [sys.executable, "-m", "i2i.cli", "train", name, *FAST[:2], "train.num_workers=8",
                   f"train.batch_size={LOADS[load]}", "train.images=100M", "train.checkpoint_every=100M",
                   "train.log_every=500", "--data", str(data), "--out", f"{folder}/run"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        start, samples = time.monotonic(), []
        while time.monotonic() - start < READING and process.poll() is None:
            time.sleep(0.5)
            if time.monotonic() - start > IDLE:
                samples.append(int(subprocess.check_output(SMI).split()[0]))
        process.send_signal(signal.SIGINT)
        lines = [line for line in process.communicate()[0].splitlines() if "images/s" in line]
    busy = f"{statistics.median(samples):.0f} % busy" if samples else "ended too soon"
    return f"{load}: {busy}; {lines[-1].strip() if lines else 'no line of progress'}"


def host_batch(trainer: Trainer, size: int) -> dict[str, torch.Tensor]:
    """A batch of this process as the loader gives it."""
    shape = trainer.config.batch_size // trainer.runtime.world_size, 3, size, size
    batch = {side: torch.rand(shape) * 2 - 1 for side in "ab"}
    return {key: value.pin_memory() if trainer.device.type == "cuda" else value
            for key, value in batch.items()}


def milliseconds(trainer: Trainer, batch: dict[str, torch.Tensor]) -> float:
    """Of a step, where the host waits only after all of them."""
    return 1e3 / STEPS * trainer.seconds(lambda: [trainer.advance(batch) for _ in range(STEPS)])


def measure_means(options: argparse.Namespace) -> None:
    """Part 4."""
    size = options.size_of_means
    print(f"\npix2pix, {size} pixels, batch {LOADS['pix2pix']}, batches in the host's memory; ms a step",
          flush=True)
    for name in options.means:
        try:
            trainer = make_trainer("pix2pix", options, *MEANS[name], size=size)
            if "no stream" in name:
                trainer.runtime._copies = None
            batch = host_batch(trainer, size)
            for _ in range(WARM_UP):
                trainer.advance(batch)
            result = f"{min(milliseconds(trainer, batch) for _ in range(2)):.1f}"
        except (I2IError, RuntimeError) as error:
            result = f"FAILED: {str(error).splitlines()[0]}"
        print(f"{name:32}{result:>8}", flush=True)


def measure_buckets(options: argparse.Namespace) -> None:
    """Part 5, in each of two processes."""
    trainer = make_trainer("pix2pix", options, *FAST[:2], size=options.size_of_means)
    batch, count = host_batch(trainer, options.size_of_means), GradientBuckets._count
    times: dict[str, list[float]] = {"during": [], "after": []}
    for _ in range(4):                  # The first is a warm-up.
        for when, found in times.items():
            GradientBuckets._count = count if when == "during" else lambda *_: None     # type: ignore
            found.append(milliseconds(trainer, batch))
    if trainer.runtime.is_main_process:
        print("two processes, gradients sent " + ", ".join(
            f"{when} the backward pass {min(found[1:]):.1f} ms a step" for when, found in times.items()))


def main() -> None:
    """Print all parts."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--presets", nargs="*", default=list(PRESETS), choices=PRESETS, metavar="PRESET")
    parser.add_argument("--loads", nargs="*", default=list(LOADS), choices=LOADS, metavar="LOAD")
    parser.add_argument("--size", type=int, default=64, help="pixels of part 1")
    parser.add_argument("--width", type=int, default=32, help="of the networks of part 1")
    parser.add_argument("--width-of-loads", type=int, default=0, help="of the others; 0: the presets' own")
    parser.add_argument("--means", nargs="*", default=list(MEANS), choices=MEANS, metavar="MEANS")
    parser.add_argument("--buckets", action="store_true", help="part 5 alone, in a process of a launcher")
    options = parser.parse_args()
    options.size_of_means = 256 if options.device == "cuda" else options.size
    if options.buckets:
        measure_buckets(options)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: torch sees no GPU; accepted: --device cpu, for a trial of this script")
    where = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    print(f"{where}, torch {torch.__version__}\n\n{STEPS} steps of {BATCH} images of {options.size} pixels, "
          f"width {options.width}; ms a step\n{'':16}{'fp32':>12}{'bf16':>12}", flush=True)
    for preset in options.presets:
        cells = [try_preset(preset, precision, options) for precision in ("fp32", "bf16")]
        print(f"{preset:16}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
    compare_with_plain_loops(options)
    for load in options.loads if options.device == "cuda" else ():
        print(measure_utilization(load), flush=True)
    measure_means(options)
    if options.device == "cpu" or torch.cuda.device_count() > 1:
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
                        __file__, "--buckets", "--device", options.device,
                        "--size", str(options.size), "--width-of-loads", str(options.width_of_loads)])


if __name__ == "__main__":
    main()
