"""Random augmentations of kornia (Riba et al. 2020, arXiv:1910.02190) for what the discriminator sees."""

import ast
import functools
from typing import Annotated, Any

import torch
from torch import Tensor
from typing_extensions import Doc

from i2i.augment.base import Augment
from i2i.errors import RequestError, require
from i2i.nets.precision import fp32_island, to_float32
from i2i.registry import register, suggest

DEFAULT_OPS = ("RandomAffine", "RandomBrightness", "RandomContrast")
PROBE_IMAGES, PROBE_SIZE = 4, 64        # Each op is tried on so many images of at most this size.
# Arguments of ops that need some in kornia, or do nothing without.
DEFAULTS: dict[str, dict[str, Any]] = {
    "ColorJiggle": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
    "ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
    "RandomAffine": {"degrees": 15.0, "translate": (0.1, 0.1), "scale": (0.9, 1.1)},
    "RandomBrightness": {"brightness": (0.8, 1.2)},
    "RandomContrast": {"contrast": (0.8, 1.2)},
    "RandomGamma": {"gamma": (0.8, 1.25)},
    "RandomGaussianBlur": {"kernel_size": 5, "sigma": (0.1, 2.0)},
    "RandomHue": {"hue": (-0.1, 0.1)},
    "RandomMotionBlur": {"kernel_size": 5, "angle": 180.0, "direction": 1.0},
    "RandomRotation": {"degrees": 15.0},
    "RandomRotation90": {"times": (0, 3)},
    "RandomSaturation": {"saturation": (0.8, 1.2)},
    "RandomShear": {"shear": 10.0},
    "RandomTranslate": {"translate_x": (-0.1, 0.1), "translate_y": (-0.1, 0.1)}}


@register("augment", "kornia")
class KorniaAugment(Augment):
    """Random augmentations of kornia, one draw for all images of a call, such as source and target.

    Images in [-1, 1] are mapped to kornia's [0, 1] and back.  The numbers are drawn from torch's generator.
    """

    def __init__(
            self, *, ops: Annotated[tuple[str, ...], Doc(
                "Classes of kornia.augmentation in this order, with or without arguments, such as "
                "RandomRotation(degrees=30)")] = DEFAULT_OPS,
            p: Annotated[float, Doc("Probability of each op for each image")] = 0.5) -> None:
        super().__init__()
        require(0 <= p <= 1, "augment.p", p, "0 to 1")
        self.specs = tuple(ops)
        # A tuple, as modules among the parameters would draw on a GPU and wait for it.
        self.ops = tuple(build_op(name, arguments, p) for name, arguments in parse_ops(ops))

    def check(self, channels: tuple[int, ...], size: tuple[int, int], *, twice: bool) -> None:
        check_ops(self.specs, channels, size, twice)

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        if images[0].is_meta:       # To estimate memory.
            return tuple(image + 0 for image in images)
        with fp32_island(images[0]):
            out = [(to_float32(image) + 1) / 2 for image in images]
            for op in self.ops:
                out = _replay(op, out)
            return tuple((2 * x - 1).to(image.dtype) for x, image in zip(out, images, strict=True))


def parse_ops(ops: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments of ops, `Name` or `Name(key=value)`, of which commas have made pieces."""
    text, found = ",".join(ops), []
    try:
        for node in ast.parse(f"[{text}]", mode="eval").body.elts:      # type: ignore[attr-defined]
            call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
            if call.args or not isinstance(call.func, ast.Name):
                raise ValueError
            found.append((call.func.id, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}))
    except (SyntaxError, ValueError, AttributeError, RecursionError, MemoryError):
        found = []
    require(bool(found), "augment.ops", text, "RandomAffine,ColorJiggle(hue=0.1) and the like")
    return found


@functools.cache
def known_ops() -> dict[str, Any]:
    """The random augmentations of single images in kornia, by name."""
    from kornia import augmentation
    return {name: cls for name, cls in vars(augmentation).items() if name.startswith(("Random", "Color"))
            and isinstance(cls, type) and issubclass(cls, augmentation.AugmentationBase2D)
            and name != "RandomDissolving"}     # It downloads a diffusion model.


def build_op(name: str, arguments: dict[str, Any], p: float) -> Any:
    """An op of kornia that acts on each image with probability p.  RequestError if there is none such."""
    if name not in known_ops():
        raise RequestError(f"augment.ops={name} cannot be used: {suggest(name, sorted(known_ops()))}")
    for key in {"p", "p_batch"} & arguments.keys():     # Which kornia takes as they are.
        value = arguments[key]
        valid = isinstance(value, int | float) and 0 <= value <= 1
        require(valid, f"augment.ops={name}: {key}", value, "0 to 1")
    try:
        with torch.device("cpu"):
            return known_ops()[name](**{"p": p, **DEFAULTS.get(name, {}), **arguments})
    except Exception as error:      # Whatever kornia raises for arguments that a person has chosen.
        raise RequestError(f"augment.ops={name} cannot be used: {_first_line(error)}") from None


@functools.cache
def check_ops(ops: tuple[str, ...], channels: tuple[int, ...], size: tuple[int, int], twice: bool) -> None:
    """Try each op on images of these channels.  RequestError for one that fails or cannot train a network.

    Args:
        ops: as the setting has them.
        channels: those of the images of one call.
        size: of the images.
        twice: whether second derivatives are needed, as by gradient penalties.
    """
    shapes = [(PROBE_IMAGES, each, *(min(side, PROBE_SIZE) for side in size)) for each in channels]
    for name, arguments in parse_ops(ops):
        with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"), torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)
            images = [torch.rand(shape).requires_grad_() for shape in shapes]
            # On none, some and all of the images.
            tries = [build_op(name, {**arguments, "p": p}, p) for p in (0.0, 0.5, 1.0)]
            try:
                outs = [_replay(op, images) for op in tries][-1]
                problem = next(filter(None, map(_problem, images, outs, [twice] * len(images))), "")
                if not problem and len(images) > 1 and not torch.equal(*_replay(tries[-1], [images[0]] * 2)):
                    problem = "makes another draw for each image of a pair"
            except Exception as error:      # kornia's, of many classes.
                shown = " and ".join(f"{each}-channel" for each in dict.fromkeys(channels))
                problem = f"fails on {shown} images ({_first_line(error)})"
        if problem:
            others = ",".join(op for op in DEFAULT_OPS if op != name)
            raise RequestError(f"augment.ops={name} cannot be used: it {problem}; accepted: ops such as "
                               f"{others}")


def _replay(op: Any, images: list[Tensor]) -> list[Tensor]:
    """Apply an op to images of one size with the same random numbers."""
    params = op.forward_parameters(images[0].shape)
    return [op(image, params=params) for image in images]


def _problem(image: Tensor, out: Tensor, twice: bool) -> str:
    """Why an op cannot be used, from an image and what the op made of it; empty if it can."""
    if out.shape != image.shape:
        return f"changes the shape of images from {tuple(image.shape[1:])} to {tuple(out.shape[1:])}"
    if not out.requires_grad:
        return "has no gradient, from which G could learn"
    gradient, = torch.autograd.grad(out.square().sum(), image, create_graph=True, materialize_grads=True)
    if not bool(gradient.flatten(1).any(1).all()):
        return "has a gradient of 0, from which G cannot learn"
    try:
        if twice:
            torch.autograd.grad(gradient.square().sum(), image)
    except RuntimeError:
        return (f"has no second derivative in torch {torch.__version__}, which a gradient penalty or "
                "unrolling needs")
    return ""


def _first_line(error: Exception) -> str:
    return " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())[:160]
