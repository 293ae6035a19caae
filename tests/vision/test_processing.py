"""Preprocessing without transformers: sizes, crops, arithmetic and padding by hand, and configs that are refused."""

import json

import numpy as np
import pytest

from models.errors import UserError
from models.vision.processing import center_crop, read_processor

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def written(folder, config, name="preprocessor_config.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(config))
    return folder


@pytest.fixture
def processor(tmp_path):
    return lambda kind, **config: read_processor(written(tmp_path, config), kind)


def test_defaults_are_those_of_the_classes(processor):
    assert processor("ViT")(PICTURE).shape == processor("CLIP")(PICTURE).shape == (3, 224, 224)
    assert processor("Sam")(PICTURE).shape == (3, 1024, 1024)
    assert processor("ViT", image_processor_type="SamImageProcessor")(PICTURE).shape == (3, 1024, 1024)
    assert processor("ViT", feature_extractor_type="CLIPFeatureExtractor").resample == 3
    assert processor("CLIP", resample=None, size=None) == processor("CLIP")


@pytest.mark.parametrize(
    ("kind", "size", "picture", "expected"),
    [
        ("ViT", 10, (5, 7), (10, 10)),
        ("ViT", {"height": 3, "width": 4}, (5, 7), (3, 4)),
        ("ViT", [3, 4], (5, 7), (3, 4)),
        ("ViT", {"shortest_edge": 10}, (5, 7), (10, 14)),
        ("CLIP", 10, (5, 7), (10, 14)),
        ("CLIP", 10, (7, 5), (14, 10)),
        ("CLIP", 10, (6, 6), (10, 10)),
        ("CLIP", 10, (3, 10), (10, 33)),  # 33.3, rounded down
        ("CLIP", 10, (3, 11), (10, 36)),  # 36.7, rounded down
        ("CLIP", {"height": 3, "width": 4}, (5, 7), (3, 4)),
        ("Sam", {"longest_edge": 10}, (5, 7), (7, 10)),  # 7.14
        ("Sam", {"longest_edge": 10}, (7, 5), (10, 7)),
        ("Sam", {"longest_edge": 10}, (8, 3), (10, 4)),  # 3.75, rounded to the nearest
        ("Sam", {"longest_edge": 10}, (20, 3), (10, 2)),  # 1.5, rounded up
    ],
)
def test_the_size_of_a_resized_picture(processor, kind, size, picture, expected):
    made = processor(kind, size=size, do_center_crop=False, do_pad=False)
    assert made.resized(*picture) == expected
    assert made(np.zeros((*picture, 3), np.uint8)).shape == (3, *expected)


def test_a_picture_is_averaged_when_it_shrinks_and_rounded_to_whole_numbers(processor):
    columns = np.array([0, 0, 255, 255, 0, 255, 255, 0], dtype=np.uint8)
    picture = np.broadcast_to(columns[None, :, None], (8, 8, 3))
    box = processor("ViT", size=4, resample=4, do_rescale=False, do_normalize=False)(picture)
    np.testing.assert_array_equal(box, np.broadcast_to([0.0, 255, 128, 128], (3, 4, 4)))  # the mean of two, rounded
    nearest = processor("ViT", size=4, resample=0, do_rescale=False, do_normalize=False)(picture)
    np.testing.assert_array_equal(nearest, np.broadcast_to(columns[1::2], (3, 4, 4)))


def test_a_crop_is_the_middle():
    rows = np.arange(5 * 8, dtype=np.uint8).reshape(5, 8, 1)
    np.testing.assert_array_equal(center_crop(rows, (2, 4)), rows[1:3, 2:6])  # (5 − 2)/2 = 1.5 is rounded down
    np.testing.assert_array_equal(center_crop(rows, (5, 8)), rows)


def test_a_crop_larger_than_the_picture_has_zeros_around_it():
    rows = np.arange(1, 7, dtype=np.uint8).reshape(2, 3, 1)
    expected = np.zeros((5, 2, 1), np.uint8)
    expected[2:4] = rows[:, :2]  # one more row of zeros above than below, and (3 − 2)/2 rounded down
    np.testing.assert_array_equal(center_crop(rows, (5, 2)), expected)


def test_rescaling_and_normalising_are_each_left_out_on_demand(processor):
    plain = {"do_resize": False, "rescale_factor": 0.5, "image_mean": [1, 2, 3], "image_std": [2, 4, 5]}
    mean, std = np.array([[1, 2, 3], [2, 4, 5]])[:, :, None, None]
    pixels = np.moveaxis(PICTURE, 2, 0).astype(float)
    for rescale, normalize, expected in (
        (True, True, (pixels / 2 - mean) / std),
        (False, True, (pixels - mean) / std),
        (True, False, pixels / 2),
        (False, False, pixels),
    ):
        x = processor("ViT", **plain, do_rescale=rescale, do_normalize=normalize)(PICTURE)
        assert x.dtype == np.float32 and x.flags.c_contiguous
        np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6)


def test_one_number_is_for_all_channels(processor):
    one = processor("ViT", do_resize=False, image_mean=0.25, image_std=2)(PICTURE)
    np.testing.assert_array_equal(
        one, processor("ViT", do_resize=False, image_mean=[0.25] * 3, image_std=[2] * 3)(PICTURE)
    )


def test_padding_is_zeros_below_and_on_the_right_after_normalising(processor):
    plain = processor("Sam", do_resize=False, do_pad=False)(PICTURE)
    padded = processor("Sam", do_resize=False, pad_size={"height": 8, "width": 9})(PICTURE)
    np.testing.assert_array_equal(padded[:, :5, :7], plain)
    assert padded.shape == (3, 8, 9) and not padded[:, 5:].any() and not padded[:, :, 7:].any()


def test_a_picture_does_not_depend_on_what_is_beside_it_in_memory(processor):
    made = processor("CLIP", size=8, crop_size=6)
    np.testing.assert_array_equal(made(PICTURE[:, ::-1]), made(np.ascontiguousarray(PICTURE[:, ::-1])))


def test_the_newer_file_is_read_first_if_it_has_a_processor(tmp_path):
    written(tmp_path, {"size": 4})
    written(tmp_path, {"processor_class": "CLIPProcessor"}, "processor_config.json")
    assert read_processor(tmp_path, "ViT").size == {"height": 4, "width": 4}
    written(tmp_path, {"image_processor": {"size": 5}}, "processor_config.json")
    assert read_processor(tmp_path, "ViT").size == {"height": 5, "width": 5}
    written(tmp_path, {"image_processor": {"size": 0}}, "processor_config.json")
    with pytest.raises(UserError, match=r"processor_config.json: size: expected whole numbers of at least 1, got 0"):
        read_processor(tmp_path, "ViT")


REFUSED = [
    (
        "ViT",
        {"image_processor_type": "BlipImageProcessor"},
        "image_processor_type: expected ViTImageProcessor or CLIPI",
    ),
    ("ViT", {"size": {"longest_edge": 9}}, "size: expected height and width or shortest_edge, since there is no code"),
    ("ViT", {"size": {"height": 9}}, "size: expected height and width or shortest_edge"),
    ("ViT", {"size": "large"}, "size: expected height and width or shortest_edge"),
    ("CLIP", {"size": {"shortest_edge": 9, "longest_edge": 20}}, "size: expected height and width or shortest_edge"),
    ("CLIP", {"size": {"max_height": 9, "max_width": 9}}, "size: expected height and width or shortest_edge"),
    ("CLIP", {"size": {"shortest_edge": 9.5}}, "size: expected whole numbers of at least 1"),
    ("CLIP", {"size": True}, "size: expected whole numbers of at least 1, got true"),
    ("CLIP", {"size": -1}, "size: expected whole numbers of at least 1, got -1"),
    ("CLIP", {"crop_size": {"shortest_edge": 9}}, "crop_size: expected height and width, since there is no code"),
    ("Sam", {"size": 9}, "size: expected longest_edge"),
    ("Sam", {"size": {"height": 9, "width": 9}}, "size: expected longest_edge"),
    ("Sam", {"do_center_crop": True, "crop_size": 9}, "do_center_crop: expected false, got true"),
    ("ViT", {"do_center_crop": True}, "crop_size: expected height and width, since"),
    ("ViT", {"do_pad": True}, "pad_size: expected height and width, since"),
    ("ViT", {"resample": 6}, "resample: expected 0 or 1 or 2 or 3 or 4 or 5, got 6"),
    ("ViT", {"resample": "bicubic"}, "resample: expected 0 or 1"),
    ("ViT", {"do_resize": 1}, "do_resize: expected true or false, got 1"),
    ("ViT", {"do_rescale": "no"}, "do_rescale: expected true or false"),
    ("ViT", {"do_normalize": 0}, "do_normalize: expected true or false, got 0"),
    ("ViT", {"do_convert_rgb": "yes"}, "do_convert_rgb: expected true or false"),
    ("ViT", {"default_to_square": 3}, "default_to_square: expected true or false, got 3"),
    ("ViT", {"rescale_factor": 0}, "rescale_factor: expected a number above 0, got 0"),
    ("ViT", {"image_mean": [0.5, 0.5]}, "image_mean: expected a number, or one for each of three channels"),
    ("ViT", {"image_mean": "grey"}, "image_mean: expected a number, or one for each of three channels"),
    ("ViT", {"image_std": [0.5, 0.5, 0]}, "image_std: expected numbers that are not 0, got [0.5, 0.5, 0]"),
    ("ViT", {"data_format": "channels_last"}, 'data_format: expected "channels_first", since there is no code'),
    ("ViT", {"input_data_format": "channels_last"}, "input_data_format: expected null, since there is no code"),
    ("CLIP", {"use_square_size": True}, "use_square_size: expected no such option, since there is no code for it"),
    ("ViT", {"do_flip_channel_order": True}, "do_flip_channel_order: expected no such option"),
]


@pytest.mark.parametrize(("kind", "config", "message"), REFUSED, ids=[message[:40] for *_, message in REFUSED])
def test_an_option_that_is_invalid_or_has_no_code_is_named(processor, tmp_path, kind, config, message):
    with pytest.raises(UserError) as raised:
        processor(kind, **config)
    assert str(raised.value).startswith(f"{tmp_path / 'preprocessor_config.json'}: {message}")


def test_a_missing_or_broken_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"preprocessor_config.json: expected a readable file, got: No such file"):
        read_processor(tmp_path, "ViT")
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match=r"preprocessor_config.json: expected JSON, got: "):
        read_processor(tmp_path, "ViT")


def test_a_picture_that_does_not_fit_is_one_line(processor):
    with pytest.raises(
        UserError, match=r"image: expected a picture with a pixel left on its shorter side at size .*, got"
    ):
        processor("Sam", size={"longest_edge": 10})(np.zeros((1, 30, 3), np.uint8))
    with pytest.raises(
        UserError, match=r"pad_size: expected at least 14 × 10, the size .* before padding, got 12 × 11"
    ):
        processor("Sam", size={"longest_edge": 14}, pad_size=[11, 12])(PICTURE)
    with pytest.raises(UserError, match="memory: expected a picture of 400000000 × 4000 pixels to fit into"):
        processor("CLIP", size=4000)(np.zeros((1, 100_000, 3), np.uint8))


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (0, 7, 3), (5, 0, 3)])
def test_what_is_no_picture_is_refused(processor, shape):
    with pytest.raises(ValueError, match=r"picture is uint8 .*, expected uint8 \(height, width, 3\)"):
        processor("ViT")(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=r"picture is float64 \(5, 7, 3\), expected uint8 \(height, width, 3\)"):
        processor("ViT")(PICTURE / 255)
