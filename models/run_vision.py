"""The command `run`: a published ViT, CLIP or Segment Anything on a picture."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

import minigrad as mg
from models import published, tables
from models.errors import UserError
from models.progress import tracked
from models.published import clip_tokenizer
from models.published.fields import read_json
from models.tasks.text import printable, whole_characters
from models.vision.automatic_masks import SIDE, everything, predictor
from models.vision.images import read_image, write_png
from models.vision.masks import to_original, to_resized
from models.vision.overlay import draw_masks, draw_prompts
from models.vision.processing import read_processor

app = typer.Typer(help="Run a published vision model on a picture: ViT, CLIP or Segment Anything.")

PROCESSORS = {"vit": "ViT", "clip": "CLIP", "sam": "Sam"}  # classes of processors where a folder names none
Size = tuple[int, int]  # height and width
Checkpoint = Annotated[Path, typer.Option(help="A folder with config.json, weights and preprocessor_config.json.")]
Picture = Annotated[Path, typer.Option(help="The picture, in any format that Pillow reads.")]


@app.command()
def vit(
    checkpoint: Checkpoint,
    image: Picture,
    top: Annotated[int, typer.Option(help="How many classes to print.", min=1)] = 5,
) -> None:
    """Print the likeliest classes of a picture, with their probabilities.

    Where the folder's pictures are of another size than those in training, positions are interpolated.
    """
    of, processor = _described(checkpoint, "vit")
    pixels = processor(read_image(image))
    model: Any = published.load_model(checkpoint)
    if model.head is None:
        raise UserError(f"checkpoint {checkpoint}: expected a model with a classifier, got one without")
    with _errors_of(checkpoint):
        probabilities = mg.softmax(model(pixels), axis=-1)
    best = np.argsort(-probabilities, kind="stable")[:top]
    rows = [(f"{probabilities[i]:.4f}", printable(of.labels[i])) for i in best]
    tables.show(Console(), ("probability", "class"), rows)


@app.command()
def clip(
    checkpoint: Checkpoint,
    image: Picture,
    caption: Annotated[list[str], typer.Option(help="A text to compare with the picture; one --caption each.")],
) -> None:
    """Print how well captions describe a picture, the best first.

    A score is the scaled cosine of the features of picture and text; probabilities are the softmax over the captions.
    """
    of, processor = _described(checkpoint, "clip")
    captions = [whole_characters(text, "--caption") for text in caption]
    tokenizer = clip_tokenizer.load(checkpoint, of.config.vocab, of.config.context)
    tokens = tokenizer.encode(captions)
    pixels = processor(read_image(image))
    _require_side(pixels, of.config.image_size, checkpoint)
    model: Any = published.load_model(checkpoint)
    with _errors_of(checkpoint):
        scores = model(pixels[None], tokens)[0]
    probabilities = mg.softmax(scores, axis=-1)
    best = np.argsort(-scores, kind="stable")
    rows = [(f"{probabilities[i]:.4f}", f"{scores[i]:.2f}", printable(captions[i])) for i in best]
    tables.show(Console(), ("probability", "score", "caption"), rows)


@app.command()
def sam(
    checkpoint: Checkpoint,
    image: Picture,
    point: Annotated[
        list[str],
        typer.Option(
            help="X,Y of a pixel on the object, or X,Y,0 of one on the background; one --point each. The first pixel "
            "at the top left is 0,0."
        ),
    ] = [],  # noqa: B006
    box: Annotated[str | None, typer.Option(help="X0,Y0,X1,Y1: a box around the object, its sides included.")] = None,
    grid: Annotated[
        int | None,
        typer.Option(
            help=f"Without points and box: how many points of a grid across, and down; {SIDE} if not given.", min=1
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("masks.png"),
) -> None:
    """Save the picture with the mask of what points and a box show, or with masks of everything; print predicted IoUs.

    One point alone may mean a part or the whole, so there are several masks, of which the one with the highest
    predicted IoU is drawn. Without points and box, each point of a grid is a prompt, and masks are kept that are sure,
    stable and not of what a better one has.
    """
    _require_png(output, image)
    points, corners = _points(point), None if box is None else _box(box)
    if grid is not None and (points or corners):
        raise UserError(f"--grid: expected neither --point nor --box beside it, got {'--point' if points else '--box'}")
    of, processor = _described(checkpoint, "sam")
    picture = read_image(image)
    height, width = original = picture.shape[:2]
    _require_inside(points, corners, original)
    pixels = processor(picture)
    _require_side(pixels, of.config.image.image, checkpoint)
    resized = processor.resized(*original)
    scale = to_resized(np.ones(2), original, resized)  # of x and of y

    def enlarged(logits: np.ndarray) -> np.ndarray:
        return to_original(logits, original, resized, pixels.shape[-2:])

    model: Any = published.load_model(checkpoint)
    with _errors_of(checkpoint):
        embedding = model.encode(pixels)
        if points or corners:
            logits, scores = model.decode(embedding, **_prompts(points, corners, scale))
            several = slice(1, None) if len(points) == 1 and not corners else slice(1)
            masks, scores = enlarged(logits[0, several]) > 0, scores[0, several]
            best = int(np.argmax(scores))
            shown, result = masks[best : best + 1], f"mask {best + 1}"
        else:
            predict = predictor(model, embedding, scale)
            track = partial(tracked, name="batches of points")
            masks, scores, *_ = everything(predict, enlarged, height, width, side=grid or SIDE, track=track)
            largest_first = np.argsort(-masks.sum(axis=(1, 2)), kind="stable")
            shown, result = masks[largest_first], f"masks: {len(masks)}"
    write_png(output, draw_prompts(draw_masks(picture, shown), points, corners))
    rows = [(str(i + 1), f"{scores[i]:.4f}", f"{mask.mean():.2%}") for i, mask in enumerate(masks)]
    if rows:
        tables.show(Console(), ("mask", "predicted IoU", "of the picture"), rows)
    print(f"{output}: {result}")


def _prompts(
    points: Sequence[tuple[float, float, int]], box: Sequence[float] | None, scale: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the arguments of `decode` for one prompt of points and a box, which are multiplied by `scale`."""
    prompts = {}
    if points:
        *places, labels = np.array(points).T
        prompts = {"points": (np.stack(places, axis=-1) * scale)[None], "labels": labels[None].astype(int)}
    if box:
        prompts["boxes"] = (np.reshape(box, (2, 2)) * scale).reshape(1, 4)
    return prompts


def _require_png(output: Path, image: Path) -> None:
    """Raise a UserError for a file that is not to be written as PNG."""
    if output.suffix.lower() != ".png":
        raise UserError(f"--output: expected a name that ends in .png, got {output}")
    if output.exists() and image.exists() and output.samefile(image):
        raise UserError(f"--output: expected another file than --image, got {output}")


def _points(texts: Sequence[str]) -> list[tuple[float, float, int]]:
    """Return (x, y, label) of each point, whose label is 1 on the object and 0 on the background."""
    points = []
    for text in texts:
        x, y, *label = _numbers("--point", text, "X,Y, or X,Y,0 on the background", (2, 3))
        if label and label[0] not in (0, 1):
            raise UserError(f"--point: expected 0 for the background or 1 for the object after X,Y, got {text}")
        points.append((x, y, int(label[0]) if label else 1))
    return points


def _box(text: str) -> tuple[float, float, float, float]:
    left, top, right, bottom = _numbers("--box", text, "X0,Y0,X1,Y1", (4,))
    if not (left < right and top < bottom):
        raise UserError(f"--box: expected X0,Y0 above and to the left of X1,Y1, got {text}")
    return left, top, right, bottom


def _numbers(option: str, text: str, form: str, counts: Sequence[int]) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not np.isfinite(numbers).all():
        raise UserError(f"{option}: expected {form}, in numbers, got {text!a}")
    return numbers


def _require_inside(points: Sequence[tuple[float, float, int]], box: Sequence[float] | None, size: Size) -> None:
    """Raise a UserError for places that are not in a picture of that height and width."""
    height, width = size
    places = [("--point", (x, y), (width - 1, height - 1)) for x, y, _ in points]
    if box:
        places += [("--box", (x, y), (width, height)) for x, y in (box[:2], box[2:])]
    for option, (x, y), (right, bottom) in places:
        if not (0 <= x <= right and 0 <= y <= bottom):
            expected = f"places from 0,0 to {right},{bottom}, inside the picture"
            raise UserError(f"{option}: expected {expected}, got {x:g},{y:g}")


def _described(checkpoint: Path, kind: str) -> tuple[Any, Any]:
    """Return the architecture and the processor of a folder, which must have a model of that kind."""
    path = checkpoint / "config.json"
    found = read_json(path).get("model_type")
    if found != kind:
        raise UserError(f"{path}: model_type: expected {kind}, got {found or 'none'}")
    return published.read_architecture(path), read_processor(checkpoint, PROCESSORS[kind])


def _require_side(pixels: np.ndarray, side: int, checkpoint: Path) -> None:
    """Raise a UserError for pixels (C, H, W) that are not as many as the model takes."""
    height, width = pixels.shape[-2:]
    if (height, width) != (side, side):
        expected = f"{side} × {side} pixels, the image_size of config.json, from the folder's processor"
        raise UserError(f"checkpoint {checkpoint}: expected {expected}, got {width} × {height}")


@contextmanager
def _errors_of(checkpoint: Path) -> Iterator[None]:
    """Turn a ValueError of a model, which says what does not fit, into a UserError that names the folder."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"checkpoint {checkpoint}: {error}") from None
