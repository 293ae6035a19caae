"""Pixels, prompts and masks beside the processors of transformers, with its Pillow backend."""

import json

import numpy as np
import pytest
from PIL import Image

from models.vision.images import read_image
from models.vision.masks import to_original, to_resized
from models.vision.processing import read_processor

pytestmark = pytest.mark.parity

SIZES = [(1, 1), (2, 3), (5, 7), (30, 30), (37, 61), (61, 37), (20, 200), (200, 20), (131, 113), (3, 90)]
OPTIONS = {
    "ViT": [
        {},
        {"size": 17},
        {"size": [18, 25]},
        {"size": {"height": 9, "width": 40}, "resample": 3},
        {"size": 12, "default_to_square": False, "resample": 1},
        {"size": {"shortest_edge": 11}, "resample": 0},
        {"size": 20, "resample": 4, "do_center_crop": True, "crop_size": [15, 26]},
        {"size": 20, "resample": 5, "do_pad": True, "pad_size": {"height": 23, "width": 21}},
        {"do_resize": False, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"size": 16, "do_rescale": False, "image_mean": 100.0, "image_std": 50.0},
        {"size": 16, "do_normalize": False, "rescale_factor": 0.01},
        {"size": 16, "do_rescale": False, "do_normalize": False},
    ],
    "CLIP": [
        {},
        {"size": 30, "crop_size": 21},
        {"size": 21, "crop_size": 30},
        {"size": 20, "crop_size": {"height": 33, "width": 10}},
        {"size": 20, "default_to_square": True, "do_center_crop": False},
        {"size": {"height": 14, "width": 31}, "crop_size": 17, "resample": 2},
        {"do_resize": False, "crop_size": 25, "rescale_factor": 1 / 127.5},
        {"size": 24, "crop_size": 24, "do_convert_rgb": False, "do_normalize": False},
    ],
    "Sam": [
        {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}},
        {"size": {"longest_edge": 100}, "pad_size": 110, "resample": 3},
        {"size": {"longest_edge": 90}, "do_pad": False, "image_mean": [0.4, 0.5, 0.6], "do_rescale": True},
        {"do_resize": False, "pad_size": [200, 210], "do_normalize": False},
        {"size": {"longest_edge": 50}, "pad_size": 50, "do_rescale": False, "image_mean": [123.0, 116, 103]},
    ],
}
CASES = [(kind, options) for kind, several in OPTIONS.items() for options in several]


def theirs(kind, options):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    of = {"ViT": ViTImageProcessorPil, "CLIP": CLIPImageProcessorPil, "Sam": SamImageProcessorPil}
    return of[kind](**options)


def picture(size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=[f"{kind} {json.dumps(given)}" for kind, given in CASES])
def test_pixels_are_those_of_transformers(tmp_path, kind, options):
    processor = theirs(kind, options)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(options))
    ours = read_processor(tmp_path, kind)
    processor.save_pretrained(tmp_path / "saved")
    assert read_processor(tmp_path / "saved", "ViT") == ours
    for size in SIZES:
        if kind == "Sam" and 0 in ours.resized(*size):
            continue
        pixels = picture(size)
        expected = processor(Image.fromarray(pixels), return_tensors="np")
        found = ours(pixels)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected["pixel_values"][0], err_msg=str(size))
        if kind == "Sam":
            assert ours.resized(*size) == tuple(expected["reshaped_input_sizes"][0])


FILES = {
    "grey": Image.fromarray(picture((9, 13))[..., 0]),
    "black and white": Image.fromarray(picture((9, 13))[..., 0] > 99),
    "palette": Image.fromarray(picture((9, 13))).quantize(7),
    "alpha": Image.fromarray(np.concatenate([picture((9, 13)), picture((9, 13), 1)[..., :1]], axis=-1)),
    "grey with alpha": Image.fromarray(np.concatenate([picture((9, 13))[..., :1], picture((9, 13), 1)[..., :1]], -1)),
}


@pytest.mark.parametrize("kind", ["CLIP", "Sam"])
@pytest.mark.parametrize("file", FILES)
def test_files_become_the_pixels_of_transformers(tmp_path, kind, file):
    FILES[file].save(tmp_path / "picture.png")
    options = {"size": {"longest_edge": 30} if kind == "Sam" else 20}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(options))
    expected = theirs(kind, options)(Image.open(tmp_path / "picture.png"), return_tensors="np")["pixel_values"][0]
    found = read_processor(tmp_path, kind)(read_image(tmp_path / "picture.png"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [(9, 13), (40, 21), (64, 64), (200, 131)])
def test_prompts_and_masks_are_mapped_as_by_transformers(tmp_path, size):
    import torch
    from transformers import SamProcessor

    options = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    processor = SamProcessor(theirs("Sam", options))
    rng = np.random.default_rng(0)
    points, box = rng.uniform(size=(3, 2)) * size[::-1], rng.uniform(size=(2, 2)) * size[::-1]
    expected = processor(
        Image.fromarray(picture(size)),
        input_points=[points.tolist()],
        input_boxes=[[box.ravel().tolist()]],
        return_tensors="np",
    )
    processor.image_processor.save_pretrained(tmp_path)
    resized = read_processor(tmp_path, "Sam").resized(*size)
    np.testing.assert_allclose(to_resized(points, size, resized), expected["input_points"][0], rtol=1e-12)
    np.testing.assert_allclose(to_resized(box, size, resized).ravel(), expected["input_boxes"][0][0], rtol=1e-6)

    masks = rng.normal(size=(2, 3, 16, 16))
    (found,) = processor.image_processor.post_process_masks(
        [torch.from_numpy(masks)], [size], expected["reshaped_input_sizes"], binarize=False
    )
    np.testing.assert_allclose(to_original(masks, size, resized, (64, 64)), found.numpy(), rtol=1e-10, atol=1e-12)
