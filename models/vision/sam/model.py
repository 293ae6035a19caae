"""Segment Anything: the image encoder, the prompt encoder and the mask decoder.

    embedding = encode(pixels)                      once for a picture
    masks, scores = decode(embedding, …)            for N prompts, each of points, a box, a mask, or several of them

Places are (x, y) in pixels of the picture that is encoded, x to the right, of which (0, 0) is the first one's centre.
A box is (x₀, y₀, x₁, y₁). Labels are 1 for a point on the object, 0 for one beside it. A mask is given as logits, at
the resolution of those that come out: 4 × 4 places for each patch.
"""

from typing import Any

import numpy as np

from minigrad import namespace
from minigrad.nn import Module
from models.vision.sam.config import SAMConfig
from models.vision.sam.image_encoder import ImageEncoder
from models.vision.sam.mask_decoder import MaskDecoder
from models.vision.sam.prompt_encoder import BACKGROUND, BOTTOM_RIGHT, FOREGROUND, NO_POINT, TOP_LEFT, PromptEncoder


class SAM(Module):
    """Masks of what prompts point at, with scores; parameters are float32."""

    def __init__(self, config: SAMConfig, rng: np.random.Generator) -> None:
        self.config = config
        width = config.image.output
        self.image_encoder = ImageEncoder(config.image, rng)
        self.prompt_encoder = PromptEncoder(config.prompt, config.image.image, width, rng)
        self.mask_decoder = MaskDecoder(config.decoder, width, rng)

    def __call__(self, pixels: Any, *, ambiguous: bool = True, **prompts: Any) -> tuple[Any, Any]:
        """Return logits (*batch, N, M, 4H, 4W) and predicted IoUs (*batch, N, M) for N prompts to each of the pixels.

        pixels are (*batch, C, side, side); the prompts are those of `decode`, which also says what errors there are.
        M is 3 where prompts are `ambiguous`, as one point is, and 1 otherwise.
        """
        logits, scores = self.decode(self.encode(pixels), **prompts)
        return (logits[..., 1:, :, :], scores[..., 1:]) if ambiguous else (logits[..., :1, :, :], scores[..., :1])

    def encode(self, pixels: Any) -> Any:
        """Return the embedding (*batch, H, W, D) of pixels (*batch, C, side, side), as processors return them."""
        return self.image_encoder(pixels)

    def decode(
        self,
        embedding: Any,
        *,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        masks: Any = None,
    ) -> tuple[Any, Any]:
        """Return logits (*batch, N, 1 + M, 4H, 4W) and predicted IoUs (*batch, N, 1 + M): of the single mask first.

        points (*batch, N, P, 2) have labels (*batch, N, P), all 1 by default; boxes are (*batch, N, 4); masks
        (*batch, N or 1, 4H, 4W).

        Raises ValueError where there is no prompt, for shapes that do not fit, places outside the picture, boxes whose
        corners are the wrong way round, and labels other than 0 and 1.
        """
        xp, (*batch, H, W, _) = namespace(embedding), embedding.shape
        rows = self._prompt_rows(tuple(batch), points, labels, boxes)
        if rows is None and masks is None:
            raise ValueError("SAM: expected points, boxes or masks, got no prompt")
        if masks is not None:
            _check_masks(masks, tuple(batch), None if rows is None else rows[1].shape[-2], 4 * H, 4 * W)
        if rows is None:
            prompt = xp.zeros((*batch, masks.shape[-3], 0, embedding.shape[-1]), dtype=embedding.dtype)
        else:
            prompt = self.prompt_encoder.tokens(*rows)
        return self.decode_tokens(embedding, prompt, masks)

    def decode_tokens(self, embedding: Any, prompt: Any, masks: Any = None) -> tuple[Any, Any]:
        """Return what `decode` does, for tokens (*batch, N, P, D) of the prompt encoder, without checks."""
        x = embedding[..., None, :, :, :] + self.prompt_encoder.map_of(masks)  # (*batch, N or 1, H, W, D)
        return self.mask_decoder(x, self.prompt_encoder.positions(*x.shape[-3:-1]), prompt)

    def _prompt_rows(self, batch: tuple[int, ...], points: Any, labels: Any, boxes: Any) -> Any:
        """Return places (*batch, N, P, 2) and labels (*batch, N, P) of all tokens, or None where there are none."""
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        if points is None and labels is not None:
            raise ValueError("SAM: labels: expected points with them, got none")
        if points is not None:
            points = np.asarray(points, float)
            labels = np.ones(points.shape[:-1], int) if labels is None else np.asarray(labels)
            _check_shape("points", points, batch, 2, "P, 2")
            if labels.shape != points.shape[:-1]:
                raise ValueError(
                    f"SAM: labels has shape {labels.shape}, expected {points.shape[:-1]}, one for each point"
                )
            if not np.isin(labels, (BACKGROUND, FOREGROUND)).all():
                wrong = labels[~np.isin(labels, (BACKGROUND, FOREGROUND))][0]
                raise ValueError(f"SAM: labels: expected 1 for the object and 0 for the background, got {wrong}")
            self._check_inside("points", points)
            rows.append((points, labels))
            if boxes is None:
                rows.append((np.zeros((*points.shape[:-2], 1, 2)), np.full((*points.shape[:-2], 1), NO_POINT)))
        if boxes is not None:
            boxes = np.asarray(boxes, float)
            _check_shape("boxes", boxes, batch, 1, "4")
            corners = np.reshape(boxes, (*boxes.shape[:-1], 2, 2))
            self._check_inside("boxes", corners)
            if not (corners[..., 0, :] <= corners[..., 1, :]).all():
                wrong = boxes[~(corners[..., 0, :] <= corners[..., 1, :]).all(axis=-1)][0].tolist()
                raise ValueError(f"SAM: boxes: expected x₀ ≤ x₁ and y₀ ≤ y₁, got {wrong}")
            rows.append((corners, np.broadcast_to([TOP_LEFT, BOTTOM_RIGHT], corners.shape[:-1])))
        if len({row[1].shape[:-1] for row in rows}) > 1:
            raise ValueError(
                f"SAM: boxes: expected {points.shape[-3]}, as many as prompts of points, got {boxes.shape[-2]}"
            )
        if not rows:
            return None
        return tuple(
            np.concatenate(parts, axis=axis) for parts, axis in zip(zip(*rows, strict=True), (-2, -1), strict=True)
        )

    def _check_inside(self, name: str, places: np.ndarray) -> None:
        side = self.config.image.image
        outside = ~((places >= 0) & (places <= side)).all(axis=-1)
        if outside.any():
            wrong = tuple(places[outside][0].tolist())
            raise ValueError(
                f"SAM: {name}: expected places within 0 … {side}, got {wrong}, which is outside the picture"
            )


def _check_shape(name: str, array: np.ndarray, batch: tuple[int, ...], more: int, last: str) -> None:
    """Raise ValueError for an array that is not of shape (*batch, N, …) with the last axes that are named."""
    if array.ndim != len(batch) + more + 1 or array.shape[: len(batch)] != batch or array.shape[-1] != int(last[-1]):
        expected = ", ".join((*map(str, batch), "N", last))
        raise ValueError(f"SAM: {name} has shape {array.shape}, expected ({expected})")
    if array.size == 0:
        raise ValueError(f"SAM: {name}: expected at least one, got an array of shape {array.shape}")


def _check_masks(masks: Any, batch: tuple[int, ...], prompts: int | None, height: int, width: int) -> None:
    """Raise ValueError for masks that are not one for all prompts, nor, where there are other prompts, one for each."""
    count = masks.shape[-3] if masks.ndim > 2 else 0
    fits = count == 1 or count == prompts or (prompts is None and count > 0)
    if tuple(masks.shape) != (*batch, count, height, width) or not fits:
        expected = ", ".join(map(str, (*batch, "N" if prompts is None else prompts, height, width)))
        raise ValueError(
            f"SAM: masks has shape {tuple(masks.shape)}, expected ({expected}), as the logits that come out"
        )
