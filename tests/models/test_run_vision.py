"""The command `run` on small random models in the published layout: what it prints and saves, and its errors."""

import json
import re
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from models import progress, run_vision
from models.cli import main
from models.published import load_model, read_architecture
from models.vision import automatic_masks
from models.vision.automatic_masks import everything
from models.vision.images import read_image
from models.vision.masks import to_original, to_resized
from models.vision.processing import read_processor

ENCODER = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 12}
WORDS = ["<|startoftext|>", "<|endoftext|>", *"abcdt", *(f"{letter}</w>" for letter in "abcdt"), "ca", "cat</w>"]
CONFIGS = {
    "vit": ENCODER | {"image_size": 8, "patch_size": 4, "id2label": {"0": "cat", "1": "dog\x1b", "2": "bird"}},
    "clip": {
        "projection_dim": 6,
        "text_config": ENCODER | {"vocab_size": 14, "max_position_embeddings": 5, "eos_token_id": 1},
        "vision_config": ENCODER | {"image_size": 8, "patch_size": 4},
    },
    "sam": {
        "vision_config": {
            "hidden_size": 12,
            "output_channels": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "window_size": 3,
            "global_attn_indexes": [1],
            "num_pos_feats": 4,
            "mlp_dim": 12,
        },
        "prompt_encoder_config": {"hidden_size": 8, "image_size": 32, "patch_size": 8, "mask_input_channels": 4},
        "mask_decoder_config": {
            "hidden_size": 8,
            "mlp_dim": 12,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 10,
        },
    },
}
PROCESSORS = {
    "vit": {"size": 8},
    "clip": {"size": 8, "crop_size": 8},
    "sam": {"size": {"longest_edge": 32}, "pad_size": {"height": 32, "width": 32}},
}


def written(folder, kind, *, config=(), processor=(), without=()):
    """Write a folder of random weights, and a picture of 20 × 12 pixels."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **CONFIGS[kind], **dict(config)}))
    rng = np.random.default_rng(11)  # with which masks of one prompt differ from those of another
    arrays = {}
    for name, shape in read_architecture(folder / "config.json").shapes():
        drawn = 0.5 * rng.standard_normal(shape)
        drawn = 1 + 0.3 * drawn if "norm" in name and name.endswith("weight") else drawn
        arrays[name] = np.array(0.3 * drawn if name.endswith("bias") else drawn, np.float32)
    save_file({name: x for name, x in arrays.items() if not name.startswith(without)}, folder / "model.safetensors")
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind] | dict(processor)))
    if kind == "clip":
        (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
        (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    picture = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "picture.png")
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    def run(kind, folder, *words, image=None):
        arguments = [kind, "--checkpoint", folder, "--image", image or folder / "picture.png", *words]
        monkeypatch.setattr(sys, "argv", ["models", "run", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run):
    """Return a function that runs the command, which must print one line on stderr and nothing else."""

    def refused(kind, folder, *words, image=None):
        code, out, err = run(kind, folder, *words, image=image)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"python -m models: [^\n]+\n", err)
        return err.removeprefix("python -m models: ").rstrip("\n")

    return refused


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def pixels_of(folder, kind):
    return read_processor(folder, kind)(read_image(folder / "picture.png"))


def test_vit_prints_the_likeliest_classes(run, tmp_path):
    folder = written(tmp_path, "vit")
    code, out, err = run("vit", folder)
    assert (code, err) == (0, "")
    probabilities = softmax(load_model(folder)(pixels_of(folder, "ViT")))
    rows = [(f"{probabilities[i]:.4f}", ("cat", "dog\\x1b", "bird")[i]) for i in np.argsort(-probabilities)]
    assert [tuple(line.split()) for line in out.splitlines()] == [("probability", "class"), *rows]
    assert run("vit", folder, "--top", 2)[1].splitlines() == out.splitlines()[:3]


def test_vit_interpolates_positions_for_larger_pictures(run, tmp_path):
    folder = written(tmp_path, "vit", processor={"size": {"height": 12, "width": 16}})
    code, out, _ = run("vit", folder)
    probabilities = softmax(load_model(folder)(pixels_of(folder, "ViT")))
    assert code == 0 and out.splitlines()[1].startswith(f"{probabilities.max():.4f}")


@pytest.mark.parity  # for `tokenizers`
def test_clip_prints_scores_of_captions(run, tmp_path):
    folder = written(tmp_path, "clip")
    code, out, err = run("clip", folder, "--caption", "cat", "--caption", "a d", "--caption", "B")
    assert (code, err) == (0, "")
    tokens = np.array([[0, 13, 1, 1], [0, 7, 10, 1], [0, 8, 1, 1]])
    scores = load_model(folder)(pixels_of(folder, "CLIP")[None], tokens)[0]
    rows = [
        [f"{probability:.4f}", f"{score:.2f}", caption]
        for score, probability, caption in sorted(zip(scores, softmax(scores), ("cat", "a d", "B"), strict=True))[::-1]
    ]
    assert [line.split(maxsplit=2) for line in out.splitlines()] == [["probability", "score", "caption"], *rows]


def expected_masks(folder, points=None, labels=None, box=None):
    """Return masks and scores of all of the decoder's masks, step by step."""
    picture, processor = read_image(folder / "picture.png"), read_processor(folder, "Sam")
    resized = processor.resized(*picture.shape[:2])
    moved = {} if points is None else {"points": to_resized(np.array([[points]]), (12, 20), resized)}
    moved |= {} if labels is None else {"labels": np.array([[labels]])}
    if box is not None:
        moved["boxes"] = to_resized(np.reshape(box, (2, 2)), (12, 20), resized).reshape(1, 1, 4)
    model = load_model(folder)
    logits, scores = model.decode(model.encode(processor(picture)[None]), **moved)
    return to_original(logits[0, 0], (12, 20), resized, (32, 32)) > 0, scores[0, 0]


@pytest.mark.parametrize(
    ("words", "prompts", "chosen"),
    [
        (["--point", "3,4"], {"points": [[3, 4]], "labels": [1]}, slice(1, 4)),
        (["--point", "3,4,0"], {"points": [[3, 4]], "labels": [0]}, slice(1, 4)),
        (["--point", "3,4", "--point", "10.5,6,0"], {"points": [[3, 4], [10.5, 6]], "labels": [1, 0]}, slice(0, 1)),
        (["--box", "2,3,20,12"], {"box": [2, 3, 20, 12]}, slice(0, 1)),
        (["--box", "2,3,9,8", "--point", "3,4,1"], {"box": [2, 3, 9, 8], "points": [[3, 4]]}, slice(0, 1)),
    ],
)
def test_sam_saves_a_mask_and_prints_scores(run, tmp_path, words, prompts, chosen):
    folder = written(tmp_path, "sam")
    code, out, err = run("sam", folder, *words, "--output", tmp_path / "new" / "drawn.png")
    assert (code, err) == (0, "")
    masks, scores = (array[chosen] for array in expected_masks(folder, **prompts))
    lines = [line.split() for line in out.splitlines()]
    assert [(line[0], line[1]) for line in lines[1:-1]] == [(str(i + 1), f"{s:.4f}") for i, s in enumerate(scores)]
    best = int(np.argmax(scores))
    assert lines[1 + best][2] == f"{masks[best].mean():.2%}"
    assert out.endswith(f"drawn.png: mask {best + 1}\n")
    picture, drawn = read_image(folder / "picture.png"), read_image(tmp_path / "new" / "drawn.png")
    changed = (picture != drawn).any(axis=-1)
    away = np.ones_like(changed)  # from where prompts are drawn
    for x, y in prompts.get("points", []):
        away[max(0, round(y) - 2) : round(y) + 3, max(0, round(x) - 2) : round(x) + 3] = False
    if "box" in prompts:
        left, top, right, bottom = prompts["box"]
        away[[top, bottom - 1, min(bottom, 11)], left : right + 1] = False
        away[top : bottom + 1, [left, right - 1, min(right, 19)]] = False
    np.testing.assert_array_equal(changed[away], masks[best][away])
    assert (changed & ~away).any()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["drawn.png"]


def test_sam_without_a_prompt_masks_everything(run, tmp_path, monkeypatch):
    folder = written(tmp_path, "sam")
    loose = partial(everything, least_iou=0, offset=0, overlap=0.9)  # masks of random weights are not stable
    monkeypatch.setattr(run_vision, "everything", loose)
    code, out, err = run("sam", folder, "--grid", 3, "--output", tmp_path / "drawn.png")
    assert (code, err) == (0, "")
    picture, processor = read_image(folder / "picture.png"), read_processor(folder, "Sam")
    model, resized = load_model(folder), processor.resized(12, 20)
    embedding = model.encode(processor(picture))

    def predict(points):
        logits, scores = model.decode(embedding, points=to_resized(points, (12, 20), resized)[:, None])
        return logits[:, 1:], scores[:, 1:]

    expected = loose(predict, lambda z: to_original(z, (12, 20), resized, (32, 32)), 12, 20, side=3)
    assert len(expected.masks) > 1
    rows = [[str(i + 1), f"{s:.4f}", f"{m.mean():.2%}"] for i, (m, s, *_) in enumerate(zip(*expected, strict=True))]
    *lines, last = out.splitlines()
    assert [line.split() for line in lines[1:]] == rows
    assert last == f"{tmp_path / 'drawn.png'}: masks: {len(rows)}"
    changed = (picture != read_image(tmp_path / "drawn.png")).any(axis=-1)
    np.testing.assert_array_equal(changed, expected.masks.any(axis=0))
    monkeypatch.setattr(automatic_masks, "LOGITS", 1)  # one mask at a time
    monkeypatch.setattr(run_vision, "everything", partial(loose, batch=2))
    monkeypatch.setattr(progress, "PATIENCE", 0)
    code, again, err = run("sam", folder, "--grid", 3, "--output", tmp_path / "drawn.png")
    assert (code, again) == (0, out) and re.search(r"batches of points .*5/5", err)


def test_sam_may_find_nothing(run, tmp_path, monkeypatch):
    folder = written(tmp_path, "sam")
    monkeypatch.setattr(run_vision, "everything", partial(everything, least_iou=np.inf))
    code, out, _ = run("sam", folder, "--grid", 2, "--output", tmp_path / "drawn.png")
    assert (code, out) == (0, f"{tmp_path / 'drawn.png'}: masks: 0\n")
    np.testing.assert_array_equal(read_image(tmp_path / "drawn.png"), read_image(folder / "picture.png"))


def test_a_prompt_of_sam_changes_the_mask(tmp_path):
    folder = written(tmp_path, "sam")
    first, second = (expected_masks(folder, points=[place], labels=[1])[0] for place in ([3, 4], [15, 9]))
    assert (first != second).any()


SAM_MISTAKES = [
    (["--grid", "3", "--point", "3,4"], "--grid: expected neither --point nor --box beside it, got --point"),
    (["--grid", "3", "--box", "2,3,9,9"], "--grid: expected neither --point nor --box beside it, got --box"),
    (["--grid", "0"], "Invalid value for '--grid': Input should be greater than or equal to 1"),
    (["--point", "20,4"], "--point: expected places from 0,0 to 19,11, inside the picture, got 20,4"),
    (["--point", "3,-1"], "--point: expected places from 0,0 to 19,11, inside the picture, got 3,-1"),
    (["--point", "3,4", "--point", "3,12,0"], "--point: expected places from 0,0 to 19,11, inside the picture"),
    (["--point", "3"], "--point: expected X,Y, or X,Y,0 on the background, in numbers, got '3'"),
    (["--point", "a,b"], "--point: expected X,Y, or X,Y,0 on the background, in numbers, got 'a,b'"),
    (["--point", "nan,3"], "--point: expected X,Y, or X,Y,0 on the background, in numbers, got 'nan,3'"),
    (["--point", "3,4,2"], "--point: expected 0 for the background or 1 for the object after X,Y, got 3,4,2"),
    (["--box", "2,3,21,9"], "--box: expected places from 0,0 to 20,12, inside the picture, got 21,9"),
    (["--box", "-1,3,9,9"], "--box: expected places from 0,0 to 20,12, inside the picture, got -1,3"),
    (["--box", "9,3,2,9"], "--box: expected X0,Y0 above and to the left of X1,Y1, got 9,3,2,9"),
    (["--box", "2,3,9"], "--box: expected X0,Y0,X1,Y1, in numbers, got '2,3,9'"),
]


@pytest.mark.parametrize(("words", "message"), SAM_MISTAKES, ids=[" ".join(words) for words, _ in SAM_MISTAKES])
def test_a_prompt_that_does_not_fit_is_one_line(refused, tmp_path, words, message):
    folder = written(tmp_path, "sam")
    before = sorted(tmp_path.iterdir())
    assert refused("sam", folder, *words, "--output", tmp_path / "drawn.png").startswith(message)
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_that_is_no_png_or_the_picture_itself_is_one_line(refused, tmp_path):
    folder = written(tmp_path, "sam")
    point, before = ["--point", "3,4", "--output"], (folder / "picture.png").read_bytes()
    assert refused("sam", folder, *point, "a.jpg") == "--output: expected a name that ends in .png, got a.jpg"
    path = folder / "picture.png"
    assert refused("sam", folder, *point, path) == f"--output: expected another file than --image, got {path}"
    assert (folder / "picture.png").read_bytes() == before
    assert "expected a place to write, got: " in refused("sam", folder, *point, folder / "config.json" / "a.png")


@pytest.mark.parity  # for `tokenizers`
def test_a_wrong_caption_is_one_line(refused, tmp_path):
    folder = written(tmp_path, "clip")
    unknown = "expected characters that the vocabulary has tokens for, got 'x'"
    assert refused("clip", folder, "--caption", "cat", "--caption", "a x") == f"caption 'a x': {unknown}"
    assert "expected at least one word, got none" in refused("clip", folder, "--caption", "")
    assert "expected at most 5 tokens" in refused("clip", folder, "--caption", "a b c d")
    assert "--caption" in refused("clip", folder)


KINDS = {"vit": [], "clip": ["--caption", "a"], "sam": ["--point", "3,4"]}
EACH = ["vit", pytest.param("clip", marks=pytest.mark.parity), "sam"]  # CLIP's command needs `tokenizers`


@pytest.mark.parametrize("kind", EACH)
def test_what_is_no_picture_is_one_line(refused, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    folder = written(tmp_path / "model", kind)
    (tmp_path / "text.png").write_text("a cat")
    (tmp_path / "empty.png").touch()
    (tmp_path / "half.png").write_bytes((folder / "picture.png").read_bytes()[:500])
    for name, message in (
        ("text.png", "expected a picture, got a file of another kind"),
        ("empty.png", "expected a picture, got an empty file"),
        ("half.png", "expected a picture, got a broken file"),
        ("none.png", "expected a readable file, got: No such file"),
    ):
        assert refused(kind, folder, *KINDS[kind], image=tmp_path / name).startswith(
            f"image {tmp_path / name}: {message}"
        )
    assert not (tmp_path / "masks.png").exists()


@pytest.mark.parametrize("kind", EACH)
def test_pictures_of_every_kind_are_read(run, tmp_path, kind):
    folder = written(tmp_path, kind)
    words = [*KINDS[kind], *(["--output", tmp_path / "masks.png"] if kind == "sam" else [])]
    pixels = np.asarray(Image.open(folder / "picture.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, picture, options in (
        ("grey.png", Image.fromarray(pixels[..., 0]), {}),
        ("alpha.png", Image.fromarray(np.concatenate([pixels, pixels[..., :1]], axis=-1)), {}),
        ("deep.png", Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), {}),
        ("turned.png", Image.fromarray(np.ascontiguousarray(np.rot90(pixels))), {"exif": exif}),
        ("dot.png", Image.fromarray(pixels[4:5, 4:9]), {}),
    ):
        picture.save(tmp_path / name, **options)
        if kind == "sam" and name == "dot.png":
            words[1] = "3,0"
        assert run(kind, folder, *words, image=tmp_path / name)[0] == 0
    turned = run(kind, folder, *[*KINDS[kind], *words[2:]], image=tmp_path / "turned.png")
    assert turned == run(kind, folder, *[*KINDS[kind], *words[2:]])  # the same picture, upright


def test_another_model_is_one_line(refused, tmp_path):
    folder = written(tmp_path, "vit")
    path = folder / "config.json"
    assert refused("sam", folder, "--point", "3,4") == f"{path}: model_type: expected sam, got vit"
    assert refused("clip", folder, "--caption", "a") == f"{path}: model_type: expected clip, got vit"
    path.write_text("{}")
    assert refused("vit", folder) == f"{path}: model_type: expected vit, got none"
    path.unlink()
    assert refused("vit", folder) == f"{path}: expected a readable file, got: No such file or directory"


def test_a_folder_whose_parts_do_not_fit_is_one_line(refused, tmp_path):
    folder = written(tmp_path / "a", "vit", without=("classifier",))
    assert refused("vit", folder) == f"checkpoint {folder}: expected a model with a classifier, got one without"
    folder = written(tmp_path / "b", "vit", config={"num_channels": 1})
    assert refused("vit", folder).startswith(
        f"checkpoint {folder}: PatchEmbedding: pixels has shape (3, 8, 8), expected"
    )
    folder = written(tmp_path / "c", "vit", processor={"size": 10})
    assert refused("vit", folder).startswith(f"checkpoint {folder}: ")
    folder = written(tmp_path / "d", "sam", processor={"pad_size": 40})
    expected = "expected 32 × 32 pixels, the image_size of config.json, from the folder's processor, got 40 × 40"
    assert refused("sam", folder, "--point", "3,4") == f"checkpoint {folder}: {expected}"
    folder = written(tmp_path / "e", "vit", processor={"do_flip": True})
    assert "do_flip: expected no such option, since there is no code for it" in refused("vit", folder)
    (folder / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json: expected a readable file" in refused("vit", folder)


@pytest.mark.parity  # for `tokenizers`
def test_clip_s_pictures_must_have_the_size_of_the_model(refused, tmp_path):
    folder = written(tmp_path, "clip", processor={"crop_size": {"height": 8, "width": 7}})
    expected = "expected 8 × 8 pixels, the image_size of config.json, from the folder's processor, got 7 × 8"
    assert refused("clip", folder, "--caption", "a") == f"checkpoint {folder}: {expected}"


@pytest.mark.parametrize("kind", ["vit", "sam"])
def test_ctrl_c_leaves_nothing(run, tmp_path, monkeypatch, kind):
    def interrupted(*_):
        raise KeyboardInterrupt

    folder = written(tmp_path, kind)
    monkeypatch.setattr(run_vision.published, "load_model", interrupted)
    before, words = sorted(tmp_path.iterdir()), ["--output", tmp_path / "masks.png"] if kind == "sam" else []
    assert run(kind, folder, *KINDS[kind], *words) == (130, "", "")
    assert sorted(tmp_path.iterdir()) == before
